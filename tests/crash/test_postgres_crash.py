"""The server is restarted, killed and failed over under load: what was acknowledged is there, and nothing by halves."""

import threading

import pytest

from stateroom.engine import Batch, read_counter
from stateroom.engines.postgres import connect
from stateroom.errors import OutcomeUnknown, Unavailable
from stateroom.testing.postgres import Server

DURABLE = {"fsync": "on", "full_page_writes": "on"}
WRITERS = 4


class Load:
    """Writers that commit numbered batches to a part each, and remember what they were told."""

    def __init__(self, url):
        self.engine = connect(url)
        self.acknowledged = [[] for _ in range(WRITERS)]
        self.unknown = [set() for _ in range(WRITERS)]
        self.refused = 0
        self.errors = []
        self._stop = threading.Event()
        self._progress = threading.Condition()
        self._threads = [threading.Thread(target=self._write, args=(number,), daemon=True) for number in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def _write(self, part):
        number = 0
        try:
            while not self._stop.is_set():
                try:
                    self.engine.commit(part, batch(number))
                except Unavailable:
                    self.refused += 1
                    continue  # nothing was changed: the same again
                except OutcomeUnknown:
                    self.unknown[part].add(number)
                else:
                    self.acknowledged[part].append(number)
                    with self._progress:
                        self._progress.notify_all()
                number += 1
        except BaseException as error:
            self.errors.append(error)
            raise

    def more(self, count=20):
        """Return when every writer has had so many more acknowledged."""
        goals = [len(each) + count for each in self.acknowledged]
        with self._progress:
            arrived = self._progress.wait_for(
                lambda: self.errors or all(len(a) >= g for a, g in zip(self.acknowledged, goals, strict=True)), 60
            )
        assert arrived, "the writers do not get on"
        assert not self.errors

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        self.engine.close()
        assert not self.errors

    def check(self, url):
        """Compare the database with what the writers know."""
        engine = connect(url)
        for part in range(WRITERS):
            rows = {row.key: row.value for row in engine.scan(part, b"", b"\xff", limit=1_000_000)}
            there = {int(key[2:]) for key in rows if key.startswith(b"a/")}
            assert there == {int(key[2:]) for key in rows if key.startswith(b"b/")}, "half a batch"
            assert sorted(int(value) for key, value in rows.items() if key.startswith(b"f/")) == sorted(there)
            assert read_counter(rows[b"n"]) == len(there) == engine.read(part, [b""])[0].version
            told = set(self.acknowledged[part])
            assert told <= there, f"acknowledged and lost: {sorted(told - there)}"
            assert there <= told | self.unknown[part], "written, and said not to be"
        engine.close()


def batch(number):
    name = b"%08d" % number
    return Batch(
        expect={b"a/" + name: 0},
        write={b"a/" + name: b"v" * 200, b"b/" + name: b""},
        add={b"n": 1},
        append=[(b"f/", name)],
    )


@pytest.fixture
def server():
    server = Server(settings=DURABLE)
    try:
        yield server.init().start()
    finally:
        server.remove()


def test_a_restart_in_mid_load_loses_nothing(server):
    load = Load(server.url())
    load.more()
    for _ in range(2):
        server.restart()
        load.more()
    load.stop()
    assert load.refused, "the writers never noticed"
    load.check(server.url())


def test_a_killed_server_has_kept_what_it_acknowledged(server):
    load = Load(server.url())
    for _ in range(3):
        load.more()
        server.kill9()
        server.start()
    load.more()
    load.stop()
    assert load.refused or any(load.unknown)
    load.check(server.url())


def test_a_synchronous_standby_takes_over_with_everything_acknowledged(server):
    standby = server.standby()
    try:
        server.make_synchronous()
        url = f"postgresql://postgres@127.0.0.1:{server.port},127.0.0.1:{standby.port}/postgres?target_session_attrs=read-write"
        load = Load(url)
        load.more()
        server.kill9()
        standby.promote()
        load.more()
        load.stop()
        load.check(standby.url())
    finally:
        standby.remove()
