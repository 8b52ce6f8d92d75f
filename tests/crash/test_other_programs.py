"""Another SQLite program closes the file of a killed process last: it is refused, and all of it can be had back."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

import stateroom
from stateroom.errors import Damaged, InvalidArgument

KILLED = """
import os, signal, sys
import stateroom

store = stateroom.open(sys.argv[1])
for number in range(30):
    store.executions.create(stateroom.Execution(f"e{number}", "j", data="x" * 3000))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def touched(tmp_path: Path) -> Path:
    """A file that a killed process left, and that a plain SQLite program has read and closed."""
    path = tmp_path / "runs.db"
    source = str(Path(stateroom.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source}
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment, check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert Path(f"{path}-wal").stat().st_size > 0
    plain = apsw.Connection(str(path))
    assert plain.execute("SELECT count(*) FROM rows").get > 30
    plain.close()
    assert not Path(f"{path}-wal").exists(), "it moved the log into the file"
    return path


def test_it_is_refused_and_the_error_says_where_to_read_on(touched: Path) -> None:
    with pytest.raises(Damaged, match=r"another program.*durability\.md"), stateroom.open(str(touched)) as store:
        list(store.executions.scan())


def test_every_row_can_be_checked_and_copied(touched: Path) -> None:
    with stateroom.open(f"sqlite:///{touched}?page_checksums=ignore") as store:
        assert store.check() == []
        assert store.executions.count("new") == 30
        store.backup(str(touched.parent / "new.db"))
    with stateroom.open(str(touched.parent / "new.db")) as store:
        assert store.check() == []
        assert len(list(store.executions.scan())) == 30
        store.executions.create(stateroom.Execution("e30", "j"))


def test_a_row_that_was_changed_is_found_all_the_same(touched: Path) -> None:
    touched.write_bytes(touched.read_bytes().replace(b"x" * 2000, b"y" + b"x" * 1999))
    with stateroom.open(f"sqlite:///{touched}?page_checksums=ignore") as store:
        assert store.check() != []


def test_any_other_option_is_refused(tmp_path: Path) -> None:
    for option in ("page_checksums=on", "page_checksums", "mode=ro", "page_checksums=ignore&x=1"):
        with pytest.raises(InvalidArgument):
            stateroom.open(f"sqlite:///{tmp_path}/a.db?{option}")
    assert list(tmp_path.iterdir()) == []
