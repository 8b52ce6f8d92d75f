"""What `check` reports."""

import msgspec


class Problem(msgspec.Struct, frozen=True):
    """Something that does not hold. `code` is stable; `message` says what, where and what to do."""

    code: str
    message: str
    family: str = ""
    id: str = ""
    part: int = 0
