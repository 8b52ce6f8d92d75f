"""The log stays short, copies are whole, flipped bits are noticed, and space is given back."""

import os

import pytest

from engines.sqlite_helpers import held
from stateroom.engine import Batch
from stateroom.engines.sqlite import checkpoint, connect, opening, upkeep
from stateroom.errors import Closed, Damaged, InvalidArgument, StoreError


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "test.db")


@pytest.fixture
def engine(path):
    engine = connect(path)
    yield engine
    engine.close()


def fill(engine, rows=200, size=2000):
    for number in range(rows // 20):
        engine.commit(0, Batch(write={b"k%06d" % (number * 20 + each): bytes([each]) * size for each in range(20)}))


def everything(engine):
    return engine.scan(0, b"", b"\xff", limit=100_000)


def test_the_log_starts_anew_although_commits_never_pause(engine, monkeypatch):
    monkeypatch.setattr(checkpoint, "STEP_PAGES", 50)
    monkeypatch.setattr(checkpoint, "LOG_PAGES", 200)
    longest = written = 0
    before = 0
    starts = 0
    while starts < 3:
        engine.commit(0, Batch(write={b"k%d" % (written % 50): bytes(20_000)}))
        pages = engine._connections.log_pages
        starts += pages < before
        before, longest, written = pages, max(longest, pages), written + 1
        assert written < 20_000, "the log was never started anew"
    assert longest < 5000


def test_the_log_is_copied_in_a_thread_and_no_commit_waits_for_it(engine, monkeypatch):
    monkeypatch.setattr(checkpoint, "STEP_PAGES", 10)
    ran = []
    run = checkpoint.Checkpoints.run
    monkeypatch.setattr(checkpoint.Checkpoints, "run", lambda self: (ran.append(1), run(self)))
    fill(engine, 2000)
    engine.close()
    assert ran


def test_a_failed_checkpoint_is_told_and_keeps_the_log(engine, caplog, monkeypatch):
    fill(engine)
    expected = everything(engine)
    engine._connections.open = opening_that_fails
    engine._checkpoints.run()
    assert "checkpoint failed" in caplog.text
    assert everything(engine) == expected


def opening_that_fails():
    raise StoreError("no more files")


def test_after_the_last_close_there_is_one_file(engine, path):
    fill(engine)
    assert os.path.exists(path + "-wal")
    engine.close()
    assert os.listdir(os.path.dirname(path)) == ["test.db"]


@pytest.mark.parametrize("values", [100, 30_000])
def test_a_flipped_bit_anywhere_is_damage_or_does_no_harm(engine, path, values):
    fill(engine, 60, values)
    expected = everything(engine)
    engine.close()
    with open(path, "rb") as file:
        sound = file.read()
    noticed = 0
    for at in range(100, len(sound), len(sound) // 60):
        with open(path, "wb") as file:
            file.write(sound[:at] + bytes([sound[at] ^ 4]) + sound[at + 1 :])
        try:
            again = connect(path)
            try:
                assert everything(again) == expected
                problems = again.verify()
            finally:
                again.close()
        except Damaged:
            noticed += 1
            continue
        assert problems, f"byte {at} was changed and nobody noticed"
    assert noticed


def test_a_bit_flipped_while_the_store_is_open_is_damage(engine, path):
    fill(engine, 2000)
    engine.close()
    engine = connect(path)
    with open(path, "r+b") as file:
        for page in range(3, os.path.getsize(path) // 4096):
            file.seek(page * 4096 + 2000)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(Damaged):
        everything(engine)
    with pytest.raises(Damaged):
        engine.commit(0, Batch(expect={b"k000500": 26}, write={b"k000500": b""}))
    assert engine.verify()
    engine.close()


def test_without_the_checksum_extension_a_file_is_made_without_and_one_with_is_refused(path, monkeypatch, tmp_path):
    connect(path).close()
    monkeypatch.setattr(opening, "_vfs", "")
    with pytest.raises(InvalidArgument, match="checksums"):
        connect(path)
    plain = connect(str(tmp_path / "plain.db"))
    fill(plain)
    expected = everything(plain)
    plain.close()
    monkeypatch.undo()
    plain = connect(str(tmp_path / "plain.db"))
    assert everything(plain) == expected
    plain.close()


def test_a_backup_is_the_database_as_of_one_commit(engine, tmp_path):
    fill(engine)
    expected = everything(engine)
    with held(engine.path):
        engine.backup(str(tmp_path / "copy.db"))
    engine.commit(0, Batch(write={b"later": b"1"}))
    copy = connect(str(tmp_path / "copy.db"), create=False)
    assert everything(copy) == expected
    assert copy.read(0, [b""])[0].version == 10
    assert copy.commit(0, Batch(write={b"own": b"1"})) == 11
    assert copy.verify() == []
    copy.close()


def test_a_backup_that_is_larger_than_the_cache_can_be_read(engine, tmp_path):
    for at in range(8):
        engine.commit(0, Batch(write={b"big%d" % at: os.urandom(1 << 20)}))
    engine.backup(str(tmp_path / "copy.db"))
    assert not [name for name in os.listdir(tmp_path) if name.startswith("copy.db.")]
    copy = connect(str(tmp_path / "copy.db"), create=False)
    assert everything(copy) == everything(engine)
    assert copy.verify() == []
    copy.close()


def test_a_backup_replaces_nothing_and_leaves_nothing_half_done(engine, tmp_path):
    (tmp_path / "there").write_text("precious")
    for target in ("there", "no/folder.db"):
        with pytest.raises(InvalidArgument):
            engine.backup(str(tmp_path / target))
    assert (tmp_path / "there").read_text() == "precious"
    engine.close()
    with pytest.raises(Closed):
        engine.backup(str(tmp_path / "copy.db"))
    assert sorted(os.listdir(tmp_path)) == ["test.db", "there"]


def test_compact_gives_back_what_was_removed_and_lets_writers_in_between(engine, monkeypatch):
    fill(engine, 2000)
    engine.commit(0, Batch(clear=[(b"k000100", b"k9")]))
    expected, before = everything(engine), engine.size()
    turns = []
    lock = engine._writer.lock

    class Lock:
        def __enter__(self):
            turns.append(1)
            return lock.__enter__()

        def __exit__(self, *error):
            return lock.__exit__(*error)

    monkeypatch.setattr(engine._writer, "lock", Lock())
    freed = engine.compact()
    assert freed > 2_000_000
    assert engine.size() == before - freed
    assert len(turns) > 3
    assert everything(engine) == expected
    assert engine.verify() == []
    assert os.path.getsize(engine.path) < 1_000_000


def test_writers_have_their_turn_between_the_steps_of_giving_space_back(engine, monkeypatch):
    """A lock that is given up and taken again at once lets nobody in."""
    fill(engine, 2000)
    engine.commit(0, Batch(clear=[(b"k000100", b"k9")]))
    free = []

    def pause(seconds):
        assert seconds >= 0
        free.append(not engine._writer.lock.locked())
        engine.commit(0, Batch(write={b"turn": b"%d" % len(free)}))

    monkeypatch.setattr(upkeep.time, "sleep", pause)
    engine.compact()
    assert len(free) > 3
    assert all(free)
    assert engine.read(0, [b"turn"])[0].value == b"%d" % len(free)


def test_a_backup_is_flushed_before_and_its_folder_after_it_has_its_name(engine, tmp_path, monkeypatch):
    engine.commit(0, Batch(write={b"a": b"1"}))
    copy, flush, flushed = tmp_path / "copy.db", os.fsync, []

    def watched(handle):
        flushed.append((os.fstat(handle).st_ino, copy.exists()))
        flush(handle)

    monkeypatch.setattr(os, "fsync", watched)
    engine.backup(str(copy))
    assert (copy.stat().st_ino, False) in flushed
    assert flushed[-1] == (tmp_path.stat().st_ino, True)
