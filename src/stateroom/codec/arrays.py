"""NumPy arrays and scalars, where NumPy is installed. Never `object` arrays: they would need pickle."""

import re
import sys
from collections.abc import Callable
from math import prod
from typing import Any

import ormsgpack

from . import tags

_DTYPE = re.compile(r"[<>|=][biufcSUVmM][0-9]{1,9}(\[[0-9]{0,9}[A-Za-z]{1,2}(/[0-9]{1,9})?\])?")
_DIMENSIONS = 64


def encoder(value: Any) -> tuple[int, Callable[[Any], bytes]] | None:
    """How to store `value` if it is NumPy's; None if it is not, or NumPy was never imported."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if type(value) is numpy.ndarray:
        return tags.ARRAY, _array
    if isinstance(value, numpy.generic) and type(value).__module__ == "numpy":
        return tags.ARRAY_SCALAR, _scalar
    return None


def keeps(kind: type) -> bool:
    """Tell whether instances of a type are NumPy's own, which need no registering."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and kind.__module__ == "numpy" and issubclass(kind, numpy.ndarray | numpy.generic)


def content(value: Any) -> tuple[bytes, ...] | None:
    """Return what an array holds, in C's order whatever its own is; None for any other value."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray:
        return None
    return _dtype_text(value.dtype).encode(), str(value.shape).encode(), value.tobytes("C")


def _dtype_text(dtype: Any) -> str:
    text = str(dtype.str)
    if dtype.hasobject or dtype.names is not None or dtype.metadata or not _DTYPE.fullmatch(text):
        raise TypeError(f"a NumPy dtype {dtype!r} is not kept; use a plain one, or store the fields one by one")
    return text


def _array(value: Any) -> bytes:
    text = _dtype_text(value.dtype)
    order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    return ormsgpack.packb([text, order, list(value.shape), value.tobytes(order)])


def _scalar(value: Any) -> bytes:
    text = _dtype_text(value.dtype)
    kind = value.dtype.kind
    # Of these NumPy drops trailing zeros, in an array and in its own str().
    data = str.__str__(value) if kind == "U" else bytes(value) if kind == "S" else value.tobytes()
    return ormsgpack.packb([text, data])


def _numpy() -> Any:
    try:
        import numpy
    except ImportError as error:
        raise ValueError("NumPy is not installed here") from error
    return numpy


def _dtype(numpy: Any, text: Any) -> Any:
    if not isinstance(text, str) or not _DTYPE.fullmatch(text):
        raise ValueError(f"{text!r} is not a plain NumPy dtype")
    return numpy.dtype(text)


def _array_back(data: bytes) -> Any:
    numpy = _numpy()
    text, order, shape, content = ormsgpack.unpackb(data)
    dtype = _dtype(numpy, text)
    if order not in ("C", "F") or len(shape) > _DIMENSIONS or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("not the shape of an array")
    if type(content) is not bytes or prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"{len(content)} bytes do not make an array of shape {shape}")
    # A bytearray, so that the array can be written to as the one that was stored.
    return numpy.ndarray(shape, dtype, bytearray(content) if content else None, order=order)


def _scalar_back(data: bytes) -> Any:
    numpy = _numpy()
    text, content = ormsgpack.unpackb(data)
    dtype = _dtype(numpy, text)
    if dtype.kind == "U" and type(content) is str:
        return numpy.str_(content)
    if type(content) is not bytes:
        raise ValueError("not a NumPy scalar")
    if dtype.kind == "S":
        return numpy.bytes_(content)
    if len(content) != dtype.itemsize or not content:
        raise ValueError(f"{len(content)} bytes do not make a {dtype}")
    return numpy.ndarray((1,), dtype, content)[0]


DECODERS: dict[int, Callable[[bytes], Any]] = {tags.ARRAY: _array_back, tags.ARRAY_SCALAR: _scalar_back}
