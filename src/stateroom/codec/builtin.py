"""Containers of the standard library that need a word of their own: taken apart and put together."""

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from types import SimpleNamespace
from typing import Any

from . import tags

_FACTORIES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (list, dict, set, frozenset, tuple, int, float, complex, bool, str, bytes, bytearray)
} | {kind.__name__: kind for kind in (Counter, OrderedDict, deque)}
_FACTORY_NAMES = {kind: name for name, kind in _FACTORIES.items()}
_ADDRESSES: tuple[type, ...] = (IPv4Address, IPv4Network, IPv4Interface, IPv6Address, IPv6Network, IPv6Interface)

Names = Callable[[Any], str | None]
"""From a registered type to its name; None where it is not registered."""


def pairs(items: Iterable[tuple[Any, Any]]) -> list[Any]:
    """Keys and values in one list."""
    return [item for pair in items for item in pair]


def mapping(flat: Any) -> dict[Any, Any]:
    """The dict of such a list."""
    if type(flat) is not list or len(flat) % 2:
        raise ValueError("not pairs of key and value")
    return dict(zip(flat[::2], flat[1::2], strict=True))


def factory_name(value: Any, registered: Names) -> list[Any] | None:
    """Return what is kept of a defaultdict's factory: None, ``[0, name of a built-in]`` or ``[1, registered name]``."""
    factory = value.default_factory
    if factory is None:
        return None
    name = _FACTORY_NAMES.get(factory) if isinstance(factory, type) else None
    if name is not None:
        return [0, name]
    name = registered(factory) if isinstance(factory, type) else None
    if name is not None:
        return [1, name]
    label = getattr(factory, "__qualname__", repr(factory))
    raise TypeError(
        f"a defaultdict whose factory is {label} is not kept; use a built-in type or a registered one as its factory"
    )


def factory(state: Any, types: Callable[[str], Any]) -> Any:
    """The factory of what `factory_name` gave. Raises ValueError."""
    if state is None:
        return None
    registered, name = state
    result = types(name) if registered else _FACTORIES.get(name)
    if result is None:
        raise ValueError(f"{name!r} is no factory that is known here; register the type under this name")
    return result


def parts(value: Any, registered: Names) -> list[Any] | None:
    """Return what a container is made of, as a list that can be stored; None for any other value."""
    kind = type(value)
    if kind in (OrderedDict, Counter):
        return pairs(value.items())
    if kind is defaultdict:
        return [factory_name(value, registered), *pairs(value.items())]
    if kind is deque:
        return [value.maxlen, *value]
    if kind is SimpleNamespace:
        return pairs(vars(value).items())
    return None


def rebuild(tag: int, state: list[Any], types: Callable[[str], Any]) -> Any:
    """Return what `parts` was given. Raises ValueError."""
    if tag == tags.ORDERED:
        return OrderedDict(mapping(state))
    if tag == tags.COUNTER:
        return Counter(mapping(state))
    if tag == tags.NAMESPACE:
        namespace = SimpleNamespace()
        namespace.__dict__.update(mapping(state))
        return namespace
    if not state:
        raise ValueError("not the parts of a container")
    if tag == tags.DEQUE:
        return deque(state[1:], state[0])
    return defaultdict(factory(state[0], types), mapping(state[1:]))


TAGS: dict[type, int] = {
    OrderedDict: tags.ORDERED,
    defaultdict: tags.DEFAULTDICT,
    Counter: tags.COUNTER,
    deque: tags.DEQUE,
    SimpleNamespace: tags.NAMESPACE,
}
CONTAINER_TAGS = frozenset(TAGS.values())


def _address(value: Any) -> bytes:
    return f"{_ADDRESSES.index(type(value))}{value}".encode()


def _address_back(data: bytes) -> Any:
    text = data.decode()
    if not text[:1].isdecimal() or int(text[0]) >= len(_ADDRESSES):
        raise ValueError("not an address")
    return _ADDRESSES[int(text[0])](text[1:])


ENCODERS: dict[type, tuple[int, Callable[[Any], bytes]]] = dict.fromkeys(_ADDRESSES, (tags.ADDRESS, _address))
DECODERS: dict[int, Callable[[bytes], Any]] = {tags.ADDRESS: _address_back}
