"""PostgreSQL: an interrupt at any line of a commit is told to its caller alone, and leaves neither a connection counted
that nobody has, nor a line of commits that nobody leads."""

import contextlib
import threading

import psycopg
import pytest

from interrupts.test_commits import INTERRUPTS, Ledger, interrupted
from kit.lines import At, Interrupted, in_thread
from stateroom.engine import Batch
from stateroom.engines.postgres import connect
from stateroom.engines.postgres import queue as queue_file
from stateroom.engines.postgres.queue import _Lead
from stateroom.errors import Closed, OutcomeUnknown
from stateroom.testing.postgres import fresh_schema

MARK = "interrupted"
CONNECTIONS = 2


@pytest.fixture
def url():
    with fresh_schema("18") as url:
        yield url


@pytest.fixture
def engine(url):
    engine = connect(f"{url}&connections={CONNECTIONS}&application_name={MARK}", parts=1)
    engine._driver.notifier.committed = lambda part, version: None  # a thread of its own: it takes connections, too
    yield engine
    engine.close()


@pytest.fixture
def ledger(engine, url):
    with psycopg.connect(url.partition("?")[0], autocommit=True) as server:
        yield Sessions(engine, server)


class Sessions(Ledger):
    """A ledger that waits until the server has ended what an interrupted commit left to it."""

    def __init__(self, engine, server):
        super().__init__(engine)
        self._server = server

    def check(self, where):
        pool = self.engine._driver.pool
        ended = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        while self._server.execute(ended, [MARK]).fetchone()[0] > len(pool._alive):
            pass
        super().check(where)
        assert len(pool._alive) == len(pool._idle) <= CONNECTIONS, where
        assert self.engine._driver.queue._lines == {}, where


@pytest.mark.parametrize("kind", INTERRUPTS, ids=lambda kind: kind.__name__)
def test_an_interrupt_at_any_line_is_told_to_its_caller_alone(engine, ledger, kind):
    number = 1
    while where := interrupted(ledger, number, kind):
        ledger.check(where)
        number += 1
    assert number > 100


def test_an_interrupt_that_is_kept_keeps_no_line(engine):
    """As an interactive session does, which keeps the last traceback, and with it what every frame of it had."""
    queue, kept, number = engine._driver.queue, [], 1
    while True:
        at = At(number, lambda: _raise(KeyboardInterrupt), files=(queue_file.__file__,))
        try:
            at.run(lambda: engine.commit(0, Batch(add={b"n": 1})))
        except KeyboardInterrupt as error:
            kept.append(error)
        if at.where is None:
            break
        assert queue._lines == {}, at.where
        number += 1
    assert len(kept) > 10


class Behind:
    """Two threads whose commits wait behind one of the main thread, which is to lead them."""

    def __init__(self, engine, ledger):
        self.engine, self.ledger = engine, ledger
        self.told = []

    def commit(self):
        try:
            batch = Batch(add={b"others": 1}, append=[(b"log", b"o")])
            self.told.append(self.engine.commit(0, batch))
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.told.append(error)

    def run(self, number, kind):
        """Give where the main thread was interrupted, and whether others had come behind it by then."""
        queue = self.engine._driver.queue
        holder = queue._join(0, Batch(), _Lead(None))  # as another thread whose commit is under way
        threads = [threading.Thread(target=self.commit) for _ in range(2)]
        at, over = At(number, lambda: _raise(kind)), threading.Event()

        def go_on():
            waiting = queue._lines[0].waiting
            while not waiting and not over.is_set():  # the main thread waits first
                pass
            for thread in threads if waiting else ():
                thread.start()
            while not over.is_set() and len(waiting) < 3:
                pass
            queue._pass_on(0, holder)

        starter = threading.Thread(target=go_on)
        starter.start()
        try:
            at.run(self.ledger.mine)
        except kind:
            self.ledger.unknown += 1
        else:
            self.ledger.acknowledged += 1
        over.set()
        starter.join()
        for thread in threads:
            if thread.ident is not None:
                thread.join(30)
        return at.where


def _raise(kind):
    raise kind("in the middle of it")


def test_an_interrupted_leader_is_told_and_those_behind_it_are_not(engine, ledger):
    number, where, led = 1, "", 0
    while where is not None:
        behind = Behind(engine, ledger)
        where = behind.run(number, KeyboardInterrupt)
        assert [type(told) for told in behind.told] in ([], [int, int]), (where, behind.told)
        ledger.others += len(behind.told)
        led += bool(behind.told)
        ledger.check(where)
        number += 1
    assert led > 20


def test_a_signals_handler_may_commit_at_any_line(engine, ledger):
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


def test_what_a_handler_raises_in_the_driver_is_no_error_of_the_connection(url, monkeypatch):
    def connect_amid_a_signal(conninfo, seconds):
        try:
            raise Interrupted("in the middle of it")
        except Exception:  # noqa: BLE001 - as the driver does
            raise psycopg.ProgrammingError("bad value for connect_timeout: '10'") from None

    monkeypatch.setattr("stateroom.engines.postgres.carriers._within", connect_amid_a_signal)
    with pytest.raises(Interrupted):
        connect(url)


def test_a_signals_handler_may_close_the_engine_at_any_line(url):
    number, at = 1, None
    while at is None or at.where is not None:
        engine = connect(url, parts=1)
        at = At(number, engine.close)
        with contextlib.suppress(Closed, OutcomeUnknown):
            at.run(lambda engine=engine: engine.commit(0, Batch(add={b"n": 1})))
        in_thread(engine.close)
        number += 7  # each opens an engine, which takes its time
