"""Durable execution state for Python: one store under workflow engines, agent runtimes, state machines, stream
processors, DAG runners and job schedulers. Start with `stateroom.open`.
"""

from . import codec, errors
from .clock import new_id
from .codec import to_json
from .families.claims import Claim
from .families.executions.record import Event, Execution
from .families.instances.record import Context, HistoryEntry, Instance
from .families.leases import Lease
from .families.locations import Location
from .families.locations import NodeInfo as NodeInfo
from .families.machines.record import Failure, Snapshot
from .families.results.record import Result
from .families.savepoints.collector import AsyncCollector, Collector, Entity
from .families.savepoints.family import Savepoint
from .families.savepoints.schedule import Schedule
from .families.timers import Timer
from .feed.feed import Change, Changes
from .feed.positions import BEGINNING, LATEST
from .records.audit import Problem
from .records.pages import Page
from .retention.policy import Policy
from .store.moving import copy, restore
from .store.opening import open, open_async
from .store.store import AsyncStore, Store
from .values.omitted import OMITTED
from .watch.checkpoints import Checkpoint
from .watch.dead_letters import DeadLetter
from .watch.watcher import AsyncWatcher, Watcher

__all__ = [
    "BEGINNING",
    "LATEST",
    "OMITTED",
    "AsyncCollector",
    "AsyncStore",
    "AsyncWatcher",
    "Change",
    "Changes",
    "Checkpoint",
    "Claim",
    "Collector",
    "Context",
    "DeadLetter",
    "Entity",
    "Event",
    "Execution",
    "Failure",
    "HistoryEntry",
    "Instance",
    "Lease",
    "Location",
    "Page",
    "Policy",
    "Problem",
    "Result",
    "Savepoint",
    "Schedule",
    "Snapshot",
    "Store",
    "Watcher",
    "Timer",
    "codec",
    "copy",
    "errors",
    "new_id",
    "open",
    "open_async",
    "restore",
    "to_json",
]

__version__ = "0.1.0"
