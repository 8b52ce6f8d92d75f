"""Values to bytes and back."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Self, TypeVar, overload

from ormsgpack import packb

from ..errors import InvalidArgument, Undecodable
from . import crypto
from .content import Hasher
from .interrupts import from_handler
from .locate import TOO_DEEP, locate
from .packing import OPTIONS, Packer, Pass, Refused, clear
from .registry import Registry, Upgrade
from .unpacking import SHORT, Failed, Unpacker, stack_is_safe

T = TypeVar("T")


class Codec:
    """Turns values into bytes and back; what goes in comes out equal and of the same type, or is refused.

    A codec knows the built-in types and those registered with it. It may be shared between threads and stores. Types
    are registered before the first value of theirs is written or read, usually where they are defined.
    """

    def __init__(self, *, key_ring: "crypto.KeyRing | None" = None) -> None:
        self.key_ring = key_ring
        self._locked = ""
        self._registry = Registry()
        self._packer = Packer()
        self._unpacker = Unpacker(self._registry)
        self._decode = self._unpacker.fast
        self._decode_raw = self._unpacker.fast_raw

    def encode(self, value: Any) -> bytes:
        """The bytes of a value. Raises `InvalidArgument` with `path` (``$.a[3].b``) and the type that is refused."""
        # `Pass.pack` in place, for this is called for every record.
        walk = self._packer.take()
        before = walk.calls
        try:
            data = packb(value, walk.first, OPTIONS)
        except TypeError as error:
            return self._walked(value, walk, error)
        if not clear(data):
            return self._walked(value, walk, None, data, before)
        self._packer.give(walk)
        return data

    def _walked(
        self, value: Any, walk: Pass, error: TypeError | None, data: bytes | None = None, before: int = 0
    ) -> bytes:
        if walk.error is not None:
            raise self._refused(value, walk.error) from walk.error
        if error is not None and from_handler(error):
            raise error
        try:
            data = walk.walked(value) if data is None else walk.checked(value, data, before)
        except Exception as failed:
            raise self._refused(value, failed) from failed
        self._packer.give(walk)
        return data

    def _refused(self, value: Any, error: BaseException) -> BaseException:
        """Return what to raise for a value that could not be encoded: what interrupted it goes to the caller as it
        is.
        """
        if from_handler(error):
            return error
        place = locate(value, self._packer, self._registry)
        if place is None and not isinstance(error, Refused | RecursionError):
            return error  # nothing is wrong with the value: somebody else raised this in the middle of it
        path, reason = place or ("$", TOO_DEEP)
        return InvalidArgument(f"cannot be stored: {path}: {reason}", what="value", path=path)

    def decode(self, data: bytes, *, raw: bool = False) -> Any:
        """Return what `encode` was given. Raises `Undecodable` with `path` and `tag` of the part that cannot be
        rebuilt.

        With `raw`, each such part is a `Raw` instead: its name, version and state, as far as they can be read. Only
        bytes that are no encoded value at all raise then.
        """
        try:
            if len(data) <= SHORT or stack_is_safe():
                return self._decode_raw(data) if raw else self._decode(data)
            return self._unpacker.explain(data, raw=raw) if raw else self._unpacker.bounded(data)
        except Exception as error:
            if from_handler(error):
                raise
            return self._explained(data, raw, error)

    @property
    def quick(self) -> Callable[[bytes], Any]:
        """Decodes most of what `encode` gave, for who does so very often; whatever it raises, ask `decode` then."""
        return self._decode if stack_is_safe() else self.decode

    def _explained(self, data: bytes, raw: bool, error: Exception) -> Any:
        try:
            if isinstance(error, RecursionError):
                with suppress(ValueError):
                    return self._unpacker.bounded(data)
            value = self._unpacker.explain(data, raw=raw)
        except Failed as failed:
            what = f"{failed.path} ({failed.tag})" if failed.tag else failed.path
            raise Undecodable(
                f"a stored value cannot be decoded: {what}: {failed.reason}", path=failed.path, tag=failed.tag
            ) from (failed.__cause__ or error)
        except RecursionError as deep:
            raise Undecodable(
                "a stored value cannot be decoded: it nests deeper than the stack of this thread allows", path="$"
            ) from deep
        if isinstance(error, RecursionError) or (raw and isinstance(error, ValueError)):
            return value
        if not isinstance(error, ValueError | TypeError):
            raise error  # nothing is wrong with the bytes: somebody else raised this in the middle of them
        raise Undecodable(f"a stored value cannot be decoded: $: {error}", path="$") from error

    def content_hash(self, value: Any) -> str:
        """64 hexadecimal digits: the same for equal values of equal types, in whatever order a mapping has its keys.

        So do objects of registered types and arrays, in C's order or in Fortran's. Raises `InvalidArgument` for what
        cannot be stored.
        """
        try:
            return Hasher(self.encode, self._registry).hexdigest(value)
        except RecursionError as error:
            self.encode(value)  # says where it contains itself, or nests too deep
            raise InvalidArgument(
                "cannot be hashed: $: nested deeper than the stack of this thread allows", what="value", path="$"
            ) from error

    @overload
    def register(
        self,
        type: type[T],
        *,
        name: str,
        version: int = 1,
        upgrade: Mapping[int, Upgrade] | None = None,
        encode: Callable[[T], Any] | None = None,
        decode: Callable[[Any], T] | None = None,
    ) -> type[T]: ...
    @overload
    def register(
        self,
        type: None = None,
        *,
        name: str,
        version: int = 1,
        upgrade: Mapping[int, Upgrade] | None = None,
        encode: Callable[[Any], Any] | None = None,
        decode: Callable[[Any], Any] | None = None,
    ) -> Callable[[type[T]], type[T]]: ...
    def register(
        self,
        type: Any = None,
        *,
        name: str,
        version: int = 1,
        upgrade: Mapping[int, Upgrade] | None = None,
        encode: Callable[[Any], Any] | None = None,
        decode: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Keep instances of a type, under a name that stays when the class moves or is renamed.

        Dataclasses, attrs classes, msgspec Structs, pydantic models, enums and named tuples need no more; any other
        class takes `encode` (object to a value that can be stored) and `decode` (the way back). Without a type it is a
        decorator. `upgrade` maps an old version to the function that turns its state (for a class with fields, a dict
        of them) into that of the next version; it runs on read, step by step, and nothing is written back.

        Raises `InvalidArgument` for a type that cannot be taken apart, `AlreadyExists` when the name or type is taken.
        """

        def add(kind: Any) -> Any:
            entry = self._registry.add(
                kind, name=name, version=version, upgrade=upgrade, encode=encode, decode=decode,
                built_in=self._packer.built_in,
            )  # fmt: skip
            self._packer.add(entry)
            return kind

        return add if type is None else add(type)

    def with_key_ring(self, key_ring: "crypto.KeyRing | None") -> Self:
        """The same codec, with the same registered types now and later, that encrypts with `key_ring`."""
        codec = object.__new__(type(self))
        codec.__dict__.update(self.__dict__)
        codec.key_ring = key_ring
        return codec

    def locked(self, reason: str) -> Self:
        """The same codec, that protects nothing and says why: for a store whose values have other keys than this."""
        codec = self.with_key_ring(self.key_ring)
        codec._locked = reason
        return codec

    def protect(self, bound: bytes, data: bytes) -> bytes:
        """Encrypt where a key ring is set; `bound` (where the data belongs) must be given again to `reveal`.

        Raises `InvalidArgument` where the store is encrypted with other keys than these: nobody could read both.
        """
        if self._locked:
            raise InvalidArgument(self._locked, what="key_ring")
        return crypto.protect(self.key_ring, bound, data)

    def reveal(self, bound: bytes, data: bytes) -> bytes:
        """Return what `protect` was given.

        Raises `Undecodable` when there is no key of the id that the data names, `Damaged` when it does not open with
        that key: it was changed, or belongs elsewhere.
        """
        return crypto.reveal(self.key_ring, bound, data)

    def needs_rekey(self, data: bytes) -> bool:
        """Say whether what `protect` returned was written under another key than it would be now."""
        return crypto.needs_rekey(self.key_ring, data)

    def digest(self, data: bytes) -> bytes:
        """32 bytes that name a content; with a key ring they depend on its naming key, and tell nobody else the
        content.
        """
        return crypto.digest(self.key_ring, data)

    def named(self, digest: bytes, data: bytes) -> bool:
        """Say whether `digest` names this content: made as now, or before there was a key ring."""
        return digest == crypto.digest(self.key_ring, data) or (
            self.key_ring is not None and digest == crypto.digest(None, data)
        )


default = Codec()
"""The codec of stores that are opened without one."""

register = default.register
"""Register a type with the default codec; see `Codec.register`."""
