"""The common part of the suites: a fresh engine per test, calls that must come back, threads whose errors are not
lost.
"""

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol, TypeVar

import pytest

from ..engine import Batch, Engine, Outcome, Row
from ..errors import StoreError

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds after which a call that should have come back counts as hanging. Never waited for when all is well."""
FOREVER = 600.0
"""A timeout that a test must not reach."""
LAST = b"\xff" * 16
"""Above every key the suite uses."""


class Factory(Protocol):
    """Makes a fresh, empty engine at each call.

    It may also have ``reopen(engine)``: the same database opened anew after `engine` was closed (an engine that keeps
    nothing leaves it out); ``destroy(engine)``: called at the end, after `close`; and ``overhead``: the bytes that it
    adds to every key by itself, by which the limits are smaller (0).
    """

    def __call__(self) -> Any: ...


class EngineTests:
    """The base of every group of tests; `engine_suite` puts the factory in."""

    factory: ClassVar[Any]

    @pytest.fixture
    def engine(self) -> Iterator[Engine]:
        with self.fresh() as engine:
            yield engine

    @contextmanager
    def fresh(self) -> Iterator[Engine]:
        engine = self.factory()
        try:
            yield engine
        finally:
            self.release(engine)

    def release(self, engine: Engine) -> None:
        engine.close()
        destroy = getattr(self.factory, "destroy", None)
        if destroy is not None:
            destroy(engine)

    @property
    def overhead(self) -> int:
        return int(getattr(self.factory, "overhead", 0))


def fixed(factory: Any) -> Any:
    """`factory` as a class attribute that is not taken for a method."""
    return staticmethod(factory) if inspect.isfunction(factory) else factory


def put(engine: Engine, **rows: bytes) -> int:
    """Write rows to part 0 under the names given."""
    return engine.commit(0, Batch(write={name.encode(): value for name, value in rows.items()}))


def version_of(engine: Engine, part: int = 0) -> int:
    """The part's version."""
    row = engine.read(part, [b""])[0]
    assert row is not None, "read of b'' gave no row"
    return row.version


def everything(engine: Engine, part: int = 0) -> list[Row]:
    """All rows of a part that the suite may have written."""
    return engine.scan(part, b"", LAST, limit=100_000)


def value_of(engine: Engine, key: bytes, part: int = 0) -> bytes | None:
    """The value under a key, None where there is none."""
    row = engine.read(part, [key])[0]
    return None if row is None else row.value


@contextmanager
def nothing_changes(engine: Engine, part: int = 0) -> Iterator[None]:
    """The rows and the version of the part are the same afterwards."""
    before = version_of(engine, part), everything(engine, part)
    yield
    assert (version_of(engine, part), everything(engine, part)) == before


class Running:
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._outcome: list[tuple[Any, BaseException | None]] = []
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome.append((self._call(), None))
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            self._outcome.append((None, error))

    def result(self) -> Any:
        """Return what it gave or raised; it has to come back."""
        self._thread.join(PATIENCE)
        assert self._outcome, f"a call has not come back after {PATIENCE} seconds"
        value, error = self._outcome[0]
        if error is not None:
            raise error
        return value


def at_once(calls: int, call: Callable[[int], T]) -> list[T | StoreError]:
    """``call(0)``, ``call(1)``, ... in threads that start together; refusals are given, other errors raised."""
    barrier = threading.Barrier(calls)

    def started(number: int) -> T | StoreError:
        barrier.wait(PATIENCE)
        try:
            return call(number)
        except StoreError as error:
            return error

    running = [Running(lambda number=number: started(number)) for number in range(calls)]  # type: ignore[misc]
    return [thread.result() for thread in running]


def submitted(engine: Any, part: int, batch: Batch) -> Outcome:
    """Return what `done` was given; or what `submit` raised at once."""
    outcomes: list[Outcome] = []
    arrived = threading.Event()

    def done(outcome: Outcome) -> None:
        outcomes.append(outcome)
        arrived.set()

    try:
        engine.submit(part, batch, done)
    except StoreError as error:
        assert not outcomes, "submit both raised and called done"
        return error
    assert arrived.wait(PATIENCE), f"done was not called within {PATIENCE} seconds"
    assert len(outcomes) == 1, "done was called more than once"
    return outcomes[0]
