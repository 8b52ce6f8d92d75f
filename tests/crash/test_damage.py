"""Files that end too early, and logs that do: a whole prefix of the commits or a named error, never a wrong value."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import stateroom
from crash.ledger import Ledger
from crash.load import verify
from crash.test_flipped_bits import CLOCK, READS, fill, verdict
from stateroom.errors import Damaged, InvalidArgument, NotFound

PAGE = 4096
FRAME = 24 + PAGE
HEADER = 32


class Crashed(NamedTuple):
    """What a killed process with one writer has left."""

    database: bytes
    log: bytes
    units: int

    def frames(self) -> int:
        return (len(self.log) - HEADER) // FRAME

    def units_in(self, frames: int) -> int:
        """How many units the first so many frames of the log hold whole."""
        missing = 0
        for frame in range(frames, self.frames()):
            header = self.log[HEADER + frame * FRAME :][:24]
            missing += header[4:8] != bytes(4)  # the size of the database stands in the last frame of a transaction
        return max(0, self.units - missing)

    def restore(self, folder: Path, log: bytes) -> Path:
        folder.mkdir()
        (folder / "runs.db").write_bytes(self.database)
        (folder / "runs.db-wal").write_bytes(log)
        return folder / "runs.db"


@pytest.fixture
def crashed(tmp_path: Path) -> Crashed:
    path = tmp_path / "crashed" / "runs.db"
    path.parent.mkdir()
    with Ledger(path, writers=1) as ledger:
        ledger.more(6)
        ledger.kill()
    database, log = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    log = log[: HEADER + (len(log) - HEADER) // FRAME * FRAME]
    with stateroom.open(str(path), create=False) as store:
        found = verify(store, ledger.acknowledged, 1)
    left = Crashed(database, log, found)
    torn = [frame for frame in range(left.frames()) if left.units_in(frame) != left.units_in(frame + 1)]
    assert len(torn) >= 6, "the log holds what this is about"
    # The process may have died in the middle of a commit: what follows the last whole one does not count.
    return left._replace(log=log[: HEADER + (torn[-1] + 1) * FRAME])


def opened(path: Path) -> int:
    """The number of units in it, each whole and none missing in between."""
    with stateroom.open(str(path), create=False) as store:
        return verify(store, [], 1)


def ends(crashed: Crashed, step: int) -> list[int]:
    """Frames where a transaction ends, those next to them, and every so many others."""
    last = [frame for frame in range(crashed.frames()) if crashed.units_in(frame) != crashed.units_in(frame + 1)]
    near = {frame + by for frame in last for by in (0, 1)}
    return sorted(frame for frame in near | set(range(0, crashed.frames(), step)) if frame < crashed.frames())


def cut(crashed: Crashed, tmp_path: Path, frames: Iterable[int], inside: Iterable[int]) -> None:
    for frame in frames:
        for more in inside:
            log = crashed.log[: HEADER + frame * FRAME + more]
            path = crashed.restore(tmp_path / f"cut-{frame}-{more}", log)
            assert opened(path) == crashed.units_in(frame), f"frame {frame} and {more} bytes"


def test_a_log_that_ends_early_gives_the_commits_before_its_end(crashed: Crashed, tmp_path: Path) -> None:
    cut(crashed, tmp_path, ends(crashed, 67), (0, 2000))
    assert opened(crashed.restore(tmp_path / "whole", crashed.log)) == crashed.units
    for size in (0, 1, HEADER - 1):
        assert opened(crashed.restore(tmp_path / f"header-{size}", crashed.log[:size])) == 0


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_a_log_cut_in_every_frame(crashed: Crashed, tmp_path: Path) -> None:
    cut(crashed, tmp_path, range(crashed.frames()), (0, 1, 23, 24, 25, 2000, FRAME - 1))


def test_a_flipped_bit_in_a_log_ends_it_before_that_commit(crashed: Crashed, tmp_path: Path) -> None:
    assert crashed.frames() > 40
    for frame in ends(crashed, 67):
        for byte in (9, 3333):
            log = bytearray(crashed.log)
            log[HEADER + frame * FRAME + byte] ^= 1 << byte % 8
            path = crashed.restore(tmp_path / f"flip-{frame}-{byte}", bytes(log))
            assert opened(path) == crashed.units_in(frame), f"frame {frame} byte {byte}"


@pytest.fixture
def database(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    path = tmp_path / "runs.db"
    fill(str(path))
    with stateroom.open(str(path), clock=CLOCK) as store:
        right = {name: read(store) for name, read in READS.items()}
    return path, right


def truncate(database: tuple[Path, dict[str, Any]], sizes: Iterable[int]) -> None:
    path, right = database
    whole = path.read_bytes()
    for size in sizes:
        path.write_bytes(whole[:size])
        wrong, found = verdict(path, right)
        assert not wrong, f"{size} of {len(whole)} bytes: {wrong} came back wrong"
        # The last 8 bytes of a page are its checksum: without them nothing is missing.
        assert found or size >= len(whole) - 8, f"{size} of {len(whole)} bytes: check finds nothing"
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    path.write_bytes(whole)
    assert verdict(path, right) == ([], False)


def test_a_file_that_ends_early_is_an_error_and_never_a_value(database: tuple[Path, dict[str, Any]]) -> None:
    size = database[0].stat().st_size
    last = size - PAGE
    inside = (*range(100, last, PAGE // 2), *range(PAGE, last, PAGE), *range(last, last + 10), *range(last, size, 37))
    truncate(database, sorted({*inside, size - 1}))


def test_a_page_that_a_checkpoint_left_torn_comes_from_the_log(crashed: Crashed, tmp_path: Path) -> None:
    assert len(crashed.database) % PAGE == 0
    for missing in (1, 100, PAGE - 1):
        torn = crashed._replace(database=crashed.database[:-missing])
        assert opened(torn.restore(tmp_path / f"torn-{missing}", crashed.log)) == crashed.units


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_a_file_cut_at_every_byte(database: tuple[Path, dict[str, Any]]) -> None:
    truncate(database, range(2, database[0].stat().st_size))


@pytest.mark.parametrize("size", [1, 15, 16, 99])
def test_a_file_without_a_whole_header_is_refused(database: tuple[Path, dict[str, Any]], size: int) -> None:
    path, _ = database
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises((InvalidArgument, Damaged)):
        stateroom.open(str(path))
    assert path.stat().st_size == size, "it was left as it is"


def test_an_emptied_file_is_an_absent_database(database: tuple[Path, dict[str, Any]]) -> None:
    path, _ = database
    path.write_bytes(b"")
    with pytest.raises(NotFound):
        stateroom.open(str(path), create=False)
