"""The connection is cut at every point of a commit, in both directions: an error never lies about what happened."""

import asyncio
from contextlib import contextmanager

import psycopg
import pytest

from engines.postgres_helpers import quiet, together
from engines.proxy import CLIENT, SERVER, Proxy
from stateroom.engine import Batch, Range, read_counter
from stateroom.engines.postgres import connect, connect_async
from stateroom.errors import Conflict, OutcomeUnknown, StoreError, Unavailable
from stateroom.testing.postgres import fresh_schema

LAST = b"\xff" * 8


@contextmanager
def proxied():
    """(url through a proxy, the proxy, the url past it)."""
    with fresh_schema("18") as url:
        known = psycopg.conninfo.conninfo_to_dict(url.partition("?")[0])
        port = str(known["port"])
        proxy = Proxy((known["host"], int(port)))
        try:
            yield f"{url.replace(f':{port}/', f':{proxy.port}/')}&application_name=cut&sslmode=disable", proxy, url
        finally:
            proxy.close()


def batch(number):
    """Every kind of change, so that a half of it would show."""
    name = b"%04d" % number
    return Batch(
        expect={b"r/" + name: 0},
        write={b"r/" + name: b"v", b"i/" + name: b"", b"gone": None},
        add={b"n": 1},
        append=[(b"f/", name)],
    )


def happened(direct, number):
    """Whether a batch is there; fails if half of it is, or if the counters do not agree."""
    name = b"%04d" % number
    rows = direct.scan(0, b"", LAST, limit=10_000)
    entries = [row.value for row in rows if row.key.startswith(b"f/")]
    there = {
        b"r": b"r/" + name in {r.key for r in rows},
        b"i": b"i/" + name in {r.key for r in rows},
        b"f": name in entries,
    }
    assert len(set(there.values())) == 1, f"half of batch {number} is there: {there}"
    assert read_counter(next((row.value for row in rows if row.key == b"n"), None)) == len(entries)
    assert direct.read(0, [b""])[0].version == len(entries), "a version without a batch, or a batch without a version"
    return there[b"r"]


def backends_gone(url):
    """Return when the server has ended every session that was cut: what they were doing has happened or never will."""
    with psycopg.connect(url.partition("?")[0], autocommit=True) as connection:
        while connection.execute("SELECT FROM pg_stat_activity WHERE application_name = 'cut'").fetchall():
            pass


def points(proxy, side):
    """Every end of a message, one byte before it, and the beginning."""
    ends = proxy.boundaries(side)
    assert len(ends) > 4, "nothing was recorded"
    return sorted({0, 1} | {end + off for end in ends for off in (-1, 0)})


def truth(told, url, direct, number):
    """Check what a commit that was cut has told (a version, or an error) and say what came of it."""
    if isinstance(told, int):
        assert happened(direct, number), "said that it was done"
        return "done"
    assert isinstance(told, Unavailable | OutcomeUnknown), told
    backends_gone(url)
    there = happened(direct, number)
    if isinstance(told, Unavailable):
        assert not there, "said that nothing was changed"
        return "unavailable"
    return "unknown, done" if there else "unknown, not done"


def attempt(commit):
    try:
        return commit()
    except StoreError as error:
        return error


def test_a_cut_anywhere_in_a_commit_leaves_all_or_nothing_and_no_lie():
    with proxied() as (url, proxy, past):
        engine, direct = connect(url), connect(past)
        quiet(engine)
        engine.commit(0, batch(0))
        proxy.record()
        engine.commit(0, batch(1))
        sides = {CLIENT: points(proxy, CLIENT), SERVER: points(proxy, SERVER)}
        outcomes, number = set(), 2
        for side, cuts in sides.items():
            for after in cuts:
                proxy.arm(side, after)
                told = attempt(lambda: engine.commit(0, batch(number)))  # noqa: B023
                outcomes.add((side, truth(told, past, direct, number)))
                assert proxy.cut_happened.wait(20)
                number += 1
                engine.commit(0, batch(number))  # it goes on with a fresh connection
                number += 1
        engine.close()
        direct.close()
    assert (CLIENT, "unknown, not done") in outcomes
    assert (SERVER, "unknown, done") in outcomes
    assert (CLIENT, "done") in outcomes, "a connection found dead before anything was sent is replaced"


def test_a_cut_anywhere_in_a_commit_of_several_leaves_all_of_them_or_none():
    conflict = Batch(expect={b"gone": 5}, write={b"never": b""}, append=[(b"f/", b"never")], add={b"n": 1})
    with proxied() as (url, proxy, past):
        engine, direct = connect(url), connect(past)
        quiet(engine)
        together(engine, 0, [batch(0), conflict, batch(1)])
        proxy.record()
        together(engine, 0, [batch(2), conflict, batch(3)])
        sides = {side: proxy.boundaries(side) for side in (CLIENT, SERVER)}
        outcomes, number = set(), 4
        for side, cuts in sides.items():
            for after in cuts:
                proxy.arm(side, after)
                told = attempt(lambda: together(engine, 0, [batch(number), conflict, batch(number + 1)]))  # noqa: B023
                first, second, third = told if isinstance(told, list) else [told] * 3
                outcome = truth(first, past, direct, number)
                assert truth(third, past, direct, number + 1) == outcome
                assert isinstance(second, Conflict) == isinstance(told, list)
                outcomes.add(outcome)
                assert proxy.cut_happened.wait(20)
                engine.commit(0, batch(number + 2))
                number += 3
        assert direct.read(0, [b"never"]) == [None]
        engine.close()
        direct.close()
    assert outcomes >= {"done", "unknown, done", "unknown, not done"}


def test_a_cut_anywhere_in_an_asyncio_commit_tells_no_lie_either():
    async def run(url, proxy, past, direct):
        engine = await connect_async(url)
        quiet(engine)
        await engine.commit(0, batch(0))
        proxy.record()
        await engine.commit(0, batch(1))
        sides = {side: proxy.boundaries(side) for side in (CLIENT, SERVER)}
        outcomes, number = set(), 2
        for side, cuts in sides.items():
            for after in cuts:
                proxy.arm(side, after)
                (told,) = await asyncio.gather(engine.commit(0, batch(number)), return_exceptions=True)
                outcomes.add(truth(told, past, direct, number))
                assert proxy.cut_happened.wait(20)
                await engine.commit(0, batch(number + 1))  # it goes on with a fresh connection
                number += 2
        await engine.close()
        return outcomes

    with proxied() as (url, proxy, past):
        direct = connect(past)
        assert asyncio.run(run(url, proxy, past, direct)) >= {"unknown, done", "unknown, not done"}
        direct.close()


def test_a_conflict_that_was_answered_is_told_even_when_the_connection_is_lost_after_it():
    with proxied() as (url, proxy, _):
        engine = connect(url)
        quiet(engine)
        engine.commit(0, Batch(write={b"a": b"1"}))
        proxy.record()
        with pytest.raises(Conflict):
            engine.commit(0, Batch(expect={b"a": 0}, write={b"b": b"2"}))
        proxy.arm(SERVER, proxy.boundaries(SERVER)[-2])  # all but the word that the server is ready again
        with pytest.raises(Conflict):
            engine.commit(0, Batch(expect={b"a": 0}, write={b"b": b"2"}))
        engine.close()


def test_a_read_is_repeated_once_on_a_fresh_connection_and_then_given_up():
    with proxied() as (url, proxy, _):
        engine = connect(url)
        quiet(engine)
        engine.commit(0, Batch(write={b"a": b"1"}))
        engine.read(0, [b"a"])
        proxy.record()
        engine.read(0, [b"a"])
        sides = {side: proxy.boundaries(side) for side in (CLIENT, SERVER)}
        for side, cuts in sides.items():
            for after in cuts:
                proxy.arm(side, after)
                assert engine.read(0, [b"a"])[0].value == b"1"
                assert proxy.cut_happened.wait(20)
                engine.read(0, [b"a"])  # on a fresh connection, so that the next cut meets a read and no connecting
        engine.close()


def test_what_each_call_costs_in_round_trips():
    with proxied() as (url, proxy, past):
        connect(past).close()
        engine = connect(url)
        quiet(engine)
        engine.commit(0, batch(0))  # prepares; costs the same
        counts = {}

        def cost(name, call):
            before = proxy.trips
            call()
            counts[name] = proxy.trips - before

        cost("commit", lambda: engine.commit(0, batch(1)))
        cost("commit of several", lambda: together(engine, 0, [batch(n) for n in range(2, 20)]))
        cost("read of several parts", lambda: engine.read_many([(part, [b"", b"n"]) for part in range(16)]))
        cost("scan of several parts", lambda: engine.scan_many([Range(part, b"", LAST, 9) for part in range(16)]))
        cost("large commit", lambda: engine.commit(0, Batch(write={b"k%d" % n: b"x" * 500 for n in range(5000)})))
        cost("read", lambda: engine.read(0, [b"", b"n", b"gone"]))
        cost("read of nothing", lambda: engine.read(0, []))
        cost("scan", lambda: engine.scan(0, b"", LAST, limit=100))
        cost("scan of all parts", lambda: engine.scan(None, b"", LAST, limit=10))
        cost("long scan of all parts", lambda: engine.scan(None, b"", LAST, limit=1000))
        cost("wait that is over", lambda: engine.wait(0, 0, 10))
        engine.close()
    assert counts == {
        "commit": 1,
        "commit of several": 1,
        "read of several parts": 1,
        "scan of several parts": 1,
        "large commit": 1,
        "read": 1,
        "read of nothing": 0,
        "scan": 1,
        "scan of all parts": 1,
        # Everything is in one part: 125 rows at first, then 250, 500 and 1,000.
        "long scan of all parts": 4,
        "wait that is over": 1,
    }
