"""Values without other values inside: each to bytes and back, exactly."""

import re
import struct
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from . import tags

FRACTION_BYTES = 8192
"""A numerator or denominator: reducing a fraction takes time that grows with the square of its size."""

# What the IANA database uses; anything else never reaches the file system.
_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,3}")
_PATHS: dict[str, type[PurePath]] = {
    "p": PurePosixPath,
    "w": PureWindowsPath,
    "P": PosixPath,
    "W": WindowsPath,
}
_PATH_LETTERS = {kind: letter for letter, kind in _PATHS.items()}
_LOCAL_PATH = type(Path())


def _parts(zone: Any) -> tuple[Any, ...]:
    """Offset, and the name if it was given one: what pickle and copy use."""
    return zone.__getinitargs__()  # type: ignore[no-any-return]


def _zone_text(zone: Any) -> str:
    if type(zone) is timezone:
        offset, *name = _parts(zone)
        return f"{offset.days},{offset.seconds},{offset.microseconds}" + (f"={name[0]}" if name else "")
    if type(zone) is ZoneInfo:
        if zone.key is None or not _ZONE.fullmatch(zone.key):
            raise TypeError(f"a ZoneInfo with the key {zone.key!r} cannot be found again; use one of the IANA names")
        return zone.key
    raise TypeError(
        f"a tzinfo of type {type(zone).__module__}.{type(zone).__qualname__} is not kept; use zoneinfo or timezone"
    )


def _zone(text: str) -> tzinfo:
    offset, named, name = text.partition("=")
    if "," in offset:
        days, seconds, micros = (int(part) for part in offset.split(","))
        delta = timedelta(days, seconds, micros)
        return timezone(delta, name) if named else timezone(delta)
    if named or not _ZONE.fullmatch(text):
        raise ValueError(f"{text[:64]!r} is not the name of a time zone")
    return ZoneInfo(text)


def _clock_text(value: Any) -> bytes:
    """ISO 8601, and where that does not say all: ``;fold;zone`` behind the local time."""
    zone: Any = value.tzinfo
    if value.fold == 0 and (zone is None or (type(zone) is timezone and len(_parts(zone)) == 1)):
        return value.isoformat().encode()  # type: ignore[no-any-return]
    local = value.replace(tzinfo=None).isoformat()
    return f"{local};{value.fold};{'' if zone is None else _zone_text(zone)}".encode()


def _clock(kind: Any) -> Callable[[bytes], Any]:
    def rebuild(data: bytes) -> Any:
        local, separator, fold_and_zone = data.decode().partition(";")
        value = kind.fromisoformat(local)
        if not separator:
            return value
        fold, _, zone = fold_and_zone.partition(";")
        return value.replace(fold=int(fold), tzinfo=_zone(zone) if zone else None)

    return rebuild


def _integer(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _integer_back(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def _fraction(value: Fraction) -> bytes:
    above, below = _integer(value.numerator), _integer(value.denominator)
    if max(len(above), len(below)) > FRACTION_BYTES:
        raise TypeError(f"a Fraction of more than {FRACTION_BYTES} bytes above or below the line is not kept")
    return len(above).to_bytes(2, "big") + above + below


def _fraction_back(data: bytes) -> Fraction:
    size = int.from_bytes(data[:2], "big")
    above, below = data[2 : 2 + size], data[2 + size :]
    if len(above) != size or max(size, len(below)) > FRACTION_BYTES:
        raise ValueError("not a fraction")
    return Fraction(_integer_back(above), _integer_back(below))


def _timedelta(value: timedelta) -> bytes:
    return struct.pack(">iii", value.days, value.seconds, value.microseconds)


def _path_back(data: bytes) -> PurePath:
    text = data.decode()
    kind = _PATHS[text[:1]]
    if issubclass(kind, Path) and kind is not _LOCAL_PATH:
        raise ValueError(f"a {kind.__name__} exists only on the other family of systems; store a pure path")
    return kind(text[1:])


def _range(value: range) -> bytes:
    return ",".join(map(hex, (value.start, value.stop, value.step))).encode()


def _range_back(data: bytes) -> range:
    start, stop, step = (int(part, 16) for part in data.decode().split(","))
    return range(start, stop, step)


def _path(value: PurePath) -> bytes:
    return (_PATH_LETTERS[type(value)] + str(value)).encode()


ENCODERS: dict[type, tuple[int, Callable[[Any], bytes]]] = {
    datetime: (tags.DATETIME, _clock_text),
    date: (tags.DATE, lambda value: value.isoformat().encode()),
    time: (tags.TIME, _clock_text),
    timedelta: (tags.TIMEDELTA, _timedelta),
    Decimal: (tags.DECIMAL, lambda value: str(value).encode()),
    UUID: (tags.UUID, lambda value: value.bytes),
    complex: (tags.COMPLEX, lambda value: struct.pack(">dd", value.real, value.imag)),
    Fraction: (tags.FRACTION, _fraction),
    int: (tags.INTEGER, _integer),
    bytearray: (tags.BYTEARRAY, bytes),
    range: (tags.RANGE, _range),
    timezone: (tags.TIMEZONE, lambda value: _zone_text(value).encode()),
    ZoneInfo: (tags.TIMEZONE, lambda value: _zone_text(value).encode()),
}
for _kind in _PATH_LETTERS:
    ENCODERS[_kind] = (tags.PATH, _path)


def _numbers(form: str, data: bytes) -> tuple[Any, ...]:
    """Numbers packed in a row. Raises ValueError for another length, as the other decoders do."""
    try:
        return struct.unpack(form, data)
    except struct.error as error:
        raise ValueError(str(error)) from error


DECODERS: dict[int, Callable[[bytes], Any]] = {
    tags.DATETIME: _clock(datetime),
    tags.DATE: lambda data: date.fromisoformat(data.decode()),
    tags.TIME: _clock(time),
    tags.TIMEDELTA: lambda data: timedelta(*_numbers(">iii", data)),
    tags.DECIMAL: lambda data: Decimal(data.decode()),
    tags.UUID: lambda data: UUID(bytes=data),
    tags.COMPLEX: lambda data: complex(*_numbers(">dd", data)),
    tags.FRACTION: _fraction_back,
    tags.INTEGER: _integer_back,
    tags.BYTEARRAY: bytearray,
    tags.RANGE: _range_back,
    tags.TIMEZONE: lambda data: _zone(data.decode()),
    tags.PATH: _path_back,
}
