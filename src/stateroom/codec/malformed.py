"""Stored bytes that are whole, and are not what they should be: they are `Damaged`, whatever reading them raises."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import Damaged, InvalidArgument, StoreError
from .interrupts import from_handler

MALFORMED = (ValueError, TypeError, LookupError, OverflowError, AttributeError, RecursionError, struct.error)
"""What taking bytes apart may raise where they were written by somebody else."""


@contextmanager
def parsing(what: str, **fields: Any) -> Iterator[None]:
    """Raise `Damaged`, saying that `what` cannot be read, for whatever is raised while bytes are taken apart."""
    try:
        yield
    except MALFORMED as error:
        raise damaged(what, error, **fields) from error


def damaged(what: str, error: Exception, **fields: Any) -> Exception:
    """Return what to raise instead of an error of reading; itself where it is one of ours, or a signal handler's."""
    if from_handler(error) or (isinstance(error, StoreError) and not isinstance(error, InvalidArgument)):
        return error
    return Damaged(f"{what} cannot be read", **fields)
