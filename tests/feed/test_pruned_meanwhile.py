"""What is replaced, trimmed or removed while it is read: what was there, or nothing; never damaged.

What the feed promises then is in `stateroom.testing.feed_races`.
"""

from datetime import timedelta

import pytest

from kit.aging import blocking
from stateroom import Event, Execution, Instance, Policy
from stateroom.engines.wrap import Slow
from stateroom.errors import Compacted, Conflict, NotFound
from stateroom.testing.harness import PATIENCE


def large(number, id=""):
    return bytes([number]) * 300_000 + id.encode()


class Gaps:
    """Clients where another one does something just before a certain read."""

    def __init__(self, database):
        self._database = database
        self._raw = database.raw()
        self.plain = blocking(database)

    def client(self, number, act):
        """A client, and a list whose length is how often it has read."""
        reads = []

        def before(name, part):
            if name in ("read", "scan"):
                reads.append(name)
                if len(reads) == number:
                    act(self.plain)

        return self._database.over(Slow(self._raw, before)), reads

    def each(self, act, ask, *, prune=True):
        """`ask(client, id)` with `act(plain, id)` before each of its reads; what it gives, or how it is refused.

        `prune`: the feed lets go of everything then, too.
        """
        number = 0
        self.plain.retention.set(Policy("feed", older_than=timedelta(0)))

        def go(plain):
            act(plain, f"r{number}")
            if prune:
                plain.retention.run()

        while True:
            number += 1
            client, reads = self.client(number, go)
            try:
                outcome = ask(client, f"r{number}")
            except (NotFound, Conflict) as error:
                outcome = error
            if len(reads) < number:
                return
            yield outcome


@pytest.fixture
def gaps(database, store):
    return Gaps(database)


def test_events_of_an_execution_that_is_removed_are_all_there_or_it_is_not(store, gaps):
    def ask(client, id):
        store.executions.create(Execution(id, "j"), events=[Event("a", details={"x": large(n, id)}) for n in range(3)])
        return [event.details["x"] for event in client.executions.events(id)]

    outcomes = list(gaps.each(lambda plain, one: plain.executions.delete(one), ask))
    for number, outcome in enumerate(outcomes, 1):
        assert isinstance(outcome, NotFound) or outcome == [large(n, f"r{number}") for n in range(3)]
    assert sum(isinstance(outcome, NotFound) for outcome in outcomes) > 3


@pytest.mark.parametrize("rows", [2, 6])
def test_many_events_that_are_swept_while_they_are_read(store, gaps, monkeypatch, rows):
    monkeypatch.setattr("stateroom.records.dependents.SWEEP_ROWS", rows)

    def ask(client, id):
        store.executions.create(Execution(id, "j"), events=[Event(str(n)) for n in range(7)])
        return [event.message for event in client.executions.events(id)]

    def remove(plain, id):
        plain.retention.delete("feed")
        plain.executions.delete(id)
        assert plain.retention.run(max_records=3).families["expired"] == 3  # leaves four

    outcomes = list(gaps.each(remove, ask, prune=False))
    assert all(isinstance(outcome, NotFound) or outcome == list("0123456") for outcome in outcomes)
    assert sum(isinstance(outcome, NotFound) for outcome in outcomes) > 2


def test_events_of_another_execution_of_that_id(store, gaps):
    def ask(client, id):
        store.executions.create(Execution(id, "j"), events=[Event("a", details={"x": large(1, id)})])
        return [event.details["x"][0] for event in client.executions.events(id)]

    def replace(plain, id):
        plain.executions.delete(id)
        plain.executions.create(Execution(id, "j"), events=[Event("a", details={"x": large(n, id)}) for n in (2, 3)])

    outcomes = list(gaps.each(replace, ask))
    assert len(outcomes) > 3
    assert all(outcome == [2, 3] for outcome in outcomes)


@pytest.mark.parametrize("purge", [True, False])
def test_the_history_of_a_machine_that_is_purged_or_goes_on(store, gaps, purge):
    store.machines.define("m", {"s": {"e": "s"}}, keep_history=3)

    def ask(client, id):
        for number in range(3):
            store.machines.save("m", id, "s", large(number, id))
        return [snapshot.payload[0] for snapshot in client.machines.history("m", id)]

    def act(plain, id):
        if purge:
            plain.machines.purge("m", id)
        else:
            plain.machines.save("m", id, "s", large(3, id))

    outcomes = list(gaps.each(act, ask))
    for outcome in outcomes:
        newest = 3 if outcome[:1] == [3] else 2
        assert outcome == list(range(newest, newest - len(outcome), -1))
        assert len(outcome) >= (0 if purge else 2)
    assert len({len(outcome) for outcome in outcomes}) > 1


def test_a_failure_that_is_replaced_by_another(store, gaps):
    def ask(client, id):
        store.machines.fail("m", id, large(1, id))
        return client.machines.last_error("m", id).reason[0]

    outcomes = list(gaps.each(lambda plain, one: plain.machines.fail("m", one, large(2, one)), ask))
    assert len(outcomes) > 2
    assert set(outcomes) == {2}  # the first has gone before it was read whole


def test_a_watcher_that_is_overtaken_ends_with_what_is_retained(store, gaps, database):
    if database.asynchronous:
        pytest.skip("the same loop runs on both faces; here its thread can be waited for")
    store.retention.set(Policy("feed", older_than=timedelta(0)))
    ended = []
    for number in range(1, 30):
        position = store.feed.latest()
        values = [large(2 * number), large(2 * number + 1)]
        for value in values:
            store.feed.emit("note", value, id="r")
        client, _ = gaps.client(number, lambda plain: plain.retention.run())
        seen, watchers = [], []

        def handle(change, seen=seen, watchers=watchers):
            assert change.error is None
            seen.append(change.record)
            if len(seen) == 2:
                watchers[0].stop()

        watcher = client.watch(f"w{number}", handle, start=position, ephemeral=True, on_error="skip", max_retries=0)
        watchers.append(watcher)
        watcher.start()
        watcher._thread.join(PATIENCE)
        ended.append(watcher.stats().error)
        assert seen == values if ended[-1] is None else isinstance(ended[-1], Compacted)
        assert watcher.stats().skipped == 0
    assert sum(error is not None for error in ended) > 3
    assert ended[-1] is None


def test_an_uncommitted_revision_whose_value_went_with_the_one_before(store, gaps):
    """The end of its value is there already, so it is not written again: until who held it lets go."""

    def ask(client, id):
        store.instances.put(Instance(f"{id}/a", "w", metadata={"x": large(1, id)}))
        with client.transaction() as tx:
            tx.instances.put(Instance(f"{id}/a", "w", metadata={"x": large(1, id)}))
            return len(tx.instances.history(f"{id}/a"))

    outcomes = list(gaps.each(lambda plain, one: plain.instances.delete(f"{one}/a"), ask))
    assert all(isinstance(outcome, Conflict) for outcome in outcomes[1:])
    assert len(outcomes) > 6
