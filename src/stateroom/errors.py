"""Every error this package raises.

::

    StoreError                        code, retry, fields; picklable
    ├─ InvalidArgument (ValueError)       a value, name, filter or url that is not allowed
    ├─ NotFound (LookupError)             nothing under this id
    │  └─ NoSavepoint                     the run has no savepoint to load
    ├─ AlreadyExists                      the id, key or name is taken
    ├─ Refused                            the record says no
    │  ├─ WrongState                      actual, expected, terminal
    │  ├─ StaleRevision                   actual, expected
    │  ├─ LostLease                       holder, token
    │  ├─ NotInitialized                  the run was never initialised
    │  └─ ReadOnly                        the store was opened to be read
    ├─ Conflict                  retry    somebody else changed it first; nothing was written
    ├─ Compacted                          first: the oldest position still there
    ├─ Unavailable (TimeoutError) retry   the database cannot be reached, or is busy for too long
    ├─ OutcomeUnknown                     the commit may have happened; `once` makes a retry safe
    ├─ Timeout (TimeoutError)             what was waited for did not come in time
    ├─ Closed                             the store was closed
    ├─ InUse                              pid: another process holds the file in a way that excludes us
    └─ Damaged                            stored bytes fail their check
       ├─ Undecodable                     kind, id, path, tag: the row is kept
       └─ UnsupportedFormat               found, supported

`code` is stable and part of the API (the command line prints it); the text is not. `retry` says that the same call may
succeed if it is made again. Drivers' errors never come through: each engine maps them in one place and chains them.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

__all__ = [
    "AlreadyExists",
    "Closed",
    "Compacted",
    "Conflict",
    "Damaged",
    "InUse",
    "InvalidArgument",
    "LostLease",
    "NoSavepoint",
    "NotFound",
    "NotInitialized",
    "OutcomeUnknown",
    "ReadOnly",
    "Refused",
    "StaleRevision",
    "StoreError",
    "Timeout",
    "Unavailable",
    "Undecodable",
    "UnsupportedFormat",
    "WrongState",
]


class StoreError(Exception):
    """Base of every error of this package. What else is known stands in `fields` and as attributes."""

    code: ClassVar[str] = "error"
    retry: ClassVar[bool] = False
    names: ClassVar[tuple[str, ...]] = ()
    """The attributes this error always has; None where nothing is known. Those that its class declares."""

    _declared: ClassVar[tuple[str, ...]] = ()

    def __init__(self, message: str = "", /, **fields: Any) -> None:
        super().__init__(message)
        self.fields: dict[str, Any] = fields

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        declared = [name for name, kind in cls.__annotations__.items() if "ClassVar" not in str(kind)]
        cls._declared = tuple(dict.fromkeys((*cls._declared, *declared)))
        if "names" not in cls.__dict__:
            cls.names = cls._declared

    if not TYPE_CHECKING:  # a type checker knows what each class declares, and that there is no more

        def __getattr__(self, name: str) -> Any:
            if not name.startswith("_"):
                fields = self.__dict__.get("fields", {})
                if name in fields:
                    return fields[name]
                if name in type(self)._declared:
                    return None
            raise AttributeError(f"{type(self).__name__} has no {name!r}")

    @property
    def message(self) -> str:
        """The error as a sentence: what happened, where, and what to do."""
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self.message, self.fields)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.args == other.args and self.fields == getattr(other, "fields", None)

    __hash__ = Exception.__hash__


def _rebuild(kind: type[StoreError], message: str, fields: dict[str, Any]) -> StoreError:
    return kind(message, **fields)


class InvalidArgument(StoreError, ValueError):
    """A value, name, filter or url that is not allowed. Nothing was changed."""

    code = "invalid-argument"
    what: str | None
    value: Any
    path: str | None


class NotFound(StoreError, LookupError):
    """There is nothing under this id."""

    code = "not-found"
    kind: str | None
    id: str | None


class NoSavepoint(NotFound):
    """The run has no savepoint to load."""

    code = "no-savepoint"
    run: str | None


class AlreadyExists(StoreError):
    """The id is taken, or another active record has the business key; `id` names it."""

    code = "already-exists"
    kind: str | None
    id: str | None


class Refused(StoreError):
    """The record is not as the caller wants it to be. Nothing was changed."""

    code = "refused"


class WrongState(Refused):
    """The record is in a state that this call does not allow."""

    code = "wrong-state"
    kind: str | None
    id: str | None
    actual: str | None
    expected: frozenset[str]
    terminal: bool | None


class StaleRevision(Refused):
    """The record has another revision than the caller expected."""

    code = "stale-revision"
    kind: str | None
    id: str | None
    actual: int | None
    expected: int | None


class LostLease(Refused):
    """Somebody else holds the lease, or it has expired."""

    code = "lost-lease"
    key: str | None
    holder: str | None
    token: int | None
    expires_at: datetime | None


class NotInitialized(Refused):
    """The run was never initialised."""

    code = "not-initialized"
    run: str | None


class ReadOnly(Refused):
    """The store was opened with ``read_only=True``. Nothing was changed."""

    code = "read-only"


class Conflict(StoreError):
    """Somebody else changed what this call read before it could commit. Nothing was written."""

    code = "conflict"
    retry = True
    key: Any
    expected: Any
    actual: Any


class Compacted(StoreError):
    """The position is older than what the feed retains; read again from `first` or from BEGINNING."""

    code = "compacted"
    first: str | None


class Unavailable(StoreError, TimeoutError):
    """The database (or a node) cannot be reached, or is busy for too long. Nothing was changed."""

    code = "unavailable"
    retry = True
    tried: Any


class OutcomeUnknown(StoreError):
    """The connection was lost while committing: the change may be there, or not."""

    code = "outcome-unknown"


class Timeout(StoreError, TimeoutError):
    """The awaited thing did not come in time."""

    code = "timeout"


class Closed(StoreError):
    """The store, or the transaction, is closed."""

    code = "closed"


class InUse(StoreError):
    """Another process holds the file in a way that excludes us."""

    code = "in-use"
    pid: int | None
    path: str | None


class Damaged(StoreError):
    """Stored bytes fail their check. Nothing is deleted; `stateroom doctor` lists such rows."""

    code = "damaged"
    kind: str | None
    id: str | None
    key: Any


class Undecodable(Damaged):
    """A stored value is intact but cannot be turned back into an object here."""

    code = "undecodable"
    path: str | None
    tag: Any


class UnsupportedFormat(Damaged):
    """The file or row was written in a format this version does not read."""

    code = "unsupported-format"
    names: ClassVar[tuple[str, ...]] = ("found", "supported")
    found: Any
    supported: Any
