"""`memo`: computed once, for equal inputs, across threads, stores and processes."""

import asyncio
import os
import subprocess
import sys
import threading
from collections import Counter

import pytest

import stateroom
from kit.databases import SUSPENDING
from kit.faults import Fixed, over
from stateroom import codec
from stateroom.core.bridge import run_now
from stateroom.engines.memory import MemoryEngine
from stateroom.engines.wrap import Faulty
from stateroom.errors import InvalidArgument, OutcomeUnknown, Unavailable
from stateroom.families.results import claims
from stateroom.families.results.claims import CLAIM_SECONDS, Claim
from stateroom.families.results.memo import content_hash


def test_computed_once_for_equal_inputs(store, other):
    calls = []

    def compute():
        calls.append(1)
        return {"n": len(calls)}

    inputs = {"path": "a.txt", "options": {"x": 1, "y": [2, {"p": 1, "q": 2}]}}
    turned = {"options": {"y": [2, {"q": 2, "p": 1}], "x": 1}, "path": "a.txt"}
    assert store.results.memo("d", "f", inputs, compute) == {"n": 1}
    assert other.results.memo("d", "f", turned, compute) == {"n": 1}
    (id,) = store.results.ids("d")
    assert id == "f:" + content_hash(codec.default, inputs)
    found = store.results.find("d", id)
    assert (found.value, found.producer, found.inputs) == ({"n": 1}, "f", inputs)
    assert store.results.memo("d", "g", inputs, compute) == {"n": 2}
    assert store.results.memo("e", "f", inputs, compute) == {"n": 3}
    assert store.results.memo("d", "f", {"path": "b.txt"}, compute) == {"n": 4}


@pytest.mark.parametrize("value", [None, False, 0, b"v" * 300_000])
def test_any_value_counts_as_computed(store, value):
    assert store.results.memo("d", "f", 1, lambda: value) == value
    assert store.results.memo("d", "f", 1, lambda: pytest.fail("computed again")) == value


def test_a_function_that_takes_the_inputs_is_given_them(store):
    assert store.results.memo("d", "f", 20, lambda inputs: inputs + 1) == 21


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True), ([{"a": 1, "b": 2}], [{"b": 2, "a": 1}], True),
        ({1, 2, 3}, {3, 2, 1}, True), ((1, 2), [1, 2], False), ([1, 2], [2, 1], False), (1, 1.0, False),
        (1, True, False), ("1", 1, False), ([], {}, False), ([[1], 2], [[1, 2]], False), ({"a": None}, {}, False),
        ({"a": {"b": 1}}, {"a": ["b", 1]}, False), (None, False, False), (["ab"], ["a", "b"], False), (b"a", "a", False),
    ],
)  # fmt: skip
def test_content_hash(first, second, same):
    assert (content_hash(codec.default, first) == content_hash(codec.default, second)) is same


def test_an_error_comes_through_and_the_next_caller_computes(store, other):
    def breaks():
        raise ZeroDivisionError("once")

    with pytest.raises(ZeroDivisionError, match="once"):
        store.results.memo("d", "f", 1, breaks)
    assert store.results.ids("d") == ()
    assert other.results.memo("d", "f", 1, lambda: 2) == 2
    with pytest.raises(InvalidArgument):
        store.results.memo("d", "g", 1, object)  # its value cannot be stored
    assert other.results.memo("d", "g", 1, lambda: 3) == 3


@pytest.mark.parametrize(
    ("name", "inputs", "compute"), [("", 1, int), ("n" * 200, 1, int), (5, 1, int), ("f", object(), int), ("f", 1, 5)]
)
def test_arguments_that_are_not_allowed(store, name, inputs, compute):
    with pytest.raises(InvalidArgument):
        store.results.memo("d", name, inputs, compute)
    assert store.results.ids("d") == ()


def test_a_function_that_asks_for_itself_is_refused():
    store = over(MemoryEngine())
    with pytest.raises(InvalidArgument):
        store.results.memo("d", "f", 1, lambda: store.results.memo("d", "f", 1, lambda: 2))
    assert store.results.memo("d", "f", 1, lambda: store.results.memo("d", "f", 2, lambda: 3)) == 3


def test_of_many_threads_one_computes_and_the_others_wait(store, other):
    calls, results, started, go = Counter(), [], threading.Event(), threading.Event()

    def compute():
        calls["computed"] += 1
        started.set()
        assert go.wait(60)
        return "value"

    def ask(client):
        results.append(client.results.memo("d", "f", 1, compute))

    threads = [threading.Thread(target=ask, args=(client,)) for client in (store, other) * 3]
    for thread in threads:
        thread.start()
    assert started.wait(60)
    assert results == []
    go.set()
    for thread in threads:
        thread.join(60)
    assert results == ["value"] * 6
    assert calls == {"computed": 1}


def test_a_dead_holders_call_is_computed_again(store, database, clock):
    scope, run = database.inside(database.open())
    mine, _ = database.inside(store)
    id = "f:" + content_hash(codec.default, 1)
    claim = Claim(scope, "d", id)
    assert run(claim.take()) is None
    waiting = Claim(mine, "d", id)
    assert run(waiting.take()) == CLAIM_SECONDS
    clock.advance(CLAIM_SECONDS - 1)
    assert run(claim.renew()) is True  # alive: it has another ten seconds
    clock.advance(CLAIM_SECONDS - 1)
    assert run(waiting.take()) == 1
    clock.advance(1)
    assert store.results.memo("d", "f", 1, lambda: "computed again") == "computed again"
    assert run(claim.renew()) is False


def test_a_value_that_comes_too_late_gives_way_to_the_stored_one(store, other, clock, monkeypatch):
    monkeypatch.setattr(claims, "_renewed", lambda claim: False)  # whoever computes is paused as a whole

    def paused():
        clock.advance(CLAIM_SECONDS)
        again = []
        faster = threading.Thread(
            target=lambda: again.append(other.results.memo("d", "f", 1, lambda: "computed again"))
        )
        faster.start()
        faster.join(60)
        assert again == ["computed again"]
        return "late"

    assert store.results.memo("d", "f", 1, paused) == "computed again"
    assert store.results.get("d", store.results.memo_id("f", 1)) == "computed again"


def test_the_claim_is_renewed_while_it_is_computed(store, database, clock, monkeypatch):
    monkeypatch.setattr(claims, "CLAIM_SECONDS", 0.03)
    renewed = threading.Event()
    original = Claim.renew

    async def renew(self):
        kept = await original(self)
        renewed.set()
        return kept

    monkeypatch.setattr(Claim, "renew", renew)
    for _ in range(2):
        renewed.clear()
        assert store.results.memo("d", str(_), 1, lambda: renewed.wait(60)) is True


@SUSPENDING
def test_on_an_event_loop(database):
    async def work(store):
        calls, go = [], asyncio.Event()

        def computing(number):
            async def compute():
                calls.append(number)
                await go.wait()
                return len(calls)

            return compute

        asking = [asyncio.create_task(store.results.memo("d", "f", 1, computing(number))) for number in range(5)]
        while not calls:
            await asyncio.sleep(0)
        first = asking.pop(calls[0])
        first.cancel()  # whoever computes is called off: another takes over
        await asyncio.wait([first])
        assert first.cancelled()
        go.set()
        assert await asyncio.gather(*asking) == [2] * 4

        async def itself():
            return await store.results.memo("d", "g", 1, itself)

        with pytest.raises(InvalidArgument):
            await store.results.memo("d", "g", 1, itself)
        assert await store.results.memo("d", "h", 1, lambda: 5) == 5

    database.run(work)


def test_a_coroutine_function_needs_the_asyncio_face():
    async def compute():
        return 1

    store = over(MemoryEngine())
    with pytest.raises(InvalidArgument):
        store.results.memo("d", "f", 1, compute)
    assert store.results.memo("d", "f", 1, lambda: 2) == 2


def test_nothing_is_left_behind():
    engine = MemoryEngine()
    store = over(engine)
    before = {row.key for row in engine.scan(0, b"", b"\xff", limit=1000)}
    with pytest.raises(ZeroDivisionError):
        store.results.memo("d", "f", 1, lambda: 1 / 0)
    assert {row.key for row in engine.scan(0, b"", b"\xff", limit=1000)} == before
    store.results.memo("d", "f", 1, lambda: 1)
    assert not engine.scan(0, b"n\0VC", b"n\0VD", limit=10)


def test_a_failing_store_lets_the_callers_error_through():
    engine = MemoryEngine()
    faulty = Faulty(engine, 1)
    faulty.heal()

    def compute():
        faulty.counted = ("commit", "read")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        over(faulty).results.memo("d", "f", 1, compute)
    assert len(engine.scan(0, b"n\0VC", b"n\0VD", limit=10)) == 1  # it ends by itself

    class Later(Fixed):
        def now(self):
            from datetime import timedelta

            return super().now() + timedelta(seconds=CLAIM_SECONDS)

    assert over(engine, Later()).results.memo("d", "f", 1, lambda: 2) == 2


@pytest.mark.parametrize("lost", [False, True])
def test_failing_at_every_call(lost):
    number = 0
    while True:
        number += 1
        engine = MemoryEngine()
        faulty = Faulty(engine, number, once=True, lost=lost, calls=("read", "scan", "commit"))
        try:
            value = over(faulty).results.memo("d", "f", 1, lambda: "v")
        except (Unavailable, OutcomeUnknown):
            value = None
        store = over(engine)
        assert store.results.ids("d") == () or store.results.gather("d", store.results.ids("d")).popitem()[1] == "v"
        assert store.check() == []
        if faulty.count < number:
            assert value == "v"
            break
    assert number > 5


WORKER = """
import sys, stateroom
store = stateroom.open(sys.argv[1])
def compute():
    print("computing", flush=True)
    sys.stdin.readline()
    return int(sys.argv[2])
print("value", store.results.memo("d", "f", {"b": 1, "a": 2}, compute), flush=True)
"""


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_across_processes_and_the_death_of_one(alone):
    """The first process computes and the second waits; the first is killed, and the second computes."""
    path = alone.url
    stateroom.open(path).close()

    def start(number):
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, path, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip

    first, second = start(1), None
    try:
        assert first.stdout.readline() == "computing\n"
        second = start(2)
        store = stateroom.open(path)
        (claimed,) = store._engine.scan(None, b"default\0VC", b"default\0VD", limit=10)
        first.kill()
        first.wait()
        # The dead process's claim ends now instead of in ten seconds.
        ended = Claim(store._scope, "d", "f:" + content_hash(codec.default, {"a": 2, "b": 1}))
        assert claimed.key == ended.key
        ended._nonce = codec_owner(claimed)
        run_now(ended.give_up())
        assert second.stdout.readline() == "computing\n"
        assert store.results.ids("d") == ()
        second.stdin.write("\n")
        second.stdin.flush()
        assert second.stdout.readline() == "value 2\n"
        assert second.wait(60) == 0
        assert store.results.memo("d", "f", {"a": 2, "b": 1}, lambda: pytest.fail("again")) == 2
        assert store.check() == []
        store.close()
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.wait()
                process.stdin.close()
                process.stdout.close()


def codec_owner(row):
    import ormsgpack

    return ormsgpack.unpackb(codec.unseal(row.key, row.value))[0]
