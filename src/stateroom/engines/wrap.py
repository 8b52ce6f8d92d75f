"""Engines over engines: to make one fail, interfere, count or report, in tests and for telemetry.

Each takes any blocking engine, offers `submit` where that engine does, and hands every other attribute (`backup`,
`verify`, ...) through. They can be stacked.
"""

import time
from collections.abc import Callable, Collection, Sequence
from itertools import count
from typing import Any, NamedTuple, TypeVar

from ..engine import HANDED_THROUGH, Batch, Engine, Gathering, Outcome, Range, Row, Submitting, validate
from ..errors import Conflict, OutcomeUnknown, StoreError, Unavailable

T = TypeVar("T")
MANY = ("read_many", "scan_many")
READS = ("read", "scan", *MANY)
Done = Callable[[Outcome], None]


class Asked(NamedTuple):
    """A call: its method, its part (None: all, or none), and its other arguments."""

    name: str
    part: int | None
    what: Any = None


class Wrapper:
    """Hands everything through. A subclass overrides `_call` and `_submit`, or single methods."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        """The engine underneath."""
        if isinstance(engine, Submitting):
            # An attribute of the instance: since Python 3.12 `isinstance` with a protocol ignores `__getattr__`.
            self.submit = self._submit
        if isinstance(engine, Gathering):
            self.read_many, self.scan_many = self._read_many, self._scan_many
        for name in HANDED_THROUGH:
            if hasattr(engine, name):
                self.__dict__[name] = getattr(engine, name)

    def __getattr__(self, name: str) -> Any:
        # `blocks` is not handed through: what a subclass does in a call may well block.
        if name.startswith("_") or name in ("engine", "submit", "read_many", "scan_many", "blocks"):
            raise AttributeError(f"{type(self).__name__} has no {name!r}")
        return getattr(self.engine, name)

    @property
    def parts(self) -> int:
        return self.engine.parts

    def read(self, part: int, keys: Sequence[bytes], /) -> list[Row | None]:
        return self._call(Asked("read", part, keys), lambda: self.engine.read(part, keys))

    def scan(self, part: int | None, start: bytes, stop: bytes, /, *, limit: int, reverse: bool = False) -> list[Row]:
        request = Asked("scan", part, (start, stop, limit, reverse))
        return self._call(request, lambda: self.engine.scan(part, start, stop, limit=limit, reverse=reverse))

    def _read_many(self, requests: Sequence[tuple[int, Sequence[bytes]]], /) -> list[list[Row | None]]:
        return self._call(Asked("read_many", None, requests), lambda: _gathering(self.engine).read_many(requests))

    def _scan_many(self, ranges: Sequence[Range], /) -> list[list[Row]]:
        return self._call(Asked("scan_many", None, ranges), lambda: _gathering(self.engine).scan_many(ranges))

    def commit(self, part: int, batch: Batch, /) -> int:
        return self._call(Asked("commit", part, batch), lambda: self.engine.commit(part, batch))

    def wait(self, part: int | None, version: int, timeout: float, /) -> None:
        self._call(Asked("wait", part, (version, timeout)), lambda: self.engine.wait(part, version, timeout))

    def close(self) -> None:
        self._call(Asked("close", None), self.engine.close)

    def _call(self, _request: Asked, run: Callable[[], T], /) -> T:
        """Every call comes through here, with what carries it out."""
        return run()

    def _submit(self, part: int, batch: Batch, done: Done, /) -> None:
        _submitting(self.engine).submit(part, batch, done)


def _submitting(engine: Any) -> Submitting:
    submitting: Submitting = engine
    return submitting


def _gathering(engine: Any) -> Gathering:
    gathering: Gathering = engine
    return gathering


class Faulty(Wrapper):
    """Fails at the n-th call.

    `after`: the number of the first call that fails, from 1. `once`: that one only, else all later ones too.
    `lost`: the call is carried out and then fails (a commit with `OutcomeUnknown`), else it does nothing.
    `error`: what is raised instead of `Unavailable` or `OutcomeUnknown`. `calls`: the methods that count and fail; a
    submitted batch counts as ``"commit"``. `close` fails only when it is named.
    """

    def __init__(
        self,
        engine: Engine,
        after: int = 1,
        *,
        error: Exception | None = None,
        once: bool = False,
        lost: bool = False,
        calls: Collection[str] = ("read", "scan", "commit", "wait", *MANY),
    ) -> None:
        super().__init__(engine)
        self.after, self.error, self.once, self.lost, self.counted = after, error, once, lost, calls
        self.count = 0
        """Calls so far that counted."""
        self._numbers = count(1)

    def heal(self) -> None:
        """No call fails from now on."""
        self.counted = ()

    def _failure(self, name: str) -> Exception | None:
        if name not in self.counted:
            return None
        self.count = number = next(self._numbers)
        if number < self.after or (self.once and number > self.after):
            return None
        if self.error is not None:
            return self.error
        if self.lost and name == "commit":
            return OutcomeUnknown("made to fail: the commit was carried out, its answer was lost")
        return Unavailable(f"made to fail: {name}, call {number}", tried=())

    def _call(self, request: Asked, run: Callable[[], T], /) -> T:
        failure = self._failure(request.name)
        if failure is None:
            return run()
        if self.lost:
            run()
        raise failure

    def _submit(self, part: int, batch: Batch, done: Done, /) -> None:
        failure = self._failure("commit")
        if failure is not None and not self.lost:
            done(failure)
        else:
            super()._submit(part, batch, done if failure is None else lambda _: done(failure))


class Conflicting(Wrapper):
    """Lets commits meet somebody else's.

    `refuse(number, part, batch)`: true makes the number-th commit (from 1) raise `Conflict` without being tried.
    `interfere(number, part, batch)`: is called before the commit, as another client's turn: the Batch it returns is
    committed to the same part first; None: nothing, or it has done what it wanted by itself (on the engine below).
    """

    def __init__(
        self,
        engine: Engine,
        *,
        refuse: Callable[[int, int, Batch], bool] | None = None,
        interfere: Callable[[int, int, Batch], Batch | None] | None = None,
    ) -> None:
        super().__init__(engine)
        self.refuse, self.interfere = refuse, interfere
        self.count = 0
        """Commits so far, refused ones included."""
        self._numbers = count(1)

    def _turn(self, part: int, batch: Batch) -> Conflict | None:
        self.count = number = next(self._numbers)
        if self.refuse is not None and self.refuse(number, part, batch):
            key, expected = next(iter(batch.expect.items()), (None, None))
            return Conflict(f"made to conflict: commit {number}", key=key, expected=expected, actual=None)
        interference = None if self.interfere is None else self.interfere(number, part, batch)
        if interference is not None:
            self.engine.commit(part, interference)
        return None

    def commit(self, part: int, batch: Batch, /) -> int:
        conflict = self._turn(part, batch)
        if conflict is not None:
            raise conflict
        return self.engine.commit(part, batch)

    def _submit(self, part: int, batch: Batch, done: Done, /) -> None:
        conflict = self._turn(part, batch)
        if conflict is not None:
            done(conflict)
        else:
            super()._submit(part, batch, done)


class Slow(Wrapper):
    """Calls `before(name, part)` before each call: it may sleep, block, or let other threads run."""

    def __init__(self, engine: Engine, before: Callable[[str, int | None], None]) -> None:
        super().__init__(engine)
        self.before = before

    def _call(self, request: Asked, run: Callable[[], T], /) -> T:
        self.before(request.name, request.part)
        return run()

    def _submit(self, part: int, batch: Batch, done: Done, /) -> None:
        self.before("commit", part)
        super()._submit(part, batch, done)


class Call(NamedTuple):
    """A call that came back: its method, part, other arguments, and what it gave or raised."""

    name: str
    part: int | None
    what: Any
    outcome: Any


class Recording(Wrapper):
    """Keeps a list of the calls, in the order they came back, and counts them."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.calls: list[Call] = []

    def clear(self) -> None:
        """Forget the calls so far."""
        self.calls.clear()

    def count(self, name: str) -> int:
        """How many calls there were of one method."""
        return sum(call.name == name for call in self.calls)

    @property
    def reads(self) -> int:
        """Calls of `read`, `scan`, `read_many` and `scan_many`: round trips, where there is a network."""
        return sum(call.name in READS for call in self.calls)

    @property
    def rows(self) -> int:
        """Rows that reads and scans gave."""
        answers = [
            call.outcome for call in self.calls if call.name in ("read", "scan") and isinstance(call.outcome, list)
        ]
        for call in self.calls:
            if call.name in MANY and isinstance(call.outcome, list):
                answers += call.outcome
        return sum(row is not None for rows in answers for row in rows)

    @property
    def commits(self) -> int:
        """Commits that were carried out, submitted ones included."""
        return sum(call.name == "commit" and isinstance(call.outcome, int) for call in self.calls)

    @property
    def batches(self) -> list[Batch]:
        """The batches of those commits."""
        return [call.what for call in self.calls if call.name == "commit" and isinstance(call.outcome, int)]

    def _call(self, request: Asked, run: Callable[[], T], /) -> T:
        try:
            outcome = run()
        except BaseException as error:
            self.calls.append(Call(*request, error))
            raise
        self.calls.append(Call(*request, outcome))
        return outcome

    def _submit(self, part: int, batch: Batch, done: Done, /) -> None:
        def recorded(outcome: Outcome) -> None:
            self.calls.append(Call("commit", part, batch, outcome))
            done(outcome)

        super()._submit(part, batch, recorded)


class Span(NamedTuple):
    """A call that has ended: its method, part, start (of the clock given), length in seconds, and error if any."""

    name: str
    part: int | None
    start: float
    seconds: float
    error: BaseException | None


class Traced(Wrapper):
    """Calls `span(Span)` after each call, in its thread (a submitted one's: where its outcome arrives).

    What `span` raises comes out of the call, so it should not.
    """

    def __init__(
        self, engine: Engine, span: Callable[[Span], object], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(engine)
        self.span, self.clock = span, clock

    def _call(self, request: Asked, run: Callable[[], T], /) -> T:
        start = self.clock()
        try:
            outcome = run()
        except BaseException as error:
            self.span(Span(request.name, request.part, start, self.clock() - start, error))
            raise
        self.span(Span(request.name, request.part, start, self.clock() - start, None))
        return outcome

    def _submit(self, part: int, batch: Batch, done: Done, /) -> None:
        start = self.clock()

        def ended(outcome: Outcome) -> None:
            error = outcome if isinstance(outcome, BaseException) else None
            self.span(Span("commit", part, start, self.clock() - start, error))
            done(outcome)

        super()._submit(part, batch, ended)


class Prefixed(Wrapper):
    """Puts `prefix` before every key, and shows none of it: several may share an engine, but for versions.

    A key may be shorter by the prefix than the limit, and a batch by one prefix per key.
    """

    def __init__(self, engine: Engine, prefix: bytes) -> None:
        super().__init__(engine)
        self.prefix = prefix
        for name in MANY:
            self.__dict__.pop(name, None)  # part by part, then: `read` and `scan` know the prefix

    def read(self, part: int, keys: Sequence[bytes], /) -> list[Row | None]:
        # b"" asks for the part's version, which is no row of anybody.
        prefixed = [self.prefix + key if key else key for key in keys]
        return [row and self._bare(row) for row in self.engine.read(part, prefixed)]

    def scan(self, part: int | None, start: bytes, stop: bytes, /, *, limit: int, reverse: bool = False) -> list[Row]:
        rows = self.engine.scan(part, self.prefix + start, self.prefix + stop, limit=limit, reverse=reverse)
        return [self._bare(row) for row in rows]

    def commit(self, part: int, batch: Batch, /) -> int:
        try:
            return self.engine.commit(part, self._prefixed(batch))
        except StoreError as error:
            raise self._bare_error(error) from error

    def _submit(self, part: int, batch: Batch, done: Done, /) -> None:
        def bare(outcome: Outcome) -> None:
            done(self._bare_error(outcome) if isinstance(outcome, StoreError) else outcome)

        try:
            prefixed = self._prefixed(batch)
        except StoreError as error:
            done(error)
        else:
            super()._submit(part, prefixed, bare)

    def _prefixed(self, batch: Batch) -> Batch:
        validate(batch)  # before an empty key becomes a valid one
        prefix = self.prefix
        return Batch(
            expect={prefix + key: version for key, version in batch.expect.items()},
            write={prefix + key: value for key, value in batch.write.items()},
            add={prefix + key: amount for key, amount in batch.add.items()},
            append=[(prefix + name, value) for name, value in batch.append],
            clear=[(prefix + start, prefix + stop) for start, stop in batch.clear],
        )

    def _bare(self, row: Row) -> Row:
        return row._replace(key=row.key.removeprefix(self.prefix))

    def _bare_error(self, error: StoreError) -> StoreError:
        bare = {
            name: value.removeprefix(self.prefix) if isinstance(value, bytes) else value
            for name, value in error.fields.items()
        }
        return type(error)(error.message.replace(repr(self.prefix)[2:-1], ""), **bare)
