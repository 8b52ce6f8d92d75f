"""Values to bytes and back."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Self, TypeVar, overload

from ormsgpack import packb

from ..errors import InvalidArgument, Undecodable
from . import crypto
from .locate import locate
from .packing import OPTIONS, Packer, calls, clear
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
        self._registry = Registry()
        self._packer = Packer()
        self._unpacker = Unpacker(self._registry)
        self._callback = self._packer.callbacks[0]
        self._decode = self._unpacker.fast

    def encode(self, value: Any) -> bytes:
        """The bytes of a value. Raises `InvalidArgument` with `path` (``$.a[3].b``) and the type that is refused."""
        # `Packer.pack` in place, for this is called for every record.
        before = next(calls)
        try:
            data = packb(value, self._callback, OPTIONS)
        except TypeError:
            return self._walked(value)
        return data if clear(data) else self._walked(value, data, before)

    def _walked(self, value: Any, data: bytes | None = None, before: int = 0) -> bytes:
        try:
            if data is None:
                return self._packer.walked(value)
            return self._packer.checked(value, data, before)
        except Exception as error:
            path, reason = locate(value, self._packer, self._registry)
            raise InvalidArgument(f"cannot be stored: {path}: {reason}", what="value", path=path) from error

    def decode(self, data: bytes, *, raw: bool = False) -> Any:
        """What `encode` was given. Raises `Undecodable` with `path` and `tag` of the part that cannot be rebuilt.

        With `raw`, each such part is a `Raw` instead: its name, version and state, as far as they can be read. Only
        bytes that are no encoded value at all raise then.
        """
        try:
            return self._decode(data) if len(data) <= SHORT or stack_is_safe() else self._unpacker.bounded(data)
        except Exception as error:  # noqa: BLE001 - raised again as Undecodable, unless a slower way succeeds
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
            if raw or isinstance(error, RecursionError):
                return value
            raise Undecodable(f"a stored value cannot be decoded: $: {error}", path="$") from error
        except Failed as failed:
            what = f"{failed.path} ({failed.tag})" if failed.tag else failed.path
            raise Undecodable(
                f"a stored value cannot be decoded: {what}: {failed.reason}", path=failed.path, tag=failed.tag
            ) from (failed.__cause__ or error)
        except RecursionError as deep:
            raise Undecodable(
                "a stored value cannot be decoded: it nests deeper than the stack of this thread allows", path="$"
            ) from deep

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
            entry = self._registry.add(kind, name=name, version=version, upgrade=upgrade, encode=encode, decode=decode)
            self._packer.add(entry)
            return kind

        return add if type is None else add(type)

    def with_key_ring(self, key_ring: "crypto.KeyRing | None") -> Self:
        """The same codec, with the same registered types now and later, that encrypts with `key_ring`."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.key_ring = key_ring
        return other

    def protect(self, bound: bytes, data: bytes) -> bytes:
        """Encrypt where a key ring is set; `bound` (where the data belongs) must be given again to `reveal`."""
        return crypto.protect(self.key_ring, bound, data)

    def reveal(self, bound: bytes, data: bytes) -> bytes:
        """What `protect` was given.

        Raises `Undecodable` when there is no key of the id that the data names, `Damaged` when it does not open with
        that key: it was changed, or belongs elsewhere.
        """
        return crypto.reveal(self.key_ring, bound, data)

    def needs_rekey(self, data: bytes) -> bool:
        """Whether what `protect` returned was written under another key than it would be now."""
        return crypto.needs_rekey(self.key_ring, data)

    def digest(self, data: bytes) -> bytes:
        """32 bytes that name a content; with a key ring they depend on its naming key, and tell nobody else the
        content.
        """
        return crypto.digest(self.key_ring, data)

    def named(self, digest: bytes, data: bytes) -> bool:
        """Whether `digest` names this content: made as now, or before there was a key ring."""
        return digest == crypto.digest(self.key_ring, data) or (
            self.key_ring is not None and digest == crypto.digest(None, data)
        )


default = Codec()
"""The codec of stores that are opened without one."""

register = default.register
"""Register a type with the default codec; see `Codec.register`."""
