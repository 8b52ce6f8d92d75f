"""Claims of `memo` where its caller is held up, called off or interrupted, and where a value cannot be rebuilt."""

import asyncio
import threading
from dataclasses import dataclass

import pytest

from kit.aging import Over, keys_left
from kit.databases import SEVERAL, SUSPENDING
from kit.faults import over
from stateroom.codec import Codec, Raw
from stateroom.engines.memory import MemoryEngine
from stateroom.errors import InvalidArgument, Undecodable
from stateroom.families.results import claims
from stateroom.families.results.claims import Claim


@SUSPENDING
def test_a_function_that_holds_up_its_event_loop_keeps_its_claim(database, monkeypatch):
    monkeypatch.setattr(claims, "CLAIM_SECONDS", 0.03)
    renewed, original = threading.Event(), Claim.renew

    async def renew(self):
        kept = await original(self)
        renewed.set()
        return kept

    monkeypatch.setattr(Claim, "renew", renew)

    async def compute():
        return renewed.wait(60)  # in one piece: nothing else runs on this loop

    async def work(store):
        assert await store.results.memo("d", "f", 1, compute) is True

    database.run(work)


@SUSPENDING
def test_whoever_is_called_off_leaves_no_claim(database):
    async def after(store, steps):
        """Call a `memo` off after so many steps of the loop; gives whether it had ended before."""
        task = asyncio.create_task(store.results.memo("d", f"f{steps}", 1, forever))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert claims_left() == []
        assert await store.results.memo("d", f"f{steps}", 1, quick, timeout=0) == 1

    async def forever():
        await asyncio.Event().wait()

    async def quick():
        return 1

    def claims_left():
        return keys_left(database, b"VC")

    async def work(store):
        for steps in range(40):
            await after(store, steps)

    if database.engine == "postgresql":  # whose answers take real time, and not steps

        async def work(store):
            for delay in range(20):
                task = asyncio.create_task(store.results.memo("d", f"f{delay}", 1, forever))
                await asyncio.sleep(delay / 2000)
                task.cancel()
                await asyncio.wait([task])
                assert await store.results.memo("d", f"f{delay}", 1, quick, timeout=5) == 1

    database.run(work)
    assert claims_left() == []


class InterruptedAfter(Over):
    """An engine in which Ctrl-C comes just after the first commit."""

    def __init__(self, inner):
        self._inner = inner
        self.done = False

    def commit(self, part, batch):
        version = self._inner.commit(part, batch)
        if not self.done:
            self.done = True
            raise KeyboardInterrupt
        return version


def test_an_interrupt_while_the_claim_is_taken_leaves_none():
    engine = MemoryEngine()
    with pytest.raises(KeyboardInterrupt):
        over(InterruptedAfter(engine)).results.memo("d", "f", 1, lambda: 1)
    assert engine.scan(0, b"n\0VC", b"n\0VD", limit=10) == []
    assert over(engine).results.memo("d", "f", 1, lambda: 2, timeout=0) == 2


def test_a_commit_that_comes_after_its_caller_gave_up_is_taken_back():
    """The claim is written by somebody else's thread, after the caller looked for it."""
    engine = MemoryEngine()

    class Late(Over):
        def __init__(self, inner):
            self._inner, self.held = inner, None

        def commit(self, part, batch):
            if self.held is None:
                self.held = batch
                raise KeyboardInterrupt
            if self.held is not batch and self.held:
                held, self.held = self.held, ()
                self._inner.commit(part, held)
            return self._inner.commit(part, batch)

    with pytest.raises(KeyboardInterrupt):
        over(Late(engine)).results.memo("d", "f", 1, lambda: 1)
    assert engine.scan(0, b"n\0VC", b"n\0VD", limit=10) == []


def test_no_thread_is_left_when_nothing_is_computed():
    store = over(MemoryEngine())
    store.results.memo("d", "f", 1, lambda: 1)
    for thread in threading.enumerate():
        if thread.name == "stateroom-memo":
            thread.join(60)
            assert not thread.is_alive()


@dataclass
class Order:
    n: int


def knowing():
    codec = Codec()
    codec.register(Order, name="order")
    return codec


@SEVERAL
@pytest.mark.parametrize("size", [1, 100_000])
def test_a_value_that_cannot_be_rebuilt_here_is_computed_again(database, size):
    with database.open(codec=knowing()) as store:
        assert store.results.memo("d", "f", 1, lambda: [Order(3), "x" * size])[0] == Order(3)
    with database.open() as store:
        id = store.results.memo_id("f", 1)
        with pytest.raises(Undecodable) as caught:
            store.results.get("d", id)
        assert caught.value.id == f"d/{id}"
        assert isinstance(store.results.get("d", id, raw=True)[0], Raw)
        assert store.results.memo("d", "f", 1, lambda: {"n": 3}) == {"n": 3}
        assert store.results.get("d", id) == {"n": 3}
        assert store.results.find("d", id).revision == 2


def test_a_value_that_cannot_be_stored_leaves_no_claim():
    engine = MemoryEngine()
    with pytest.raises(InvalidArgument):
        over(engine).results.memo("d", "f", 1, object)
    assert engine.scan(0, b"n\0VC", b"n\0VD", limit=10) == []
