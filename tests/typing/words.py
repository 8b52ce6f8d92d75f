"""The words that fields and parameters take, as type checkers see them; `test_typing.py` runs them over this file."""

from collections.abc import Callable
from enum import StrEnum
from typing import assert_never, assert_type

import stateroom
from stateroom import Change, Execution, Instance, Store
from stateroom.types import (
    ChangedRecord,
    ChangeOp,
    DesiredState,
    ExecutionChanges,
    ExecutionState,
    InstanceChanges,
    InstanceStatus,
    OnError,
)


class State(StrEnum):
    RUNNING = "running"


def fields(instance: Instance, execution: Execution, change: Change) -> None:
    assert_type(instance.status, InstanceStatus)
    assert_type(execution.state, ExecutionState)
    assert_type(execution.desired_state, DesiredState)
    assert_type(change.op, ChangeOp)
    assert_type(change.record, ChangedRecord)
    if isinstance(change.record, Instance):
        assert_type(change.record.status, InstanceStatus)


def every_status(status: InstanceStatus) -> bool:
    match status:
        case "pending" | "running" | "waiting":
            return True
        case "completed" | "failed" | "cancelled":
            return False
        case _:
            assert_never(status)


def accepted(store: Store, handler: Callable[[Change], object]) -> None:
    assert_type(store.instances.update("a", status="running", current_step=None), Instance)
    assert_type(store.instances.update("a", status=State.RUNNING, labels={"team": "x"}), Instance)
    assert_type(store.executions.update("a", state=State.RUNNING, data=object(), details=None), Execution)
    store.instances.query(status_in=("pending", "running"), order="updated")
    store.instances.query(status=State.RUNNING)
    store.executions.claim("me", 30, states=["new"], to="running")
    store.feed.read(ops={"create", "emit"})
    store.watch("w", handler, on_error="skip", ops=["delete"])
    moved: InstanceChanges = {"status": "failed"}
    store.instances.update("a", **moved)
    ended: ExecutionChanges = {"state": "failed", "message": "why"}
    store.executions.update("a", expected_revision=1, **ended)
    on_error: OnError = "block"
    store.watch("w", handler, on_error=on_error)
    stateroom.open("runs.db", durability="normal")


def refused(store: Store, change: Change) -> None:
    Instance("a", "w", status="runing")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Execution("a", "j", state="runing")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    store.instances.update("a", status="runing")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    store.instances.update("a", statsu="running")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    store.instances.update("a", labels=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    store.executions.update("a", state="runing")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    store.executions.update("a", stat="running")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    store.instances.query(status="runing")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    store.instances.query(order="newest")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    store.executions.count("runing")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    store.executions.claim("me", 5, to="runing")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    store.feed.read(ops=["created"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    store.watch("w", print, on_error="stop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stateroom.open("a", durability="fast")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    change.record.statsu  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]
