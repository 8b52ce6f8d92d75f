"""The stand-in for a value that is too large to be carried along."""

from enum import Enum
from typing import Final


class Omitted(Enum):
    """The type of `OMITTED`."""

    OMITTED = "omitted"

    def __repr__(self) -> str:
        return "OMITTED"

    __str__ = __repr__


OMITTED: Final = Omitted.OMITTED
"""In pages and changes: a value over 64 KiB, which ``get`` gives. An enum's member, so it stays itself when pickled."""
