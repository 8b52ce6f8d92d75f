"""A process that forks and its child both go on with the same store."""

import os
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

import stateroom
from concurrency.conftest import database
from stateroom import Execution
from stateroom.errors import Closed

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    # Newer Pythons warn of forks while threads run; that it works then is what is shown here.
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


def in_child(work: Callable[[], Any]) -> Any:
    """What `work` gives, or the error it raises, in a forked process."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            try:
                outcome = work()
            except BaseException as error:  # noqa: BLE001 - brought to the parent
                outcome = error
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(outcome, pipe)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    outcome = pickle.loads(data)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    where = nullcontext("memory:") if request.param == "memory" else database(request.param, tmp_path)
    with where as url, stateroom.open(url) as opened:
        yield opened
        assert opened.check() == []


def test_parent_and_child_both_read_and_write(store: stateroom.Store) -> None:
    store.executions.create(Execution("before", "job"))

    def work() -> list[str]:
        store.executions.create(Execution("child", "job"))
        return [record.id for record in store.executions.scan()]

    assert in_child(work) == ["before", "child"]
    store.executions.create(Execution("parent", "job"))
    wanted = ["before", "parent"] if store.url == "memory:" else ["before", "child", "parent"]
    assert [record.id for record in store.executions.scan()] == wanted


def test_a_transaction_open_at_the_fork_ends_in_the_child_and_goes_on_in_the_parent(store: stateroom.Store) -> None:
    with store.transaction() as tx:
        tx.executions.create(Execution("a", "job"))

        def write() -> None:
            tx.executions.create(Execution("a/child", "job"))

        with pytest.raises(Closed, match="forked"):
            in_child(write)
        with pytest.raises(Closed, match="forked"):
            in_child(lambda: tx.executions.find("a"))
        tx.executions.create(Execution("a/parent", "job"))
    assert [record.id for record in store.executions.scan()] == ["a", "a/parent"]


def test_leaving_it_in_the_child_commits_nothing(store: stateroom.Store) -> None:
    transaction = store.transaction()
    tx = transaction.__enter__()
    tx.executions.create(Execution("a", "job"))
    with pytest.raises(Closed, match="forked"):
        in_child(lambda: transaction.__exit__(None, None, None))
    assert store.executions.find("a") is None
    transaction.__exit__(None, None, None)
    assert store.executions.get("a").revision == 1


def test_watchers_stay_with_the_parent(store: stateroom.Store) -> None:
    import threading

    seen: list[str] = []
    came = threading.Event()

    def handle(change: stateroom.Change) -> None:
        seen.append(change.id)
        if change.id == "parent":
            came.set()

    watcher = store.watch("w", handle, ephemeral=True)
    watcher.start()

    def work() -> tuple[list[str], bool]:
        store.executions.create(Execution("child", "job"))
        running = watcher._thread is not None and watcher._thread.is_alive()
        store.close()  # must not wait for a thread that is not there
        return seen, running

    assert in_child(work) == ([], False)
    store.executions.create(Execution("parent", "job"))
    assert came.wait(10)
    watcher.stop(10)
    assert "parent" in seen
