"""What each call says to the server and makes of the answers, whoever carries it: the logic both engines share.

A plan is a generator: it yields the statements of one round trip, is sent their answers, and returns the result. A
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

from stateroom.engine import Batch, Outcome, Range, Row, validate
from stateroom.errors import Conflict, InvalidArgument, NotFound, StoreError, Unavailable, UnsupportedFormat
from stateroom.limits import INT64_MAX

from . import schema
from .faults import sqlstate, unusable
from .statements import BEGIN, COMMIT, NOT_FLUSHED, ROLLBACK, Statement, Statements, int8
from .views import View
from .views import statements as view_statements

T = TypeVar("T")
Answers = Sequence[PGresult]
Plan = Generator[Sequence[Statement], Answers, T]

_number = struct.Struct("!q").unpack
_OPEN_TRIES = 20
_MERGE_ROWS = 64


class Plans:
    """The plans for one database."""

    def __init__(self, statements: Statements, where: str, *, flush: bool) -> None:
        self._sql, self._where, self._flush = statements, where, flush
        self.parts = 0
        self.views = 0

    def open(self, wanted: int | None, create: bool) -> Plan[None]:
        """Find out how many parts there are; make or migrate the tables where that is needed and allowed."""
        for _ in range(_OPEN_TRIES):
            known = yield from self._meta()
            if known is None:
                if not create:
                    raise NotFound(f"{self._where}: no schema {self._sql.schema!r} with a store in it", kind="database")
                yield from self._create(schema.DEFAULT_PARTS if wanted is None else wanted)
            elif known["format"] < schema.FORMAT:
                yield from self._migrate()
            else:
                self._accept(known, wanted)
                return
        raise Unavailable(
            f"{self._where}: schema {self._sql.schema!r} has tables of another kind, or is being made over and over"
        )

    def _meta(self) -> Plan[dict[str, int] | None]:
        try:
            (answer,) = yield [self._sql.meta()]
        except StoreError as error:
            if sqlstate(error) in schema.ABSENT:
                return None
            raise
        known = {_bytes(answer, row, 0).decode(): _integer(answer, row, 1) for row in range(answer.ntuples)}
        if not {"format", "parts"} <= known.keys():
            unusable("the rows that say its format and number of parts are missing", self._where)
        return known

    def _create(self, parts: int) -> Plan[None]:
        if not 1 <= parts <= schema.MOST_PARTS:
            raise InvalidArgument(f"parts is a number from 1 to {schema.MOST_PARTS}", what="parts", value=parts)
        (there,) = yield [schema.exists(self._sql.schema)]
        try:
            yield [BEGIN, *schema.create(self._sql.schema, parts, schema_exists=there.ntuples > 0), COMMIT]
        except StoreError as error:
            yield [ROLLBACK]
            if sqlstate(error) not in schema.RACE:
                raise

    def _migrate(self) -> Plan[None]:
        try:
            yield [BEGIN, schema.lock(self._sql.schema)]
            known = yield from self._meta()
            if known is not None and known["format"] < schema.FORMAT:
                yield schema.migrate(self._sql.schema, known["format"])
            yield [COMMIT]
        except StoreError as error:
            yield [ROLLBACK]
            if sqlstate(error) not in schema.RACE:
                raise

    def _accept(self, known: dict[str, int], wanted: int | None) -> None:
        if known["format"] > schema.FORMAT:
            raise UnsupportedFormat(
                f"{self._where}: format {known['format']}, newer than {schema.FORMAT}: use a newer Stateroom",
                found=known["format"],
                supported=schema.FORMAT,
            )
        if wanted is not None and wanted != known["parts"]:
            raise InvalidArgument(
                f"{self._where} was made with {known['parts']} parts, which is fixed; leave `parts` out",
                what="parts",
                value=wanted,
            )
        self.parts = known["parts"]
        self.views = known.get("views", 0)

    def describe(self, number: int, views: Sequence[View]) -> Plan[None]:
        """Make the views for people, where those that are there have a lower number."""
        if self.views >= number:
            return
        made = [Statement(text.encode()) for text in view_statements(self._sql.schema, views)]
        try:
            yield [BEGIN, schema.lock(self._sql.schema)]
            known = yield from self._meta()
            if known is not None and known.get("views", 0) < number:
                yield [*made, schema.remember_views(self._sql.schema, number)]
            yield [COMMIT]
        except StoreError as error:
            yield [ROLLBACK]
            if sqlstate(error) not in (*schema.RACE, *schema.NO_RIGHT):
                raise
        self.views = number

    def read(self, part: int, keys: Sequence[bytes]) -> Plan[list[Row | None]]:
        """One trip; nothing is asked for no keys."""
        self.check_part(part)
        if not keys:
            return []
        (answer,) = yield [self._sql.read(part, keys)]
        found = {row.key: row for row in _rows(answer)}
        if b"" in keys and b"" not in found:
            unusable(f"the row of part {part} is missing", self._where)
        return [found.get(key) for key in keys]

    def read_many(self, requests: Sequence[tuple[int, Sequence[bytes]]]) -> Plan[list[list[Row | None]]]:
        """As `read` of each, in one trip."""
        plans = [self.read(part, keys) for part, keys in requests]
        return (yield from _at_once(plans))

    def scan_many(self, ranges: Sequence[Range]) -> Plan[list[list[Row]]]:
        """As `scan` of each, in one trip."""
        plans = [self.scan(part, start, stop, limit, False) for part, start, stop, limit in ranges]
        return (yield from _at_once(plans))

    def scan(self, part: int | None, start: bytes, stop: bytes, limit: int, reverse: bool) -> Plan[list[Row]]:
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

    def _scan_all(self, start: bytes, stop: bytes, limit: int, reverse: bool) -> Plan[list[Row]]:
        if limit == 0 or start >= stop:
            return []
        step = min(limit, max(_MERGE_ROWS, 2 * limit // self.parts))
        todo = dict.fromkeys(range(self.parts), (start, stop))
        held: dict[int, list[Row]] = {part: [] for part in todo}
        frontier: dict[int, bytes] = {}
        while True:
            answers = yield [self._sql.scan(part, *span, step, reverse) for part, span in todo.items()]
            for part, answer in zip(todo, answers, strict=True):
                held[part] += _rows(answer)
                frontier.pop(part, None)
                if answer.ntuples == step:
                    frontier[part] = held[part][-1].key
            # A part that gave all it was asked for may hold more, so nothing beyond its last row is certain yet.
            edge = (max if reverse else min)(frontier.values(), default=None)
            merged: Iterable[Row] = heapq.merge(*held.values(), key=_key, reverse=reverse)
            if edge is not None:
                merged = takewhile(partial(_within, edge, reverse), merged)
            certain = list(islice(merged, limit))
            if edge is None or len(certain) == limit:
                return certain
            step = min(limit, 2 * step)
            short = [part for part, last in frontier.items() if last == edge]
            todo = dict.fromkeys(short, (start, edge) if reverse else (edge + b"\x00", stop))

    def commit(self, part: int, batch: Batch) -> Plan[int]:
        """One trip: take the part, check, write, commit. A failed check makes the writes after it do nothing."""
        (outcome,) = yield from self.commit_all(part, [batch])
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def commit_all(self, part: int, batches: Sequence[Batch]) -> Plan[list[Outcome]]:
        """One trip for several, in one transaction: a version or a `Conflict` for each."""
        self.check_part(part)
        statements = [BEGIN] if self._flush else [BEGIN, NOT_FLUSHED]
        places: list[int] = []
        for batch in batches:
            validate(batch)
            writer = os.urandom(8)
            places.append(len(statements))
            statements.append(self._sql.take(part, writer))
            if batch.expect:
                versions = [min(max(version, -1), INT64_MAX) for version in batch.expect.values()]
                statements.append(self._sql.check(part, writer, list(batch.expect), versions))
            statements += self._writes(part, batch, writer)
        statements.append(COMMIT)
        answers = yield statements
        outcomes: list[Outcome] = []
        for batch, place in zip(batches, places, strict=True):
            took = answers[place]
            if not took.ntuples:
                unusable(f"the row of part {part} is missing", self._where)
            refused = bool(batch.expect) and answers[place + 1].ntuples
            outcomes.append(self._conflict(part, batch, answers[place + 1]) if refused else _integer(took, 0, 0))
        return outcomes

    def _writes(self, part: int, batch: Batch, writer: bytes) -> list[Statement]:
        """In the batch's order: clear, write, add, append; the last three in one statement unless they share a key."""
        sql = self._sql
        statements = [sql.clear(part, writer, start, stop) for start, stop in batch.clear]
        gone = [key for key, value in batch.write.items() if value is None]
        if gone:
            statements.append(sql.remove(part, writer, gone))
        if not all(-INT64_MAX <= amount <= INT64_MAX for amount in batch.add.values()):
            raise InvalidArgument("a counter went beyond 64 bits", what="counter")
        rows = [(key, value, -1) for key, value in batch.write.items() if value is not None]
        adds = [(key, int8(amount), -1) for key, amount in batch.add.items()]
        last = [(prefix, value, index) for index, (prefix, value) in enumerate(batch.append)]
        counters = list(batch.add)
        groups = [(rows, []), (adds, counters), (last, [])] if _share_a_key(batch) else [(rows + adds + last, counters)]
        return statements + [sql.put(part, writer, group, counted) for group, counted in groups if group]

    def _conflict(self, part: int, batch: Batch, answer: PGresult) -> Conflict:
        key, actual = _bytes(answer, 0, 0), _integer(answer, 0, 2)
        expected = batch.expect[key]
        return Conflict(
            f"part {part}, key {key!r}: version {actual} where {expected} was expected; read again and retry",
            key=key,
            expected=expected,
            actual=actual,
        )

    def versions(self, parts: Sequence[int]) -> Plan[dict[int, int]]:
        """The versions of some parts, in one trip."""
        answers = yield [self._sql.read(part, [b""]) for part in parts]
        return {
            part: _integer(answer, 0, 2) if answer.ntuples else 0 for part, answer in zip(parts, answers, strict=True)
        }

    def notify(self, versions: dict[int, int]) -> Plan[None]:
        """Tell whoever listens how far some parts are."""
        hint = " ".join(f"{part}:{version}" for part, version in versions.items())
        yield [BEGIN, NOT_FLUSHED, self._sql.notify(hint), COMMIT]  # a hint need not wait for the disk

    def check_part(self, part: int) -> None:
        """Raise `InvalidArgument` for a part that does not exist."""
        if not 0 <= part < self.parts:
            raise InvalidArgument(f"part {part} of {self.parts}", what="part", value=part)


def _at_once(plans: Sequence[Plan[T]]) -> Plan[list[T]]:
    """The results of plans that say one thing each, all said together."""
    said: list[Statement] = []
    asked: list[tuple[int, Plan[T]]] = []
    results: dict[int, T] = {}
    for index, plan in enumerate(plans):
        try:
            said += next(plan)
            asked.append((index, plan))
        except StopIteration as done:  # nothing to ask for
            results[index] = done.value
    answers: Answers = (yield said) if said else ()
    for answer, (index, plan) in zip(answers, asked, strict=True):
        try:
            plan.send([answer])
        except StopIteration as done:
            results[index] = done.value
    return [results[index] for index in range(len(plans))]


def _share_a_key(batch: Batch) -> bool:
    """Whether an add, or an append under any version, may meet a key that the batch also writes in another way."""
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
