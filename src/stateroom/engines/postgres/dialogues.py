"""The dialogues of each call with the server, whoever carries them.

A dialogue is a generator: it yields the statements of one round trip, is sent their answers, and returns the result. A
refusal by the server is thrown into it.
"""

import heapq
import os
import struct
from collections.abc import Generator, Iterable, Sequence
from functools import partial
from itertools import islice, takewhile
from typing import TypeVar

from psycopg.pq.abc import PGresult

from stateroom.engine import Batch, Outcome, Range, Row, View, validate
from stateroom.errors import Conflict, InvalidArgument, NotFound, StoreError, Unavailable, UnsupportedFormat
from stateroom.limits import INT64_MAX

from . import function, schema
from .faults import sqlstate, unusable
from .statements import BEGIN, COMMIT, NOT_FLUSHED, ROLLBACK, Statement, Statements, int8, read_array
from .views import statements as view_statements

T = TypeVar("T")
Answers = Sequence[PGresult]
Dialogue = Generator[Sequence[Statement], Answers, T]

_number = struct.Struct("!q").unpack
_OPEN_TRIES = 20
_MERGE_ROWS = 64


class Dialogues:
    """The dialogues for one database."""

    def __init__(self, statements: Statements, where: str, *, flush: bool) -> None:
        self._sql, self._where, self._flush = statements, where, flush
        self.parts = 0
        self.views = 0
        self.function = False
        """True where the database has the function that makes a whole commit, as distributed tables do."""

    def open(self, parts: int | None, create: bool) -> Dialogue[None]:
        """Find out how many parts there are; make or migrate the tables where that is needed and allowed."""
        race: StoreError | None = None
        for _ in range(_OPEN_TRIES):
            meta = yield from self._meta()
            if meta is None:
                if not create:
                    raise NotFound(f"{self._where}: no schema {self._sql.schema!r} with a store in it", kind="database")
                race = yield from self._create(schema.DEFAULT_PARTS if parts is None else parts)
            elif schema.FIRST_FORMAT <= meta["format"] < schema.FORMAT:
                race = yield from self._migrate()
            else:
                self._accept(meta, parts)
                return
        reason = "it has tables of another kind, or is being made over and over" if race is None else race.message
        raise Unavailable(
            f"{self._where}: schema {self._sql.schema!r} could not be made: {reason}. A new store on a cluster is made"
            " through the coordinator's url, and needs a schema of its own"
        ) from race

    def _meta(self) -> Dialogue[dict[str, int] | None]:
        try:
            (answer,) = yield [self._sql.meta()]
        except StoreError as error:
            if sqlstate(error) in schema.ABSENT:
                return None
            raise
        meta = {_bytes(answer, row, 0).decode(): _integer(answer, row, 1) for row in range(answer.ntuples)}
        if not {"format", "parts"} <= meta.keys():
            unusable("the rows that say its format and number of parts are missing", self._where)
        return meta

    def _create(self, parts: int) -> Dialogue[StoreError | None]:
        """Make the tables; return what a creation reports that met another one, or that never can be."""
        if not 1 <= parts <= schema.MOST_PARTS:
            raise InvalidArgument(f"parts is a number from 1 to {schema.MOST_PARTS}", what="parts", value=parts)
        (existing,) = yield [schema.exists(self._sql.schema)]
        try:
            yield [BEGIN, *schema.create(self._sql.schema, parts, schema_exists=existing.ntuples > 0), COMMIT]
        except StoreError as error:
            yield [ROLLBACK]
            if sqlstate(error) not in schema.RACE:
                raise
            return error
        return None

    def _migrate(self) -> Dialogue[StoreError | None]:
        try:
            yield [BEGIN, schema.lock(self._sql.schema)]
            meta = yield from self._meta()
            if meta is not None and meta["format"] < schema.FORMAT:
                yield schema.migrate(self._sql.schema, meta["format"])
            yield [COMMIT]
        except StoreError as error:
            yield [ROLLBACK]
            if sqlstate(error) not in schema.RACE:
                raise
            return error
        return None

    def _accept(self, meta: dict[str, int], parts: int | None) -> None:
        self._check_format(meta["format"])
        if parts is not None and parts != meta["parts"]:
            raise InvalidArgument(
                f"{self._where} was made with {meta['parts']} parts, which is fixed; leave `parts` out",
                what="parts",
                value=parts,
            )
        self.parts = meta["parts"]
        self.views = meta.get("views", 0)
        self.function = meta.get("commit", 0) == function.NUMBER

    def _check_format(self, number: int) -> None:
        if number == schema.FORMAT:
            return
        reason = f"newer than {schema.FORMAT}: use a newer Stateroom"
        if number < schema.FIRST_FORMAT:
            reason = (
                "made before the project's rename, which this version does not read: drop the schema, or name another"
                " one with ?schema="
            )
        raise UnsupportedFormat(f"{self._where}: format {number}, {reason}", found=number, supported=schema.FORMAT)

    def describe(self, number: int, views: Sequence[View]) -> Dialogue[None]:
        """Make the views for people, where those that are there have a lower number."""
        if self.views >= number:
            return
        making = [Statement(text.encode()) for text in view_statements(self._sql.schema, views)]
        try:
            yield [BEGIN, schema.lock(self._sql.schema)]
            meta = yield from self._meta()
            if meta is not None and meta.get("views", 0) < number:
                yield [*making, schema.remember_views(self._sql.schema, number)]
            yield [COMMIT]
        except StoreError as error:
            yield [ROLLBACK]
            if sqlstate(error) not in (*schema.RACE, *schema.NO_RIGHT):
                raise
        self.views = number

    def read(self, part: int, keys: Sequence[bytes]) -> Dialogue[list[Row | None]]:
        """One trip; nothing is asked for no keys."""
        self.check_part(part)
        if not keys:
            return []
        (answer,) = yield [self._sql.read(part, keys)]
        rows = {row.key: row for row in _rows(answer)}
        if b"" in keys and b"" not in rows:
            unusable(f"the row of part {part} is missing", self._where)
        return [rows.get(key) for key in keys]

    def read_many(self, requests: Sequence[tuple[int, Sequence[bytes]]]) -> Dialogue[list[list[Row | None]]]:
        """Do as `read` for each, in one trip."""
        dialogues = [self.read(part, keys) for part, keys in requests]
        return (yield from _at_once(dialogues))

    def scan_many(self, ranges: Sequence[Range]) -> Dialogue[list[list[Row]]]:
        """Do as `scan` for each, in one trip."""
        dialogues = [self.scan(part, start, stop, limit, False) for part, start, stop, limit in ranges]
        return (yield from _at_once(dialogues))

    def scan(self, part: int | None, start: bytes, stop: bytes, limit: int, reverse: bool) -> Dialogue[list[Row]]:
        """One trip for one part; for all of them one trip, and more where one part holds most of the result."""
        if limit < 0:
            raise InvalidArgument("a scan's limit is not negative", what="limit", value=limit)
        if part is None and self.parts > 1:
            return (yield from self._scan_all(start, stop, limit, reverse))
        part = 0 if part is None else part
        self.check_part(part)
        if limit == 0 or start >= stop:
            return []
        (answer,) = yield [self._sql.scan(part, start, stop, limit, reverse)]
        return _rows(answer)

    def _scan_all(self, start: bytes, stop: bytes, limit: int, reverse: bool) -> Dialogue[list[Row]]:
        if limit == 0 or start >= stop:
            return []
        step = min(limit, max(_MERGE_ROWS, 2 * limit // self.parts))
        spans = dict.fromkeys(range(self.parts), (start, stop))
        rows: dict[int, list[Row]] = {part: [] for part in spans}
        frontier: dict[int, bytes] = {}
        while True:
            answers = yield [self._sql.scan(part, *span, step, reverse) for part, span in spans.items()]
            for part, answer in zip(spans, answers, strict=True):
                rows[part] += _rows(answer)
                frontier.pop(part, None)
                if answer.ntuples == step:
                    frontier[part] = rows[part][-1].key
            # A part that gave all it was asked for may hold more, so nothing beyond its last row is certain yet.
            edge = (max if reverse else min)(frontier.values(), default=None)
            merged: Iterable[Row] = heapq.merge(*rows.values(), key=_key, reverse=reverse)
            if edge is not None:
                merged = takewhile(partial(_within, edge, reverse), merged)
            certain = list(islice(merged, limit))
            if edge is None or len(certain) == limit:
                return certain
            step = min(limit, 2 * step)
            short = [part for part, last in frontier.items() if last == edge]
            spans = dict.fromkeys(short, (start, edge) if reverse else (edge + b"\x00", stop))

    def commit(self, part: int, batch: Batch) -> Dialogue[int]:
        """One trip: take the part, check, write, commit. A failed check makes the writes after it do nothing."""
        (outcome,) = yield from self.commit_all(part, [batch])
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def commit_all(self, part: int, batches: Sequence[Batch]) -> Dialogue[list[Outcome]]:
        """One trip for several, in one transaction: a version or a `Conflict` for each."""
        self.check_part(part)
        for batch in batches:
            validate(batch)
            if not all(-INT64_MAX <= amount <= INT64_MAX for amount in batch.add.values()):
                raise InvalidArgument("a counter went beyond 64 bits", what="counter")
        if self.function and all(map(function.fits, batches)):
            return (yield from self._commit_by_function(part, batches))
        statements = [BEGIN] if self._flush else [BEGIN, NOT_FLUSHED]
        places: list[int] = []
        for batch in batches:
            writer = os.urandom(8)
            places.append(len(statements))
            statements.append(self._sql.take(part, writer))
            if batch.expect:
                statements.append(self._sql.check(part, writer, list(batch.expect), _versions(batch)))
            statements += self._writes(part, batch, writer)
        statements.append(COMMIT)
        answers = yield statements
        outcomes: list[Outcome] = []
        for batch, place in zip(batches, places, strict=True):
            taken = answers[place]
            if not taken.ntuples:
                unusable(f"the row of part {part} is missing", self._where)
            if batch.expect and (refused := answers[place + 1]).ntuples:
                outcomes.append(_conflict(part, batch, _bytes(refused, 0, 0), _integer(refused, 0, 2)))
            else:
                outcomes.append(_integer(taken, 0, 0))
        return outcomes

    def _commit_by_function(self, part: int, batches: Sequence[Batch]) -> Dialogue[list[Outcome]]:
        """Make one call where a cluster would otherwise send each statement on by itself.

        Between BEGIN and COMMIT, so that an error of the call is certain: called alone it would commit, too.
        """
        call = function.call(self._sql.schema, part, batches, flush=self._flush)
        _, answer, _ = yield [BEGIN, call, COMMIT]
        versions, keys, actual = (read_array(answer.get_value(0, column)) for column in range(3))
        if not versions and not keys:
            unusable(f"the row of part {part} is missing", self._where)
        return [
            _number(versions[index])[0]
            if index in versions
            else _conflict(part, batch, keys[index], _number(actual[index])[0])
            for index, batch in enumerate(batches, 1)
        ]

    def _writes(self, part: int, batch: Batch, writer: bytes) -> list[Statement]:
        """In the batch's order: clear, write, add, append; the last three in one statement unless they share a key."""
        sql = self._sql
        statements = [sql.clear(part, writer, start, stop) for start, stop in batch.clear]
        gone = [key for key, value in batch.write.items() if value is None]
        if gone:
            statements.append(sql.remove(part, writer, gone))
        rows = [(key, value, -1) for key, value in batch.write.items() if value is not None]
        adds = [(key, int8(amount), -1) for key, amount in batch.add.items()]
        last = [(prefix, value, index) for index, (prefix, value) in enumerate(batch.append)]
        counters = list(batch.add)
        groups = [(rows, []), (adds, counters), (last, [])] if _share_a_key(batch) else [(rows + adds + last, counters)]
        return statements + [sql.put(part, writer, group, counted) for group, counted in groups if group]

    def versions(self, parts: Sequence[int]) -> Dialogue[dict[int, int]]:
        """The versions of some parts, in one statement."""
        if len(parts) == 1:
            (answer,) = yield [self._sql.read(parts[0], [b""])]
            return {parts[0]: _integer(answer, 0, 2) if answer.ntuples else 0}
        (answer,) = yield [self._sql.versions()]
        return {_integer(answer, row, 0): _integer(answer, row, 1) for row in range(answer.ntuples)}

    def size(self) -> Dialogue[int]:
        """The bytes on disk."""
        (answer,) = yield [self._sql.size(distributed=self.function)]
        return _integer(answer, 0, 0)

    def notify(self, versions: dict[int, int]) -> Dialogue[None]:
        """Tell whoever listens how far some parts are."""
        hint = " ".join(f"{part}:{version}" for part, version in versions.items())
        yield [BEGIN, NOT_FLUSHED, self._sql.notify(hint), COMMIT]  # a hint need not wait for the disk

    def ping(self, channel: str) -> Dialogue[None]:
        """Say something on a channel of one listener, which then knows that it hears."""
        yield [BEGIN, NOT_FLUSHED, self._sql.notify("", channel), COMMIT]

    def check_part(self, part: int) -> None:
        """Raise `InvalidArgument` for a part that does not exist."""
        if not 0 <= part < self.parts:
            raise InvalidArgument(f"part {part} of {self.parts}", what="part", value=part)


def _at_once(dialogues: Sequence[Dialogue[T]]) -> Dialogue[list[T]]:
    """Hold dialogues of one statement each in one round trip; return their results."""
    statements: list[Statement] = []
    asking: list[tuple[int, Dialogue[T]]] = []
    results: dict[int, T] = {}
    for index, dialogue in enumerate(dialogues):
        try:
            statements += next(dialogue)
            asking.append((index, dialogue))
        except StopIteration as done:  # nothing to ask for
            results[index] = done.value
    answers: Answers = (yield statements) if statements else ()
    for answer, (index, dialogue) in zip(answers, asking, strict=True):
        try:
            dialogue.send([answer])
        except StopIteration as done:
            results[index] = done.value
    return [results[index] for index in range(len(dialogues))]


def _versions(batch: Batch) -> list[int]:
    """The versions that a batch expects, those that no row can have within what the server can compare."""
    return [min(max(version, -1), INT64_MAX) for version in batch.expect.values()]


def _conflict(part: int, batch: Batch, key: bytes, actual: int) -> Conflict:
    expected = batch.expect[key]
    return Conflict(
        f"part {part}, key {key!r}: version {actual} where {expected} was expected; read again and retry",
        key=key,
        expected=expected,
        actual=actual,
    )


def _share_a_key(batch: Batch) -> bool:
    """Return whether an add, or an append of any version, may meet a key that the batch also writes otherwise."""
    if not batch.write.keys().isdisjoint(batch.add):
        return True
    prefixes = {prefix for prefix, _ in batch.append}
    return bool(prefixes) and not prefixes.isdisjoint(key[:-10] for key in (*batch.write, *batch.add))


def _within(edge: bytes, reverse: bool, row: Row) -> bool:
    return row.key >= edge if reverse else row.key <= edge


def _key(row: Row) -> bytes:
    return row.key


def _bytes(answer: PGresult, row: int, column: int) -> bytes:
    return answer.get_value(row, column) or b""


def _integer(answer: PGresult, row: int, column: int) -> int:
    return int.from_bytes(_bytes(answer, row, column), "big", signed=True)


def _rows(answer: PGresult) -> list[Row]:
    get, number = answer.get_value, _number
    return [Row(get(row, 0) or b"", get(row, 1) or b"", number(get(row, 2) or b"")[0]) for row in range(answer.ntuples)]
