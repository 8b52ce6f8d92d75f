"""Types for annotations: the words that parameters and fields take, and the changes of `update`.

`match` on a status or a state and a type checker says which one was forgotten; a misspelt one is an error.
"""

from typing import Any

from .engine import Durability
from .families.executions.record import DesiredState, Event, Execution, ExecutionChanges, ExecutionState
from .families.instances.record import Instance, InstanceChanges, InstanceOrder, InstanceStatus, Unique
from .families.machines.record import Failure, Snapshot
from .families.results.record import Result
from .families.savepoints.record import SavepointRecord
from .records.entry import ChangeOp
from .watch.options import OnError

ChangedRecord = Instance | Execution | Event | Snapshot | Failure | Result | SavepointRecord | Any
"""The record of a change: by family, None where there is none; the object that was emitted may be anything.

`isinstance` says which one it is; a field that none of them has is an error before that.
"""

__all__ = [
    "ChangeOp",
    "ChangedRecord",
    "DesiredState",
    "Durability",
    "ExecutionChanges",
    "ExecutionState",
    "InstanceChanges",
    "InstanceOrder",
    "InstanceStatus",
    "OnError",
    "Unique",
]
