"""A small store in a file, and the command line run on it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import stateroom
from stateroom import Event, Execution, Instance
from stateroom.cli import main


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _same_package_in_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that a test starts import the package that is tested, installed or not."""
    monkeypatch.setenv("PYTHONPATH", str(Path(stateroom.__file__).parents[1]))
    monkeypatch.delenv("STATEROOM_URL", raising=False)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Two instances and three executions."""
    path = str(tmp_path / "runs.db")
    with stateroom.open(path) as store:
        store.instances.put(
            Instance("order-17", "checkout", status="running", business_key="order-17", labels={"tier": "gold"})
        )
        store.instances.put(Instance("order-18", "refund", status="completed"))
        for name, state in (("charge", "running"), ("ship", "new"), ("mail", "completed")):
            id = f"order-17/{name}"
            store.executions.create(Execution(id, "order-17", node_id="n1"), events=[Event("made", topic="test")])
            if state != "new":
                store.executions.update(id, state=state, message=f"now {state}", events=[Event(f"became {state}")])
    return path


@pytest.fixture
def run(url: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line on the small store."""

    def call(*arguments: str, url: str = url) -> Ran:
        capsys.readouterr()
        code = main(["--url", url, *arguments])
        return Ran(code, *capsys.readouterr())

    return call
