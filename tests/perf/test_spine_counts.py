"""What the spine's operations cost, in calls and rows of the engine: counts, which no busy machine can change."""

import pytest

from stateroom import Event, Execution, Instance, Store, codec
from stateroom.clock import SystemClock
from stateroom.engines import memory
from stateroom.engines.wrap import Recording


class Counted:
    """A store that tells what each call cost."""

    def __init__(self, parts=1):
        self.engine = Recording(memory.connect("memory:", parts=parts))
        options = {"namespace": "default", "codec": codec.default, "clock": SystemClock()}
        self.store = Store(self.engine, "memory:", **options)

    def cost(self, call):
        """(reads, rows read, commits, rows written) of a call."""
        self.engine.clear()
        call()
        written = sum(
            len(batch.write) + len(batch.add) + len(batch.append) + len(batch.clear) for batch in self.engine.batches
        )
        return self.engine.reads, self.engine.rows, self.engine.commits, written


@pytest.fixture
def counted():
    counted = Counted()
    yield counted
    counted.store.close()


def fill(store, number, each=lambda n: {}):
    for n in range(number):
        store.executions.create(Execution(f"e{n:05}", f"j{n % 10}", state="bid_accepted", **each(n)))


def test_create(counted):
    # The record, its index rows (state and job, each by id and by time), a counter, the feed entry.
    assert counted.cost(lambda: counted.store.executions.create(Execution("a", "j"))) == (1, 0, 1, 7)
    # A node has an index row; an event a row, and a row that counts them.
    execution = Execution("b", "j", node_id="n")
    assert counted.cost(lambda: counted.store.executions.create(execution, events=[Event("e")])) == (1, 0, 1, 10)


def test_update(counted):
    counted.store.executions.create(Execution("a", "j"))
    # The record, the entry, two counters; the state's rows are moved (2 + 2), the job's row by time too (1 + 1).
    assert counted.cost(lambda: counted.store.executions.update("a", state="running")) == (1, 1, 1, 10)
    # The record, the entry, and the rows by time of state and job: moved.
    assert counted.cost(lambda: counted.store.executions.update("a", message="m")) == (1, 1, 1, 6)
    # Beside them the event, and how many there are.
    assert counted.cost(lambda: counted.store.executions.update("a", message="m", events=[Event("e")])) == (2, 1, 1, 8)


def test_add_events_and_delete(counted):
    counted.store.executions.create(Execution("a", "j"))
    assert counted.cost(lambda: counted.store.executions.add_events("a", Event("e"))) == (2, 1, 1, 3)
    cost = counted.cost(lambda: counted.store.executions.delete("a"))
    # Read: the record, the number of its events, the events, and the lease that goes with it.
    assert cost == (4, 3, 1, 9)
    assert counted.cost(lambda: counted.store.executions.delete("a")) == (1, 0, 0, 0)


def test_reading_one(counted):
    counted.store.executions.create(Execution("a", "j"))
    for call in (counted.store.executions.get, counted.store.executions.find):
        assert counted.cost(lambda call=call: call("a")) == (1, 1, 0, 0)
    assert counted.cost(lambda: counted.store.instances.find("a")) == (1, 0, 0, 0)


def test_start_with_a_business_key(counted):
    instance = Instance("k/1", "w", business_key="k")
    # Read: the id, the key's head, who is active, and the head again is remembered.
    reads, _, commits, written = counted.cost(lambda: counted.store.instances.start(instance))
    assert (reads, commits) == (3, 1)
    # Record, entry, head, active row, rows of status, workflow and key (each by id and time), one by time, 2 counters.
    assert written == 13


@pytest.mark.parametrize("parts", [1, 4])
def test_count_reads_a_counter_of_each_part(parts):
    counted = Counted(parts)
    fill(counted.store, 40)
    assert counted.cost(lambda: counted.store.executions.count("bid_accepted"))[:3] == (parts, parts, 0)
    assert counted.cost(lambda: counted.store.executions.count("running"))[:3] == (parts, 0, 0)
    assert counted.store.executions.count("bid_accepted") == 40
    counted.store.close()


def test_count_does_not_grow(counted):
    costs = []
    for start in (0, 500):
        for n in range(start, start + 500):
            counted.store.executions.create(Execution(f"e{n}", "j"))
        costs.append(counted.cost(lambda: counted.store.executions.count("new")))
        costs.append(counted.cost(lambda: counted.store.instances.count(workflow="w")))
    assert costs[:2] == costs[2:]
    assert costs[0] == (1, 1, 0, 0)
    assert costs[1][0] == 1


def test_live_reads_as_much_of_a_large_family_as_of_a_small_one(counted):
    fill(counted.store, 250)
    small = counted.cost(lambda: counted.store.executions.live(limit=100))
    for n in range(250, 1500):
        counted.store.executions.create(Execution(f"e{n:05}", "j", state="bid_accepted"))
    large = counted.cost(lambda: counted.store.executions.live(limit=100))
    assert large[0] <= 8
    assert large == small
    assert large[1] <= 310


@pytest.mark.parametrize(
    "filters",
    [
        {"node_id": "rare"},
        {"job_id": "rare"},
        {"state": "publishing"},
        {"state_in": ["publishing", "completed"]},
        {"job_id": "rare", "state": "bid_accepted"},
    ],
    ids=str,
)
def test_an_indexed_filter_never_scans_the_family(counted, filters):
    fill(counted.store, 300)
    for n in range(3):
        counted.store.executions.create(Execution(f"r{n}", "rare", state="bid_accepted", node_id="rare"))
    counted.store.executions.update("r0", state="publishing")
    reads, rows, _, _ = counted.cost(lambda: counted.store.executions.query(**filters))
    assert reads <= 5  # with one of the feed, where several ranges are looked at: what moved between them is in both
    assert rows <= 8


@pytest.mark.parametrize(
    "filters",
    [
        {"id": "rare/0"},
        {"workflow": "rare"},
        {"workflow_prefix": "ra"},
        {"status": "waiting"},
        {"status_in": ["waiting", "running"]},
        {"business_key": "rare"},
        {"label": ("team", "rare")},
        {"workflow": "rare", "order": "updated"},
        {"label": ("team", "rare"), "order": "updated"},
        {"status": "waiting", "workflow": "many"},
    ],
    ids=str,
)
def test_an_indexed_filter_of_instances_never_scans_the_family(counted, filters):
    for n in range(300):
        counted.store.instances.put(Instance(f"i{n:03}", "many", labels={"team": "many"}))
    for n in range(3):
        rare = Instance(f"rare/{n}", "rare", business_key="rare", labels={"team": "rare"}, status="waiting")
        counted.store.instances.put(rare)
    reads, rows, _, _ = counted.cost(lambda: counted.store.instances.query(**filters))
    assert reads <= 6  # likewise
    assert rows <= 10


def test_a_page_reads_its_own_rows_alone(counted):
    fill(counted.store, 500)
    first = counted.store.executions.query(job_id="j1", limit=10)
    cost = counted.cost(lambda: counted.store.executions.query(job_id="j1", limit=10, cursor=first.cursor))
    assert cost[0] <= 3
    assert cost[1] <= 16 + 11


def test_history_and_events_read_their_own_rows(counted):
    fill(counted.store, 200)
    counted.store.executions.create(Execution("a", "j"), events=[Event("1"), Event("2")])
    counted.store.executions.update("a", message="m")
    for n in range(50):
        counted.store.executions.create(Execution(f"x{n}", "j"))
    assert counted.cost(lambda: counted.store.executions.events("a"))[:2] == (2, 3)
    assert counted.cost(lambda: counted.store.executions.history("a"))[1] <= 4
