"""Values that cannot be rebuilt here, as they are shown and written back."""

from typing import Any

import msgspec


class Raw(msgspec.Struct, frozen=True, eq=False):
    """A value that cannot be rebuilt in this process: its type is not registered here, say.

    `name` is the registered name, or the kind of value; `version` that it was stored under (0 where it has none);
    `data` its decoded state, or the stored bytes where they say nothing; `reason` why it cannot be rebuilt. Two are
    equal when name, version and data are. ``str()`` of one is short: ``order{n: 4}``.

    Written back it is stored as exactly what it was. One that you make (name, version and data) is stored as that
    state of a registered type: who knows the type reads an object.
    """

    name: str
    version: int
    data: Any
    reason: str = ""
    stored: tuple[int, bytes] | None = None
    """Kind and bytes as they were stored; None for one that was made."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not Raw:
            return NotImplemented
        return (self.name, self.version, self.data) == (other.name, other.version, other.data)

    def __hash__(self) -> int:
        return hash((self.name, self.version, self.data))

    def __repr__(self) -> str:
        reason = f", reason={self.reason!r}" if self.reason else ""
        return f"Raw(name={self.name!r}, version={self.version!r}, data={self.data!r}{reason})"

    def __str__(self) -> str:
        return show(self)


def show(value: Any) -> str:
    """A value on one line: a `Raw` as its name with its state in braces, wherever it stands."""
    if type(value) is Raw:
        if type(value.data) is dict:
            return f"{value.name}{{{', '.join(f'{key}: {show(item)}' for key, item in value.data.items())}}}"
        if type(value.data) is bytes:
            return f"{value.name}{{{len(value.data)} bytes}}"
        return f"{value.name}{{{show(value.data)}}}"
    if type(value) is list:
        return f"[{', '.join(map(show, value))}]"
    if type(value) is dict:
        return f"{{{', '.join(f'{key}: {show(item)}' for key, item in value.items())}}}"
    return value if type(value) is str else repr(value)
