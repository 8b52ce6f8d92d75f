"""Whoever is interrupted in a commit is told, nobody else is, and nothing is left behind: at every line of its way.

The engine lives on from one interrupt to the next, so that what one leaves behind is met by all that follow.
"""

import secrets

import pytest

from engines.sqlite_helpers import Outcomes
from kit.lines import At, Interrupted, in_thread, raising
from stateroom.engine import Batch, read_counter
from stateroom.engines import memory, rocksdb, sqlite

INTERRUPTS = [KeyboardInterrupt, SystemExit, Interrupted]
STEP = 3
OTHERS = 3
"""Batches of others that the interrupted one finds in the queue."""


@pytest.fixture(params=["memory", "sqlite", "rocksdb"])
def engine(request, tmp_path):
    if request.param == "rocksdb":
        pytest.importorskip("rocksdict", reason="rocksdict is not installed", exc_type=ImportError)
        engine = rocksdb.connect(f"rocksdb:///{tmp_path}/store")
    else:
        engine = memory.connect("memory:") if request.param == "memory" else sqlite.connect(str(tmp_path / "a.db"))
    yield engine
    engine.close()


class Ledger:
    """What was committed, by what was acknowledged, and by what the engine has."""

    def __init__(self, engine, name=b"", *, late=False):
        """`late`: what was sent to a server before an interrupt may be made after it."""
        self.engine, self.late = engine, late
        self.name = name
        self.acknowledged = self.unknown = self.others = 0
        self._before = engine.read(0, [b""])[0].version

    def mine(self):
        name = self.name
        batch = Batch(write={b"a": b"1", b"b": None}, add={name + b"mine": 1}, append=[(name + b"log", b"m")])
        return self.engine.commit(0, batch)

    def check(self, where):
        """Another thread can read and commit, and every batch is there once, whole, in order, if it was acknowledged."""
        name = self.name
        in_thread(lambda: self.engine.commit(0, Batch(add={name + b"after": 1}, write={b"b": b"2"})))
        rows = in_thread(lambda: self.engine.read(0, [b"", name + b"mine", name + b"others", name + b"after"]))
        version, *counters = [0 if row is None else row.version for row in rows[:1]] + [
            read_counter(row and row.value) for row in rows[1:]
        ]
        mine, others, after = counters
        assert self.acknowledged <= mine <= self.acknowledged + self.unknown, where
        if not self.late:
            self.acknowledged, self.unknown = mine, 0
        assert others == self.others, where
        assert version == self._before + mine + others + after, where
        log = in_thread(lambda: self.engine.scan(0, name + b"log", name + b"log\xff", limit=10**6))
        assert len(log) == mine + others or (self.late and mine <= len(log) <= self.acknowledged + self.unknown), where


def interrupted(ledger, number, kind, *, opcodes=False):
    """Interrupt the number-th step of a commit; gives where, or None when it has fewer."""
    at = At(number, raising(kind), opcodes=opcodes)
    try:
        at.run(ledger.mine)
    except kind:
        assert at.where is not None
        ledger.unknown += 1
    else:
        assert at.where is None, f"the interrupt at {at.where} vanished"
        ledger.acknowledged += 1
    return at.where


def beside_others(engine, monkeypatch, act):
    """Run `act` while batches of others are in the queue, and give their outcomes once another thread has committed."""
    outcomes = Outcomes(OTHERS)
    with monkeypatch.context() as patch:
        # The writer's own thread sleeps, so that this thread finds the others in the queue and leads.
        patch.setattr(engine._writer, "_wake", lambda: None)
        for number in range(OTHERS):
            batch = Batch(add={b"others": 1}, append=[(b"log", b"%d" % number)], write={b"last": b"%d" % number})
            engine.submit(0, batch, outcomes(number))
        where = act()
    in_thread(lambda: engine.commit(0, Batch(add={b"after": 1})))
    given = outcomes.all()
    assert all(isinstance(outcome, int) for outcome in given), (where, given)
    assert given == sorted(given), f"the order of the others changed at {where}"
    return where


@pytest.mark.parametrize("kind", INTERRUPTS, ids=lambda kind: kind.__name__)
def test_an_interrupt_at_any_line_is_told_to_its_caller_alone(engine, kind):
    ledger = Ledger(engine)
    number = 1
    while where := interrupted(ledger, number, kind):
        ledger.check(where)
        number += 1
    assert number > 20


@pytest.mark.parametrize("kind", INTERRUPTS, ids=lambda kind: kind.__name__)
def test_at_any_line_the_others_of_a_group_keep_their_place_and_hear_the_truth(tmp_path, monkeypatch, kind):
    engine = sqlite.connect(str(tmp_path / "a.db"))
    ledger = Ledger(engine)
    number, where = 1, ""
    while where is not None:
        where = beside_others(engine, monkeypatch, lambda number=number: interrupted(ledger, number, kind))
        ledger.others += OTHERS
        ledger.check(where)
        number += 1
    assert number > 50
    engine.close()


@pytest.mark.torture
@pytest.mark.parametrize("kind", [KeyboardInterrupt, Interrupted], ids=lambda kind: kind.__name__)
def test_at_any_instruction(engine, kind):
    ledger = Ledger(engine)
    number = 1
    while where := interrupted(ledger, number, kind, opcodes=True):
        ledger.check(where)
        number += 1
    assert number > 100


@pytest.fixture(scope="module")
def server():
    """A PostgreSQL engine with a schema of its own."""
    from stateroom.engines.postgres import connect
    from stateroom.testing.postgres import fresh_schema

    with fresh_schema("18") as url:
        engine = connect(url, parts=1)
        yield engine
        engine.close()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Interrupted], ids=lambda kind: kind.__name__)
def test_at_any_line_of_a_commit_to_a_server(server, kind):
    """What is held on a server is a connection, and a place in the line of its part: others find both free."""
    ledger = Ledger(server, kind.__name__.encode(), late=True)
    # Every third line, from another one at each run, so that a week of runs has seen all of them.
    number, step = 1 + secrets.randbelow(STEP), STEP
    while where := interrupted(ledger, number, kind):
        ledger.check(where)
        number += step
    assert number > 20


@pytest.mark.torture
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", INTERRUPTS, ids=lambda kind: kind.__name__)
def test_at_every_line_of_a_commit_to_a_server(server, kind):
    ledger = Ledger(server, b"every-" + kind.__name__.encode(), late=True)
    number = 1
    while where := interrupted(ledger, number, kind):
        ledger.check(where)
        number += 1


def test_a_signals_handler_may_commit_at_any_line(engine):
    ledger = Ledger(engine)
    number, at = 1, None
    while at is None or at.where is not None:
        nested = []
        at = At(number, lambda nested=nested: nested.append(ledger.mine()))
        version = at.run(ledger.mine)
        if nested:
            assert nested[0] != version, at.where
        ledger.acknowledged += 1 + len(nested)
        ledger.check(at.where)
        number += 1
    assert number > 20


def test_a_signals_handler_may_commit_at_any_line_of_a_group(tmp_path, monkeypatch):
    engine = sqlite.connect(str(tmp_path / "a.db"))
    ledger = Ledger(engine)
    number, where = 1, ""
    while where is not None:
        at = At(number, ledger.mine)

        def act(at=at):
            at.run(ledger.mine)
            return at.where

        where = beside_others(engine, monkeypatch, act)
        ledger.acknowledged += 1 if where is None else 2
        ledger.others += OTHERS
        ledger.check(where)
        number += 1
    assert number > 50
    engine.close()
