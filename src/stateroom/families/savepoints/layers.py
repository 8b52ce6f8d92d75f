"""Layers over one another: how a savepoint is read.

The lowest layer of a savepoint has all entities, each above it what one `update` changed. They are read side by side,
chunk by chunk of the lowest, so that a load holds some chunks at a time, whatever the savepoint has.
"""

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from ...core.namespace import Rows
from ...core.turns import apart, give_way
from ...errors import Damaged
from ...values import objects, wrapper
from ...values.objects import READ_BYTES
from .chunks import Chunk, LayerHead, PageHead, open_chunk, split_hashes

REMOVED: Any = object()
"""Stands for the state of an entity that a layer removes."""

_HASHES = 256  # hash objects of one read
_SORTED = 10_000  # entities that are sorted in place; more of them leave an event loop
Decode = Callable[[Chunk], Iterable[Any]]
"""From a chunk to its states, in the order of its ids."""


class Page(NamedTuple):
    """The chunks of a page: their first ids, their sizes, their references and those of their hashes."""

    firsts: list[str]
    sizes: list[int]
    refs: tuple[bytes, ...]
    hashes: tuple[bytes, ...]


class Layer:
    """One layer of a savepoint."""

    def __init__(self, rows: Rows, ref: bytes, head: LayerHead, pages: tuple[bytes, ...]) -> None:
        self._rows = rows
        self.scope = rows.scope
        self.ref = ref
        self.head = head
        self._pages = pages

    async def page(self, number: int) -> Page:
        """One page. Raises `Damaged`."""
        (content,) = await objects.contents(self._rows, [self._pages[number]])
        refs, body = objects.split(content)
        head = msgspec.msgpack.decode(body, type=PageHead)
        return Page(head.firsts, head.sizes, refs[::2], refs[1::2])

    async def chunk(self, page: Page, number: int) -> Chunk:
        """One chunk of a page."""
        return open_chunk(await _content(self._rows, page.refs[number], page.sizes[number]))

    async def each(self) -> AsyncIterator[Chunk]:
        """All chunks in order, some read at a time."""
        for number in range(len(self._pages)):
            page = await self.page(number)
            begin = size = 0
            for at, increment in enumerate(page.sizes):
                if size and size + increment > READ_BYTES:
                    for content in await self._contents(page, begin, at):
                        await give_way(self.scope)
                        yield open_chunk(content)
                    begin, size = at, 0
                size += increment
            for content in await self._contents(page, begin, len(page.refs)):
                await give_way(self.scope)
                yield open_chunk(content)

    async def _contents(self, page: Page, begin: int, end: int) -> list[bytes]:
        refs = page.refs[begin:end]
        if all(ref[:1] == objects.LEAF for ref in refs):
            return await objects.contents(self._rows, refs)
        sizes = page.sizes[begin:end]
        return [await _content(self._rows, *pair) for pair in zip(refs, sizes, strict=True)]

    async def find(self, id: str) -> Any:
        """The encoded state of an entity, REMOVED, or None where this layer says nothing of it."""
        number = bisect_right(self.head.firsts, id) - 1
        if number < 0:
            return None
        page = await self.page(number)
        chunk = await self.chunk(page, bisect_right(page.firsts, id) - 1)
        return REMOVED if id in chunk.removed else chunk.state(id)

    async def presence_of(self, ids: Sequence[str], hashes: Mapping[str, int]) -> dict[str, bool]:
        """Find those of some sorted ids that this layer has (True) or removes (False)."""
        presence: dict[str, bool] = {}
        begin = 0
        while begin < len(ids):
            number = bisect_right(self.head.firsts, ids[begin]) - 1
            last = number + 1 >= len(self.head.firsts)
            end = len(ids) if last else bisect_left(ids, self.head.firsts[number + 1], begin)
            if number >= 0:
                await self._add_presence(await self.page(number), ids[begin:end], hashes, presence)
            begin = end
        return presence

    async def _add_presence(
        self, page: Page, ids: Sequence[str], hashes: Mapping[str, int], presence: dict[str, bool]
    ) -> None:
        ids_by_page: dict[int, list[str]] = {}
        for id in ids:
            ids_by_page.setdefault(bisect_right(page.firsts, id) - 1, []).append(id)
        numbers = list(ids_by_page)
        for at in range(0, len(numbers), _HASHES):
            batch = numbers[at : at + _HASHES]
            contents = await objects.contents(self._rows, [page.hashes[number] for number in batch])
            for number, content in zip(batch, contents, strict=True):
                added, removed = split_hashes(content)
                for ordered, present in ((_sorted(added), True), (_sorted(removed), False)):
                    for id in ids_by_page[number] if ordered else ():
                        hashed = hashes[id]
                        place = bisect_left(ordered, hashed)
                        if place < len(ordered) and ordered[place] == hashed:
                            presence[id] = present


def _sorted(hashes: bytes) -> "array[int]":
    numbers = array("Q")
    numbers.frombytes(hashes)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


async def _content(rows: Rows, ref: bytes, size: int) -> bytes:
    if ref[:1] == objects.LEAF:
        return (await objects.contents(rows, [ref]))[0]
    return await wrapper.fetch(rows, b"", wrapper.wrapper(size, ref))


async def open_layers(rows: Rows, refs: Sequence[bytes]) -> list[Layer]:
    """Some layers, in one read. Raises `Damaged`."""
    layers = []
    for ref, content in zip(refs, await objects.contents(rows, refs), strict=True):
        pages, body = objects.split(content)
        try:
            head = msgspec.msgpack.decode(body, type=LayerHead)
        except msgspec.DecodeError as error:
            raise Damaged("a layer of a savepoint cannot be read", kind="savepoints") from error
        layers.append(Layer(rows, ref, head, pages))
    return layers


class _Ahead:
    """The entries of an upper layer, given out up to an id at a time."""

    def __init__(self, layer: Layer, decode: Decode) -> None:
        self._chunks = layer.each()
        self._decode = decode
        self._entries: list[tuple[str, Any]] = []
        self._ended = False

    async def upto(self, stop: str | None) -> list[tuple[str, Any]]:
        """Return what comes before `stop` and was not given out yet; None: the rest."""
        while not self._ended and (stop is None or not self._entries or self._entries[-1][0] < stop):
            chunk = await anext(self._chunks, None)
            if chunk is None:
                self._ended = True
            else:
                entries = [*zip(chunk.ids, self._decode(chunk), strict=True), *((id, REMOVED) for id in chunk.removed)]
                self._entries += sorted(entries, key=_id) if chunk.removed else entries
        end = len(self._entries) if stop is None else bisect_left(self._entries, stop, key=_id)
        result, self._entries = self._entries[:end], self._entries[end:]
        return result


def _id(entry: tuple[str, Any]) -> str:
    return entry[0]


async def merged(
    layers: Sequence[Layer], decode: Decode, last: Sequence[tuple[str, Any]] = ()
) -> AsyncIterator[tuple[list[str], list[Any]]]:
    """All entities, sorted by id, in runs: ids and states. `last`: entries over all layers, sorted by id."""
    lowest, uppers = layers[0], [_Ahead(layer, decode) for layer in layers[1:]]
    removing = any(layer.head.removed for layer in layers) or any(state is REMOVED for _, state in last)
    pending: Chunk | None = None
    place = 0
    async for chunk in lowest.each():
        if pending is not None:
            stop = chunk.ids[0] if chunk.ids else ""
            end = bisect_left(last, stop, place, key=_id)
            yield _laid_over(pending, decode, [await upper.upto(stop) for upper in uppers], last[place:end], removing)
            place = end
        pending = chunk
    remaining = [await upper.upto(None) for upper in uppers]
    yield _laid_over(pending, decode, remaining, last[place:], removing)


async def whole(layers: Sequence[Layer], decode: Decode) -> dict[str, Any]:
    """All entities at once, sorted by id: one layer after the other, which costs less than laying over each chunk."""
    states: dict[str, Any] = {}
    base = 0
    for number, layer in enumerate(layers):
        async for chunk in layer.each():
            states.update(zip(chunk.ids, decode(chunk), strict=True))
            for id in chunk.removed:
                states.pop(id, None)
        if number == 0:
            base = len(states)
    if len(states) == base and not any(layer.head.removed for layer in layers):
        return states
    return await apart(layers[0].scope, len(states) > _SORTED, lambda: dict(sorted(states.items(), key=_id)))


def _laid_over(
    chunk: Chunk | None,
    decode: Decode,
    uppers: list[list[tuple[str, Any]]],
    last: Sequence[tuple[str, Any]],
    removing: bool,
) -> tuple[list[str], list[Any]]:
    ids = [] if chunk is None else chunk.ids
    states = [] if chunk is None else list(decode(chunk))
    if not last and not any(uppers):
        return ids, states
    entities = dict(zip(ids, states, strict=True))
    before = len(entities)
    for upper in uppers:
        entities.update(upper)
    entities.update(last)
    grown = len(entities) > before
    if removing:
        entities = {id: state for id, state in entities.items() if state is not REMOVED}
    if grown:
        ids = sorted(entities)
        return ids, [entities[id] for id in ids]
    return list(entities), list(entities.values())


def encoded(chunk: Chunk) -> Iterable[bytes]:
    """States as they are stored: a `Decode` that decodes nothing."""
    return (state for _, state in chunk.each())
