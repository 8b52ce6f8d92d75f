"""A file of every format there ever was is opened, says what it said, checks clean and takes changes."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

import stateroom
from stateroom.engines.sqlite.opening import FORMAT
from stateroom.testing.faces import ManualClock

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("format-*.db"))


def script():
    spec = importlib.util.spec_from_file_location("migration_write", HERE / "write.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_a_file_of_this_format():
    assert HERE / f"format-{FORMAT}.db" in FILES, "run python tests/migration/write.py"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_of_a_format_is_opened(file, tmp_path):
    path = shutil.copy(file, tmp_path / "old.db")
    with stateroom.open(path, create=False, clock=ManualClock()) as store:
        assert script().says(store) == json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        assert store.check() == []
        store.executions.update("order/e", state="completed")
        store.machines.save("door", "order", "shut", {"n": 3}, event="shut")
        store.results.put("order", "large", "z")
        store.instances.delete("order/1")
        assert store.check() == []
