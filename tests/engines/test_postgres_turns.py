"""Commits that meet in one part share a transaction: none waits in vain, none suffers from another."""

import asyncio
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import pytest

from stateroom.engine import Batch
from stateroom.engines.postgres import connect, connect_async
from stateroom.engines.postgres.turns import MOST, MOST_BYTES, AsyncTurns, Turns, _Turn
from stateroom.errors import Closed, Conflict, InvalidArgument, OutcomeUnknown, StoreError, Unavailable
from stateroom.testing.postgres import fresh_schema


def batch(name, **options):
    return Batch(write={name: b"v"}, **options)


class Gate:
    """Holds the first commit until all others wait behind it, and remembers what went together."""

    def __init__(self, others, alone=None, together=None):
        self.first, self._open = threading.Event(), threading.Event()
        self._others = others
        self._lock = threading.Lock()
        self.alone, self.together, self.groups = alone, together, []
        self.waiting = []

    def go_alone(self, part, batch):
        if not self.first.is_set():
            self.first.set()
            assert self._open.wait(60)
        with self._lock:
            self.groups.append([batch])
        return self.alone(part, batch) if self.alone else 1

    def go_together(self, part, batches):
        with self._lock:
            self.groups.append(list(batches))
        return self.together(part, batches) if self.together else list(range(2, 2 + len(batches)))

    def joined(self):
        with self._lock:
            self._others -= 1
            if self._others == 0:
                self._open.set()


class Gated(Turns):
    """Turns that tell the gate who has joined a line."""

    def __init__(self, gate):
        super().__init__(gate.go_alone, gate.go_together)
        self._gate = gate

    def _wait(self, part, line, turn):
        self._gate.joined()
        return super()._wait(part, line, turn)


def outcome(call, *args):
    try:
        return call(*args)
    except StoreError as error:
        return error


def meet(gate, turns, batches, part=0):
    """The outcomes of batches of which all but the first come while that is under way."""
    with ThreadPoolExecutor(len(batches)) as threads:
        first = threads.submit(outcome, turns.commit, part, batches[0])
        assert gate.first.wait(60)
        others = [threads.submit(outcome, turns.commit, part, one) for one in batches[1:]]
        return [first.result(60), *[one.result(60) for one in others]]


def test_those_that_come_meanwhile_go_together():
    gate = Gate(others=5)
    turns = Gated(gate)
    batches = [batch(b"%d" % number) for number in range(6)]
    assert sorted(meet(gate, turns, batches)) == [1, 2, 3, 4, 5, 6]
    assert [len(group) for group in gate.groups] == [1, 5]
    assert turns._lines == {}


def test_a_group_has_a_limit():
    gate = Gate(others=MOST + 3)
    meet(gate, Gated(gate), [batch(b"%d" % number) for number in range(MOST + 4)])
    assert [len(group) for group in gate.groups] == [1, MOST, 3]
    large = Batch(write={b"large": bytes(MOST_BYTES // 2 + 1)})
    gate = Gate(others=3)
    meet(gate, Gated(gate), [batch(b"first"), large, large, large])
    assert sorted(map(len, gate.groups)) == [1, 1, 2]


@pytest.mark.parametrize("error", [Unavailable("gone"), InvalidArgument("wrong"), Closed("closed")])
def test_where_nothing_was_done_each_goes_alone(error):
    def together(part, batches):
        raise error

    gate = Gate(others=3, together=together)
    assert meet(gate, Gated(gate), [batch(b"%d" % number) for number in range(4)]) == [1, 1, 1, 1]
    assert [len(group) for group in gate.groups] == [1, 3, 1, 1, 1]


def test_an_unknown_outcome_is_told_to_each():
    def together(part, batches):
        raise OutcomeUnknown("cut")

    gate = Gate(others=3, together=together)
    first, *others = meet(gate, Gated(gate), [batch(b"%d" % number) for number in range(4)])
    assert first == 1
    assert [type(one) for one in others] == [OutcomeUnknown] * 3
    assert len(set(map(id, others))) == 3, "each has an error of its own"


def test_an_interrupted_leader_leaves_nobody_waiting():
    def together(part, batches):
        raise KeyboardInterrupt

    gate = Gate(others=2, together=together)
    turns = Gated(gate)
    found = []

    def run(one):
        try:
            found.append(turns.commit(0, one))
        except (StoreError, KeyboardInterrupt) as error:
            found.append(type(error))

    threads = [threading.Thread(target=run, args=(batch(b"0"),))]
    threads[0].start()
    assert gate.first.wait(60)
    threads += [threading.Thread(target=run, args=(batch(b"%d" % number),)) for number in (1, 2)]
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(map(str, found)) == sorted(map(str, [1, KeyboardInterrupt, OutcomeUnknown]))
    assert turns.commit(0, batch(b"3")) == 1


def test_a_line_that_does_not_move_is_given_up(monkeypatch):
    gate = Gate(others=-1)
    turns = Gated(gate)
    turns._lines[0] = deque()  # whoever should move it was interrupted
    monkeypatch.setattr("stateroom.engines.postgres.turns.PATIENCE", 0.0)
    gate.first.set()
    assert turns.commit(0, batch(b"0")) == 1
    assert turns._lines == {}


def test_who_is_interrupted_while_waiting_hands_on_what_it_was_to_do():
    turns = Turns(lambda part, batch: 1, lambda part, batches: [7] * len(batches))
    line = turns._lines[0] = deque(_Turn(batch(b"%d" % number)) for number in range(3))
    one, two, three = line
    turns._leave(0, line, two)
    assert list(line) == [one, three], "one that only waited is gone"
    turns._call_next(0, line)
    assert one.group == [one, three]
    turns._leave(0, line, one)
    assert three.group == [three], "the next one carries out what is left"
    assert not three.called.locked()
    assert turns._wait(0, line, three) == 1
    assert turns._lines == {}


@pytest.fixture(scope="module")
def url():
    with fresh_schema("18") as url:
        yield url


def check(engine, told, expected):
    """`expected`: what each batch was told, as a type; rows say the same."""
    assert [type(one) for one in told] == expected
    versions = [one for one in told if isinstance(one, int)]
    assert len(set(versions)) == len(versions)
    for number, one in enumerate(told):
        (row,) = engine.read(0, [b"g%d" % number])
        assert (row.version if row else None) == (one if isinstance(one, int) else None)
    entries = [row.value for row in engine.scan(0, b"f/", b"f0", limit=100)]
    assert sorted(entries) == sorted(b"%d" % number for number, one in enumerate(told) if isinstance(one, int))
    assert entries == [b"%d" % number for _, number in sorted((v, n) for n, v in enumerate(told) if isinstance(v, int))]
    assert engine.read(0, [b""])[0].version == max(versions)


@pytest.mark.parametrize("bad", ["conflict", "counter", "invalid"])
def test_one_of_a_group_that_is_refused_harms_no_other(bad):
    with_gate = Gate(others=4)
    with fresh_schema("18") as url:
        engine = connect(url, parts=1)
        with_gate.alone, with_gate.together = engine._alone, engine._together
        engine._turns = Gated(with_gate)
        batches = [
            Batch(write={b"g%d" % number: b"v"}, append=[(b"f/", b"%d" % number)], add={b"n": 1}) for number in range(5)
        ]
        refused = {
            "conflict": (
                Batch(expect={b"g0": 0}, write={b"g2": b"v"}, append=[(b"f/", b"2")], add={b"n": 1}),
                Conflict,
            ),
            "counter": (
                Batch(write={b"g2": b"v", b"x": b""}, add={b"g0": 1}, append=[(b"f/", b"2")]),
                InvalidArgument,
            ),
            "invalid": (Batch(write={b"": b"v", b"g2": b"v"}), InvalidArgument),
        }
        batches[2], error = refused[bad]
        if bad == "counter":
            batches[0] = Batch(write={b"g0": b"longer than a counter"}, append=[(b"f/", b"0")], add={b"n": 1})
        told = meet(with_gate, engine._turns, batches)
        check(engine, told, [int, int, error, int, int])
        assert int.from_bytes(engine.read(0, [b"n"])[0].value, "big") == 4
        engine.close()


def test_tasks_that_come_meanwhile_go_together(url):
    async def main():
        engine = await connect_async(url)
        groups = []
        entered, go = asyncio.Event(), asyncio.Event()
        alone, together = engine._alone, engine._together

        async def slow(part, batch):
            groups.append(1)
            if not entered.is_set():
                entered.set()
                await go.wait()
            return await alone(part, batch)

        async def counted(part, batches):
            groups.append(len(batches))
            return await together(part, batches)

        engine._turns = AsyncTurns(slow, counted)
        first = asyncio.create_task(engine.commit(0, batch(b"a0")))
        await entered.wait()
        tasks = [asyncio.create_task(engine.commit(0, batch(b"a%d" % n, expect={b"a1": 0}))) for n in range(1, 5)]
        gone = asyncio.create_task(engine.commit(0, batch(b"gone")))
        while len(engine._turns._lines[0]) < 5:
            await asyncio.sleep(0)
        gone.cancel()
        go.set()
        told = await asyncio.gather(first, *tasks, return_exceptions=True)
        assert [type(one) for one in told] == [int, int, Conflict, Conflict, Conflict]
        assert groups == [1, 4]
        assert [row is not None for row in await engine.read(0, [b"a0", b"a1", b"a2", b"gone"])] == [1, 1, 0, 0]
        assert engine._turns._lines == {}
        await engine.close()

    asyncio.run(main())


def test_tasks_are_told_what_became_of_their_own():
    async def main(error):
        entered, go = asyncio.Event(), asyncio.Event()

        async def alone(part, batch):
            if not entered.is_set():
                entered.set()
                await go.wait()
            if b"bad" in batch.write:
                raise InvalidArgument("bad")
            return 1

        async def together(part, batches):
            raise error

        turns = AsyncTurns(alone, together)
        first = asyncio.create_task(turns.commit(0, batch(b"0")))
        await entered.wait()
        others = [asyncio.create_task(turns.commit(0, batch(name))) for name in (b"good", b"bad")]
        while len(turns._lines[0]) < 2:
            await asyncio.sleep(0)
        first.cancel()
        told = await asyncio.gather(first, *others, return_exceptions=True)
        assert turns._lines == {}
        return [type(one) for one in told[1:]]

    assert asyncio.run(main(Unavailable("gone"))) == [int, InvalidArgument]
    assert asyncio.run(main(OutcomeUnknown("cut"))) == [OutcomeUnknown, OutcomeUnknown]
