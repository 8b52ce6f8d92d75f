"""Durable execution state for Python: one store under workflow engines, agent runtimes, state machines, stream
processors, DAG runners and job schedulers. Start with `stateroom.open`.
"""

from . import codec, errors
from .check import Problem
from .clock import new_id
from .families.checkpoints import Checkpoint
from .families.collector import AsyncCollector, Collector, Entity
from .families.dead_letters import DeadLetter
from .families.executions import Event, Execution
from .families.instance_record import Context, HistoryEntry, Instance
from .families.lease import Lease
from .families.machine_record import Failure, Snapshot
from .families.omitted import OMITTED
from .families.result_record import Result
from .families.savepoints import Savepoint
from .families.schedule import Schedule
from .families.timers import Timer
from .feed import Change, Changes
from .moves import copy, restore
from .pages import Page
from .positions import BEGINNING, LATEST
from .retention_policy import Policy
from .store import AsyncStore, Store, open, open_async
from .watch import AsyncWatcher, Watcher

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
]

__version__ = "0.1.0"
