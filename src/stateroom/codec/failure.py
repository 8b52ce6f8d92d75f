"""Exceptions as data: what happened is kept, the object is never rebuilt."""

import traceback
from typing import Any

import msgspec

DEPTH = 8
"""Causes, and groups in groups, are followed this far."""

MEMBERS = 16
"""Exceptions of one group that are kept."""

TEXT = 4096
"""Characters kept of a message or a note; of a traceback eight times as many, the end of it."""

NOTES = 16
"""Notes of one exception that are kept."""


class ErrorRecord(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """An exception that was stored as a value.

    `cause` is ``__cause__``, or ``__context__`` where that is not suppressed; `group` holds the members of an exception
    group. `traceback` is the text of this exception's own frames, without its causes.
    """

    type: str
    module: str
    message: str
    traceback: str = ""
    notes: tuple[str, ...] = ()
    cause: "ErrorRecord | None" = None
    group: tuple["ErrorRecord", ...] = ()

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


# Now: two threads that decode a type for the first time at once crash msgspec.
msgspec.msgpack.Decoder(ErrorRecord)


def describe(error: BaseException) -> ErrorRecord:
    """The record of an exception: bounded in depth and size, and never raising whatever the exception does."""
    return _describe(error, DEPTH, {id(error)})


def _describe(error: BaseException, depth: int, visited: set[int]) -> ErrorRecord:
    following: BaseException | None = error.__cause__
    if following is None and not error.__suppress_context__:
        following = error.__context__
    cause = None
    if following is not None and depth > 1 and id(following) not in visited:
        cause = _describe(following, depth - 1, visited | {id(following)})
    members: list[ErrorRecord] = []
    if isinstance(error, BaseExceptionGroup) and depth > 1:
        members = [_describe(member, depth - 1, visited | {id(member)}) for member in error.exceptions[:MEMBERS]]
    notes = getattr(error, "__notes__", ())
    return ErrorRecord(
        type=_clean(_text(type(error).__qualname__)),
        module=_clean(_text(type(error).__module__)),
        message=_clean(_text(error)),
        traceback=_clean(_frames(error), TEXT * 8, end=True),
        notes=tuple(_clean(_text(note)) for note in notes[:NOTES]) if isinstance(notes, list | tuple) else (),
        cause=cause,
        group=tuple(members),
    )


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - user code; that it failed is itself the text
        return f"<no text: its __str__ raised {type(error).__name__}>"


def _frames(error: BaseException) -> str:
    try:
        return "".join(traceback.format_tb(error.__traceback__, limit=-64))
    except Exception as failed:  # noqa: BLE001 - a loader may fail to give a source line
        return f"<no traceback: {type(failed).__name__}>"


def _clean(text: str, limit: int = TEXT, *, end: bool = False) -> str:
    if len(text) > limit:
        text = "… " + text[-limit:] if end else text[:limit] + " …"
    return text.encode("utf-8", "backslashreplace").decode()


def to_state(record: ErrorRecord) -> list[Any]:
    """The record as plain lists."""
    return msgspec.to_builtins(record)  # type: ignore[no-any-return]


def from_state(state: Any) -> ErrorRecord:
    """Return what `to_state` was given. Raises `msgspec.ValidationError`."""
    return msgspec.convert(state, ErrorRecord)
