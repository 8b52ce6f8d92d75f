"""No value is written into an encrypted store without its key ring, or with another key under the same id."""

import asyncio
import os
from pathlib import Path

import pytest

import stateroom
from stateroom import Event, Execution, Instance
from stateroom.codec import KeyRing
from stateroom.errors import Damaged, InvalidArgument, StoreError, Undecodable

pytest.importorskip("cryptography")
NAMING = os.urandom(32)
OLD, NEW, OTHER = os.urandom(32), os.urandom(32), os.urandom(32)


def ring(current="1", **keys):
    return KeyRing({f"{name[1:]}": key for name, key in keys.items()}, current=current, naming=NAMING)


@pytest.fixture
def encrypted(tmp_path):
    path = str(tmp_path / "a.db")
    with stateroom.open(path, key_ring=ring(k1=OLD)) as store:
        store.executions.create(Execution("e", "j", data="secret"))
    return path


def test_without_a_ring_nothing_is_written(encrypted):
    with stateroom.open(encrypted) as store:
        for write in (
            lambda: store.results.put("d", "x", "another secret"),
            lambda: store.results.put("d", "y", "another secret" * 10_000),
            lambda: store.executions.create(Execution("f", "j")),
            lambda: store.instances.put(Instance("i", "w")),
            lambda: store.machines.save("m", "n", "s", "another secret"),
            lambda: store.timers.set("t", stateroom.open("memory:")._scope.clock.now(), "another secret"),
            lambda: store.feed.emit("type", "another secret"),
            lambda: store.machines.define("m", {"s": {"go": "t"}}),
            lambda: store.results.put_stream("d", "z", [b"another secret"]),
        ):
            with pytest.raises(InvalidArgument, match="key_ring") as refused:
                write()
            assert refused.value.what == "key_ring"
        with pytest.raises(Undecodable):
            store.executions.get("e")
        assert store.stats().encrypted
    assert b"another secret" not in Path(encrypted).read_bytes()
    with stateroom.open(encrypted, key_ring=ring(k1=OLD)) as store:
        assert store.executions.get("e").data == "secret"
        assert store.check() == []


def refused(path, wrong):
    """Opened with a wrong ring, nothing is written, and what is there says that the key is another."""
    with stateroom.open(path, key_ring=wrong) as store:
        for write in (
            lambda: store.results.put("d", "x", "another secret"),
            lambda: store.executions.create(Execution("f", "j")),
            lambda: store.machines.save("m", "n", "s", 1),
        ):
            with pytest.raises(StoreError) as error:
                write()
            assert isinstance(error.value, InvalidArgument | Damaged)
        with pytest.raises(Damaged, match="another key"):
            store.executions.get("e")

    async def main():
        async with stateroom.open_async(path, key_ring=wrong) as store:
            with pytest.raises(InvalidArgument, match="key_ring"):
                await store.results.put("d", "x", "another secret")

    asyncio.run(main())


def test_with_another_key_under_the_same_id_nothing_is_written(encrypted):
    for wrong in (ring(k1=OTHER), ring("2", k1=OTHER, k2=NEW)):
        refused(encrypted, wrong)
    with stateroom.open(encrypted, key_ring=ring(k1=OLD)) as store:
        assert not store.results.has("d", "x")
        assert store.check() == []


def test_a_key_that_was_rotated_away_is_not_needed(encrypted):
    with stateroom.open(encrypted, key_ring=ring("2", k1=OLD, k2=NEW)) as store:
        store.executions.add_events("e", Event("x", details={"a": 1}))
        store.rekey()
    with stateroom.open(encrypted, key_ring=ring("2", k2=NEW)) as store:
        assert store.executions.get("e").data == "secret"
    refused(encrypted, ring("2", k2=OTHER))


def test_copies_know_their_keys_too(encrypted, tmp_path):
    backup, target = str(tmp_path / "b.db"), str(tmp_path / "c.db")
    with stateroom.open(encrypted, key_ring=ring(k1=OLD)) as store:
        store.backup(backup)
    stateroom.copy(encrypted, target, key_ring=ring(k1=OLD))
    for path in (backup, target):
        refused(path, ring(k1=OTHER))
        with stateroom.open(path) as store, pytest.raises(InvalidArgument, match="encrypted"):
            store.results.put("d", "x", 1)
        with stateroom.open(path, key_ring=ring(k1=OLD)) as store:
            assert store.executions.get("e").data == "secret"


def test_a_store_in_clear_is_not_called_encrypted(tmp_path):
    with stateroom.open(str(tmp_path / "a.db")) as store:
        store.results.put("d", "x", 1)
        assert not store.stats().encrypted


def test_doctor_says_whether_it_is_encrypted_whatever_ring_it_has(encrypted, tmp_path, capsys, monkeypatch):
    from stateroom.cli import main

    monkeypatch.delenv("STATEROOM_KEY_RING", raising=False)
    stateroom.open(plain := str(tmp_path / "plain.db")).close()
    for path, answer in ((encrypted, True), (plain, False)):
        main(["--url", path, "--json", "doctor"])
        assert f'"encrypted": {str(answer).lower()}' in capsys.readouterr().out


def test_a_reader_makes_no_row(tmp_path):
    path = str(tmp_path / "a.db")
    stateroom.open(path).close()
    with stateroom.open(path, key_ring=ring(k1=OLD), read_only=True) as store:
        assert not store.stats().encrypted
