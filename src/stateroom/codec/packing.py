"""Values to bytes.

Plain data goes through ormsgpack in one call. What it does not know comes back through a callback, one function per
level of nesting, so that depth is counted without any state to carry. Only when that call fails is the value walked in
Python: to give dicts with other than plain keys a form of their own, or to find the path of what is refused.
"""

from collections.abc import Callable, Generator
from typing import Any, Union

import msgspec
import ormsgpack
from ormsgpack import Ext, packb

from . import arrays, builtin, failure, scalars, tags
from .depth import EXTENSIONS, limit
from .disguise import may_hold_bytes
from .interrupts import from_handler
from .raw import Raw
from .registry import Registered

OPTIONS = (
    ormsgpack.OPT_PASSTHROUGH_BIG_INT
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
_ANY_KEYS = OPTIONS | ormsgpack.OPT_NON_STR_KEYS
_PLAIN_KEYS = frozenset((str, float, bool, type(None), bytes))
_LEAVES = frozenset((str, int, float, bool, type(None), bytes))
# ormsgpack writes these as if they were something else, without asking.
_DISGUISED = (memoryview, Ext, ormsgpack.Fragment)
_LONG_BYTES, _LONG_ITEMS = 1 << 15, 256
# Down to here encoding is tried first and the value walked only after it failed. Deeper, each try would double the
# work.
_TRIED = 3
_INT_FROM, _INT_TO = -(1 << 63), (1 << 64) - 1

_Plain: Any = Union[None, bool, int, float, str]  # noqa: UP007 - built up in the loop below
for _ in range(6):
    _Plain = Union[None, bool, int, float, str, list[_Plain], dict[str, _Plain]]  # noqa: UP007


_OnlyPlain = msgspec.defstruct("_OnlyPlain", [("value", _Plain)])
# Now: two threads that decode a type for the first time at once crash msgspec.
msgspec.msgpack.Decoder(_OnlyPlain)


class Refused(TypeError):
    """A value that is not kept; the text says why."""


Encoder = Callable[["Pass", Any, int], Ext]
"""Encodes one value; given the pass it is part of, the value, and the extensions around it."""


class Packer:
    """How each type is encoded, with the registered types of one codec; and passes that are free."""

    def __init__(self) -> None:
        self._names: dict[type, str] = {}
        self.encoders: dict[type, Encoder] = {
            tuple: lambda walk, value, depth: Ext(tags.TUPLE, walk.pack(list(value), depth)),
            set: lambda walk, value, depth: Ext(tags.SET, walk.pack_set(value, depth)),
            frozenset: lambda walk, value, depth: Ext(tags.FROZENSET, walk.pack_set(value, depth)),
            failure.ErrorRecord: lambda _, value, __: _failure(value),
            Raw: _raw,
        }
        for kind, (tag, function) in (scalars.ENCODERS | builtin.ENCODERS).items():
            self.encoders[kind] = _simple(tag, function)
        for kind, tag in builtin.TAGS.items():
            self.encoders[kind] = self._container(tag)
        self._free: list[Pass] = []
        self._built_in = frozenset[Any]({*self.encoders, *_DISGUISED})

    def _container(self, tag: int) -> Encoder:
        names = self._names.get
        return lambda walk, value, depth: Ext(tag, walk.pack(builtin.parts(value, names), depth))

    def add(self, entry: Registered) -> None:
        """Encode instances of a registered type, and only of exactly that type."""

        def encode(walk: "Pass", value: Any, depth: int) -> Ext:
            return Ext(tags.NAMED, walk.pack([entry.name, entry.version, entry.dump(value)], depth))

        self.encoders[entry.type] = encode
        self._names[entry.type] = entry.name

    def parts(self, value: Any) -> list[Any] | None:
        """Return what a container of the standard library is made of; None for any other value."""
        return builtin.parts(value, self._names.get)

    @property
    def built_in(self) -> frozenset[Any]:
        """The types that are kept without being registered, and those that ormsgpack writes without asking."""
        return self._built_in

    def take(self) -> "Pass":
        """A pass that nobody else has."""
        try:
            return self._free.pop()
        except IndexError:
            return Pass(self)

    def give(self, walk: "Pass") -> None:
        """Take a pass back, unless something was raised in it."""
        if walk.error is None:
            self._free.append(walk)

    def encoder(self, value: Any) -> Encoder:
        """How to encode what is not in the table."""
        array = arrays.encoder(value)
        if array is not None:
            return _simple(*array)
        if isinstance(value, BaseException):
            return lambda _, error, __: _failure(failure.describe(error))
        raise Refused(refusal(value))

    def encode_alone(self, value: Any) -> None:
        """Raise what encoding this one value raises."""
        if type(value) not in _LEAVES or (type(value) is int and not _INT_FROM <= value <= _INT_TO):
            encoder = self.encoders.get(type(value)) or self.encoder(value)
            encoder(Pass(self), value, 1)


class Pass:
    """The encoding of one value, or of one after another: callbacks for ormsgpack, and what was raised in them.

    ormsgpack drops whatever a callback raises, a KeyboardInterrupt too, and says TypeError. So each callback is the
    `send` of a generator that is suspended inside a ``try``: there is no step of it, not even the first, at which a
    signal handler's exception could escape being kept in `error`. A pass in which something was raised is not used
    again.
    """

    __slots__ = ("_callbacks", "_packer", "calls", "error", "first")

    def __init__(self, packer: Packer) -> None:
        self._packer = packer
        self.error: BaseException | None = None
        self.calls = 0
        """How many callbacks there were."""
        self._callbacks: list[Callable[[Any], Ext]] = []
        self.first = self.callback(0)

    def callback(self, depth: int) -> Callable[[Any], Ext]:
        """Return what ormsgpack asks for a value that it does not know, under `depth` extensions."""
        while len(self._callbacks) <= depth:
            generator = self._answers(len(self._callbacks) + 1)
            next(generator)
            self._callbacks.append(generator.send)
        return self._callbacks[depth]

    def _answers(self, below: int) -> Generator[Ext, Any, None]:
        encoders, fallback = self._packer.encoders, self._packer.encoder
        answer: Any = None
        try:
            while True:
                value = yield answer
                self.calls += 1
                answer = (encoders.get(type(value)) or fallback(value))(self, value, below)
        except GeneratorExit:
            raise
        except BaseException as error:
            if self.error is None:
                self.error = error
            raise

    def pack(self, value: Any, depth: int = 0) -> bytes:
        """The bytes of a value under `depth` extensions. Raises TypeError, RecursionError, or what was raised in it."""
        if depth > EXTENSIONS:
            raise Refused("nested too deep")
        if depth >= _TRIED:
            return self.walked(value, depth)
        before = self.calls
        try:
            data = packb(value, self.callback(depth), OPTIONS)
        except TypeError:
            if self.error is not None:
                raise self.error from None
            return self.walked(value, depth)
        return data if clear(data) else self.checked(value, data, before, depth)

    def walked(self, value: Any, depth: int = 0) -> bytes:
        """The bytes of a value that ormsgpack refused as it is, or would not keep exactly."""
        return self._packed(self._rewritten(value, depth, 0), depth)

    def _packed(self, rewritten: Any, depth: int) -> bytes:
        try:
            return packb(rewritten, self.callback(depth), _ANY_KEYS)
        except TypeError:
            if self.error is not None:
                raise self.error from None
            raise

    def checked(self, value: Any, data: bytes, before: int, depth: int = 0) -> bytes:
        """`data`, unless bytes in it came from a bytearray or memoryview, which ormsgpack writes as bytes."""
        plain = self.calls == before
        if plain and not may_hold_bytes(data):
            return data
        if _is_plain(_thinned(value) if plain and len(data) > _LONG_BYTES else value):
            return data
        rewritten = self._rewritten(value, depth, 0)
        return data if rewritten is value else self._packed(rewritten, depth)

    def pack_set(self, value: Any, depth: int) -> bytes:
        """In an order that depends on the members alone: equal sets have equal bytes, whatever the hash seed."""
        kinds = set(map(type, value))
        if len(kinds) == 1 and (str in kinds or int in kinds):
            return self.pack(sorted(value), depth)
        members = sorted(self.pack(member, depth) for member in value)
        size = len(members)
        head = b"\xdc" + size.to_bytes(2, "big") if size < 1 << 16 else b"\xdd" + size.to_bytes(4, "big")
        return (bytes((0x90 | size,)) if size < 16 else head) + b"".join(members)

    def _rewritten(self, value: Any, depth: int, level: int) -> Any:
        """`value` with extensions in place of what ormsgpack refuses or disguises; itself where there is none."""
        kind = type(value)
        # An extension's own list around its members, and a registered type's around its state, do not count.
        if level > limit(depth) + 2 and kind in (list, dict):
            raise Refused("nested too deep")
        if kind is list:
            return self._rewritten_list(value, depth, level + 1)
        if kind is dict:
            if not all(map(_is_plain_key, value)):
                flat = [item for pair in value.items() for item in pair]
                return Ext(tags.MAPPING, self.pack(flat, depth + 1))
            items = list(value.values())
            changed = self._rewritten_list(items, depth, level + 1)
            return value if changed is items else dict(zip(value, changed, strict=True))
        if kind is bytearray:
            return Ext(tags.BYTEARRAY, bytes(value))
        if kind in _DISGUISED:
            raise Refused(refusal(value))
        return value

    def _rewritten_list(self, items: list[Any], depth: int, level: int) -> list[Any]:
        changed = items
        for at, item in enumerate(items):
            if type(item) not in _LEAVES:
                replacement = self._rewritten(item, depth, level)
                if replacement is not item:
                    if changed is items:
                        changed = list(items)
                    changed[at] = replacement
        return changed


def clear(data: bytes) -> bool:
    """Say whether no byte of `data` looks like the header of a byte string."""
    return 0xC4 not in data and (len(data) <= 256 or (0xC5 not in data and 0xC6 not in data))


def _failure(record: failure.ErrorRecord) -> Ext:
    return Ext(tags.ERROR, packb(failure.to_state(record)))


def _simple(tag: int, function: Callable[[Any], bytes]) -> Encoder:
    return lambda _, value, __: Ext(tag, function(value))


def _raw(walk: Pass, value: Raw, depth: int) -> Ext:
    """Return what could not be rebuilt goes back as it came: the very bytes, where it came from a store."""
    if value.stored is not None:
        return Ext(*value.stored)
    return Ext(tags.NAMED, walk.pack([value.name, value.version, value.data], depth))


def _thinned(value: Any, level: int = 0) -> Any:
    """`value` without long lists of floats alone: a sum is the fastest way to see that they hold nothing else.

    For values of built-in types only: a class of one's own could add up with anything.
    """
    kind = type(value)
    if kind is list and len(value) > _LONG_ITEMS:
        if type(value[0]) is not float:  # for other items `_is_plain` is faster
            return value
        try:
            sum(value)
        except (TypeError, OverflowError):
            return value
        return 0
    if level < 4 and kind is list:
        return [_thinned(item, level + 1) for item in value]
    if level < 4 and kind is dict and len(value) <= _LONG_ITEMS:
        return {key: _thinned(item, level + 1) for key, item in value.items()}
    return value


def _is_plain(value: Any) -> bool:
    """Say whether a value holds nothing but JSON's types, a few levels deep; False says nothing. Runs in C."""
    try:
        msgspec.convert({"value": value}, _OnlyPlain)
    except Exception as error:
        if from_handler(error):
            raise
        return False  # it raises different things for different types; any says "not plain"
    return True


def _is_plain_key(key: Any) -> bool:
    kind = type(key)
    return kind in _PLAIN_KEYS or (kind is int and _INT_FROM <= key <= _INT_TO)


def refusal(value: Any) -> str:
    """Why a value of this type is not kept, and what to do."""
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    for base in (str, int, float, bytes, list, tuple, dict, set, frozenset):
        if isinstance(value, base):
            return (
                f"a {name}, which is a subclass of {base.__name__}, is not kept; "
                f'store a plain {base.__name__}, or register it: stateroom.codec.register({kind.__name__}, name="...")'
            )
    if kind is memoryview:
        return "a memoryview is not kept; store bytes(view)"
    return (
        f"a value of type {name} is not kept; store what it is made of, or register the type: "
        f'stateroom.codec.register({kind.__name__}, name="...")'
    )
