"""Names that conductor and worker share."""

from datetime import UTC, datetime

from stateroom.types import ExecutionState

WORKFLOW = "index-stdlib"
STEP = "index"
LIVE: tuple[ExecutionState, ...] = ("bid_accepted", "running", "publishing")

STARTED = "worker"
"""Type of the change a worker emits when it holds the lease."""

MACHINE = "index-run"
TRANSITIONS = {
    "created": {"start": "indexing"},
    "indexing": {"take over": "recovering", "finish": "completed"},
    "recovering": {"take over": "recovering", "resume": "indexing"},
}
"""The run as a state machine: the store refuses a worker that would take another way."""

COMPLETED = "completed"
RECOVERY = "recovery"
"""Topic of the event that restarts what a dead worker left behind."""

LEASE_SECONDS = 2.0
RENEW_SECONDS = 0.4

LOST_LEASE = 3
"""Exit code of a worker whose lease somebody else has."""


def run_id() -> str:
    """The id of a run: the root of everything that belongs to it."""
    return f"stdlib-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def execution_id(run: str, path: str) -> str:
    """The execution of one file; it shares the run's root, so both can change in one transaction."""
    return f"{run}/{path}"
