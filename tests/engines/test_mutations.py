"""Engines that break one sentence of the contract each: the suite has to notice, or it proves nothing."""

import threading

import pytest
from hypothesis import Phase, settings

from engines.kit import failing
from stateroom.engine import Batch, Row, stamped
from stateroom.engines.memory import MemoryEngine
from stateroom.errors import Conflict
from stateroom.testing import engine_suite


def changed(batch: Batch, **fields) -> Batch:
    return Batch(**{name: getattr(batch, name) for name in ("expect", "write", "add", "append", "clear")} | fields)


RANDOM = "test_random_batches_do_what_they_do_to_a_dict"


class NoExpect(MemoryEngine):
    def commit(self, part, batch):
        return super().commit(part, changed(batch, expect={}))


class StaleExpect(MemoryEngine):
    """Checks before it takes the lock."""

    def __init__(self, parts=1):
        super().__init__(parts)
        self.turn = threading.Barrier(2)

    def commit(self, part, batch):
        self._parts[part].check(part, batch)
        if batch.expect:
            # Two that expect something meet here, so that both have checked before either writes.
            try:
                self.turn.wait(0.02)
            except threading.BrokenBarrierError:
                self.turn.reset()
        return super().commit(part, changed(batch, expect={}))


class AbsentIsAnything(MemoryEngine):
    def commit(self, part, batch):
        return super().commit(part, changed(batch, expect={k: v for k, v in batch.expect.items() if v}))


class ConflictAfterWriting(MemoryEngine):
    def commit(self, part, batch):
        try:
            return super().commit(part, batch)
        except Conflict:
            super().commit(part, changed(batch, expect={}))
            raise


class NamelessConflict(MemoryEngine):
    def commit(self, part, batch):
        try:
            return super().commit(part, batch)
        except Conflict:
            raise Conflict("somewhere") from None


class ForgetsClear(MemoryEngine):
    def commit(self, part, batch):
        return super().commit(part, changed(batch, clear=()))


class ClearsItsLastKey(MemoryEngine):
    def commit(self, part, batch):
        return super().commit(part, changed(batch, clear=[(start, stop + b"\0") for start, stop in batch.clear]))


class ClearsLast(MemoryEngine):
    def commit(self, part, batch):
        version = super().commit(part, changed(batch, clear=()))
        for start, stop in batch.clear:
            for row in super().scan(part, start, stop, limit=10_000):
                self._parts[part].rows[row.key] = None
        self._parts[part].order = None
        return version


class KeepsItsVersion(MemoryEngine):
    def commit(self, part, batch):
        version = super().commit(part, batch)
        if not (batch.write or batch.add or batch.append):
            self._parts[part].rows[b""] = Row(b"", b"", version - 1)
            return version - 1
        return version


class StampsWithoutIndex(MemoryEngine):
    def commit(self, part, batch):
        version = super().read(part, [b""])[0].version + 1
        write = {stamped(prefix, version, 0): value for prefix, value in batch.append}
        return super().commit(part, changed(batch, write={**batch.write, **write}, append=()))


class StampsTheVersionBefore(MemoryEngine):
    def commit(self, part, batch):
        version = super().read(part, [b""])[0].version
        write = {stamped(prefix, version, index): value for index, (prefix, value) in enumerate(batch.append)}
        return super().commit(part, changed(batch, write={**batch.write, **write}, append=()))


class AddKeepsTheRowsVersion(MemoryEngine):
    def commit(self, part, batch):
        before = super().read(part, list(batch.add))
        version = super().commit(part, batch)
        for row in before:
            if row is not None:
                now = self._parts[part].rows[row.key]
                self._parts[part].rows[row.key] = now._replace(version=row.version)
        return version


class HalfABatch(MemoryEngine):
    """Writes one half, lets others in, then writes the other, under one version."""

    def commit(self, part, batch):
        if len(batch.write) < 3:
            return super().commit(part, batch)
        items = list(batch.write.items())
        version = super().commit(part, changed(batch, write=dict(items[:2])))
        threading.Event().wait(0.0005)
        with self._changed:
            self._parts[part].apply({key: Row(key, value, version) for key, value in items[2:]}, version)
        return version


class OnePart(MemoryEngine):
    def commit(self, part, batch):
        return super().commit(0, batch)


class UnmergedScan(MemoryEngine):
    def scan(self, part, start, stop, *, limit, reverse=False):
        if part is not None:
            return super().scan(part, start, stop, limit=limit, reverse=reverse)
        found = (
            super(UnmergedScan, self).scan(p, start, stop, limit=limit, reverse=reverse) for p in range(self.parts)
        )
        return [row for rows in found for row in rows][:limit]


class StopIncluded(MemoryEngine):
    def scan(self, part, start, stop, *, limit, reverse=False):
        return super().scan(part, start, stop + b"\0" if start < stop else stop, limit=limit, reverse=reverse)


class ReverseOfTheLowEnd(MemoryEngine):
    def scan(self, part, start, stop, *, limit, reverse=False):
        rows = super().scan(part, start, stop, limit=limit)
        return rows[::-1] if reverse else rows


class WithoutLimit(MemoryEngine):
    def scan(self, part, start, stop, *, limit=100_000, reverse=False):
        return super().scan(part, start, stop, limit=limit, reverse=reverse)


class SortsWhatItReads(MemoryEngine):
    def read(self, part, keys):
        return super().read(part, sorted(keys))


class WorksOnWhenClosed(MemoryEngine):
    def close(self):
        pass


class Lenient(MemoryEngine):
    """Takes what is beyond the limits."""

    def commit(self, part, batch):
        try:
            return super().commit(part, batch)
        except ValueError:
            with self._changed:
                held = self._parts[part]
                held.apply(held.changes(batch, held.version + 1), held.version + 1)
            return held.version


MUTATIONS = {
    NoExpect: "test_a_conflict_writes_nothing",
    StaleExpect: "test_one_of_many_racing_on_a_row_wins",
    AbsentIsAnything: "test_absent_means_absent",
    ConflictAfterWriting: "test_a_conflict_writes_nothing",
    NamelessConflict: "test_a_conflict_names_key_expected_and_actual",
    ForgetsClear: "test_clear_takes_its_first_key_and_leaves_its_last",
    ClearsItsLastKey: "test_clear_takes_its_first_key_and_leaves_its_last",
    ClearsLast: "test_clear_comes_before_write_add_and_append",
    KeepsItsVersion: "test_an_empty_batch_commits_and_raises_the_version",
    StampsWithoutIndex: "test_appended_keys_are_stamped_with_version_and_index",
    StampsTheVersionBefore: "test_appended_keys_are_stamped_with_version_and_index",
    AddKeepsTheRowsVersion: "test_add_sets_the_version_of_its_row",
    HalfABatch: "test_nobody_sees_half_a_batch",
    OnePart: "test_parts_are_apart",
    UnmergedScan: "test_a_scan_of_all_parts_is_merged_in_key_order",
    StopIncluded: "test_start_is_included_and_stop_is_not",
    ReverseOfTheLowEnd: "test_reverse_starts_at_the_high_end",
    WithoutLimit: "test_a_limit_is_mandatory_and_not_negative",
    SortsWhatItReads: "test_rows_come_in_the_order_of_the_keys_asked",
    WorksOnWhenClosed: "test_after_close_every_call_raises_closed",
    Lenient: "test_a_key_of_1023_bytes_is_taken_and_a_longer_one_refused",
}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_the_suite_notices(mutation):
    assert failing(engine_suite(lambda: mutation(3)), MUTATIONS[mutation]) == {MUTATIONS[mutation]}


@pytest.mark.parametrize(
    "mutation",
    [
        NoExpect,
        AbsentIsAnything,
        ForgetsClear,
        ClearsLast,
        StampsWithoutIndex,
        AddKeepsTheRowsVersion,
    ],
    ids=lambda mutation: mutation.__name__,
)
def test_random_batches_notice_alone(mutation):
    suite = engine_suite(lambda: mutation(2))
    # A failure is enough: it need not be made small. Always the same batches, so that it is always found.
    suite.examples = 300
    suite.draws = settings(suite.draws, phases=[Phase.generate], derandomize=True)
    assert failing(suite, RANDOM) == {RANDOM}


def test_nothing_fails_without_a_mutation():
    assert failing(engine_suite(lambda: MemoryEngine(3))) == set()


class NeverWakes(MemoryEngine):
    def commit(self, part, batch):
        changed, self._changed = self._changed, threading.Condition()
        try:
            return super().commit(part, batch)
        finally:
            self._changed = changed


@pytest.mark.parametrize(
    "name", ["test_a_commit_wakes_who_waits_for_its_part", "test_a_commit_to_any_part_wakes_who_waits_for_all"]
)
def test_the_suite_notices_who_is_not_woken(name, monkeypatch):
    monkeypatch.setattr("stateroom.testing.harness.PATIENCE", 0.1)
    assert failing(engine_suite(NeverWakes), name) == {name}
