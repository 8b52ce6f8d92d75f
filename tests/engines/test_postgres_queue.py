"""Commits that meet in one part share a transaction: none waits in vain, none suffers from another."""

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from engines.postgres_helpers import quiet
from stateroom.engine import Batch
from stateroom.engines.postgres import connect, connect_async, queue
from stateroom.engines.postgres.carriers import Asyncio, Blocking, finish
from stateroom.engines.postgres.queue import MOST, MOST_BYTES, CommitQueue
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

    async def go_alone(self, part, batch):
        if not self.first.is_set():
            self.first.set()
            assert self._open.wait(60)
        with self._lock:
            self.groups.append([batch])
        return await self.alone(part, batch) if self.alone else 1

    async def go_together(self, part, batches):
        with self._lock:
            self.groups.append(list(batches))
        return await self.together(part, batches) if self.together else list(range(2, 2 + len(batches)))

    def joined(self):
        with self._lock:
            self._others -= 1
            if self._others == 0:
                self._open.set()


class Gated(CommitQueue):
    """A queue that tells the gate who has joined a line."""

    def __init__(self, gate):
        super().__init__(Blocking(), gate.go_alone, gate.go_together)
        self._gate = gate

    def _join(self, part, batch, lead):
        joined = super()._join(part, batch, lead)
        if isinstance(joined, queue._Entry):
            self._gate.joined()
        return joined


def outcome(line, part, batch):
    try:
        return finish(line.commit(part, batch))
    except StoreError as error:
        return error


def meet(gate, line, batches, part=0):
    """The outcomes of batches of which all but the first come while that is under way."""
    with ThreadPoolExecutor(len(batches)) as threads:
        first = threads.submit(outcome, line, part, batches[0])
        assert gate.first.wait(60)
        others = [threads.submit(outcome, line, part, each) for each in batches[1:]]
        return [first.result(60), *[each.result(60) for each in others]]


def numbered(count):
    return [batch(b"%d" % number) for number in range(count)]


def failing_with(error):
    async def together(part, batches):
        raise error

    return together


def test_those_that_come_meanwhile_go_together():
    gate = Gate(others=5)
    line = Gated(gate)
    assert sorted(meet(gate, line, numbered(6))) == [1, 2, 3, 4, 5, 6]
    assert [len(group) for group in gate.groups] == [1, 5]
    assert line._lines == {}


def test_a_group_has_a_limit():
    gate = Gate(others=MOST + 3)
    meet(gate, Gated(gate), numbered(MOST + 4))
    assert [len(group) for group in gate.groups] == [1, MOST, 3]
    large = Batch(write={b"large": bytes(MOST_BYTES // 2 + 1)})
    gate = Gate(others=3)
    meet(gate, Gated(gate), [batch(b"first"), large, large, large])
    assert sorted(map(len, gate.groups)) == [1, 1, 2]


@pytest.mark.parametrize("error", [Unavailable("gone"), InvalidArgument("wrong"), Closed("closed")])
def test_where_nothing_was_done_each_goes_alone(error):
    gate = Gate(others=3, together=failing_with(error))
    assert meet(gate, Gated(gate), numbered(4)) == [1, 1, 1, 1]
    assert [len(group) for group in gate.groups] == [1, 3, 1, 1, 1]


def test_an_unknown_outcome_is_told_to_each_and_nobody_goes_again():
    gate = Gate(others=3, together=failing_with(OutcomeUnknown("cut")))
    first, *others = meet(gate, Gated(gate), numbered(4))
    assert first == 1
    assert [type(each) for each in others] == [OutcomeUnknown] * 3
    assert len(set(map(id, others))) == 3, "each has an error of its own"
    assert [len(group) for group in gate.groups] == [1, 3]


def in_threads(gate, line, count):
    """Return what each of some threads that commit is told; the first holds the others back."""
    told = []

    def run(each):
        try:
            told.append(finish(line.commit(0, each)))
        except (StoreError, KeyboardInterrupt) as error:
            told.append(type(error))

    threads = []
    for each in numbered(count):
        threads.append(threading.Thread(target=run, args=(each,)))
        threads[-1].start()
        assert gate.first.wait(60)
    for thread in threads:
        thread.join(60)
    return sorted(map(str, told))


def test_an_interrupted_leader_leaves_nobody_waiting():
    gate = Gate(others=2, together=failing_with(KeyboardInterrupt()))
    line = Gated(gate)
    assert in_threads(gate, line, 3) == sorted(map(str, [1, KeyboardInterrupt, OutcomeUnknown]))
    assert finish(line.commit(0, batch(b"3"))) == 1


class Vanishing(Gated):
    """Whoever is to lead is interrupted before it knows, or in the middle of what it does for others."""

    def __init__(self, gate, where):
        super().__init__(gate)
        self._where, self._left = where, 1

    def _interrupt(self, where):
        if where == self._where and self._left:
            self._left = 0
            raise KeyboardInterrupt

    async def _lead(self, part, entry, lead):
        self._interrupt("appointed")
        return await super()._lead(part, entry, lead)

    def _gather(self, part, group):
        super()._gather(part, group)
        self._interrupt("gathered")

    def _pass_on(self, part, lead):
        self._interrupt("passing on")
        return super()._pass_on(part, lead)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("appointed", [1, KeyboardInterrupt, 1]),  # the line goes on: nothing had begun
        ("gathered", [1, KeyboardInterrupt, 1]),  # nor here
        ("passing on", [KeyboardInterrupt, 2, 3]),
    ],
)
def test_a_line_whose_leader_vanished_is_led_on(monkeypatch, where, told):
    monkeypatch.setattr(queue, "LOOK_SECONDS", 0.01)
    gate = Gate(others=2)
    line = Vanishing(gate, where)
    assert in_threads(gate, line, 3) == sorted(map(str, told))
    assert line._lines == {}
    assert finish(line.commit(0, batch(b"3"))) == 1


def test_a_line_that_does_not_move_is_led_by_somebody_else(monkeypatch):
    monkeypatch.setattr(queue, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(queue, "PATIENCE", 0.0)
    gate = Gate(others=-1)
    line = Gated(gate)
    stuck = line._join(0, batch(b"never"), queue._Lead(None))
    gate.first.set()
    assert finish(line.commit(0, batch(b"0"))) == 1
    assert line._lines == {}
    del stuck


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
        with_gate.alone, with_gate.together = engine._driver.alone, engine._driver.together
        engine._driver.queue = Gated(with_gate)
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
        told = meet(with_gate, engine._driver.queue, batches)
        check(engine, told, [int, int, error, int, int])
        assert int.from_bytes(engine.read(0, [b"n"])[0].value, "big") == 4
        engine.close()


async def held_back(line, batches, *, leave=()):
    """Tasks that commit, of which all but the first come while that is under way."""
    entered, go = asyncio.Event(), asyncio.Event()
    alone = line._alone

    async def hold(part, batch):
        if not entered.is_set():
            entered.set()
            await go.wait()
        return await alone(part, batch)

    line._alone = hold
    tasks = [asyncio.create_task(line.commit(0, batches[0]))]
    await entered.wait()
    tasks += [asyncio.create_task(line.commit(0, each)) for each in batches[1:]]
    while len(line._lines[0].waiting) < len(batches) - 1:
        await asyncio.sleep(0)
    for number in leave:
        tasks[number].cancel()
    go.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_tasks_that_come_meanwhile_go_together(url):
    async def main():
        engine = await connect_async(url)
        quiet(engine)
        groups, together = [], engine._driver.queue._together

        async def counted(part, batches):
            groups.append(len(batches))
            return await together(part, batches)

        engine._driver.queue._together = counted
        batches = [batch(b"a0"), *[batch(b"a%d" % n, expect={b"a1": 0}) for n in range(1, 5)], batch(b"gone")]
        told = await held_back(engine._driver.queue, batches, leave=[5])
        assert [type(each) for each in told] == [int, int, Conflict, Conflict, Conflict, asyncio.CancelledError]
        assert groups == [4]
        rows = await engine.read(0, [b"a0", b"a1", b"a2", b"gone"])
        assert [row is not None for row in rows] == [True, True, False, False]
        assert engine._driver.queue._lines == {}
        await engine.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Unavailable("gone"), [int, InvalidArgument]),
        (OutcomeUnknown("cut"), [OutcomeUnknown, OutcomeUnknown]),
    ],
)
def test_tasks_are_told_what_became_of_their_own(error, told):
    async def alone(part, batch):
        if b"bad" in batch.write:
            raise InvalidArgument("bad")
        return 1

    async def main():
        line = CommitQueue(Asyncio(), alone, failing_with(error))
        outcomes = await held_back(line, [batch(name) for name in (b"0", b"good", b"bad")], leave=[0])
        assert line._lines == {}
        return [type(each) for each in outcomes[1:]]

    assert asyncio.run(main()) == told


def test_a_task_that_leads_and_is_cancelled_changes_nothing_for_those_behind_it():
    leading, go = threading.Event(), threading.Event()

    async def alone(part, batch):
        return 1

    async def together(part, batches):
        leading.set()
        while not go.is_set():
            await asyncio.sleep(0)
        return list(range(2, 2 + len(batches)))

    async def main():
        line = CommitQueue(Asyncio(), alone, together)
        meeting = asyncio.create_task(held_back(line, numbered(4)))
        while not leading.is_set():
            await asyncio.sleep(0)
        leader = next(task for task in asyncio.all_tasks() if _leads(task))
        leader.cancel()
        await asyncio.sleep(0)
        go.set()
        return [type(each) for each in await meeting]

    assert sorted(map(str, asyncio.run(main()))) == sorted(map(str, [int, int, int, asyncio.CancelledError]))


def _leads(task):
    """Return whether a task is inside `_lead`."""
    inner = task.get_coro()
    while inner is not None:
        if getattr(inner, "__name__", "") == "_lead":
            return True
        inner = getattr(inner, "cr_await", None)
    return False


def test_an_event_loop_that_ends_leaves_the_line_to_others():
    """A thread's loop is closed while its task is to lead."""
    entered, go = threading.Event(), threading.Event()

    async def alone(part, batch):
        if not entered.is_set():
            entered.set()
            while not go.is_set():
                await asyncio.sleep(0)
        return 1

    async def together(part, batches):
        return list(range(2, 2 + len(batches)))

    line = CommitQueue(Asyncio(), alone, together)

    async def first():
        return await line.commit(0, batch(b"first"))

    async def second():
        task = asyncio.ensure_future(line.commit(0, batch(b"second")))
        while len(line._lines[0].waiting) < 1:
            await asyncio.sleep(0)
        return task

    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(asyncio.run, first())
        assert entered.wait(60)
        loop = asyncio.new_event_loop()
        task = loop.run_until_complete(second())
        loop.close()  # with the task still waiting
        third = threads.submit(asyncio.run, line.commit(0, batch(b"third")))
        while len(line._lines[0].waiting) < 2:
            pass
        go.set()
        assert running.result(60) == 1
        assert third.result(60) == 1
    task._log_destroy_pending = False
    del task
    gc.collect()
