"""What a signal handler raises while a value is encoded or decoded reaches the caller, whatever its class."""

import dataclasses
import gc
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from stateroom.codec import Codec, Raw
from stateroom.errors import InvalidArgument, Undecodable


class Limit(Exception):
    """A time limit, as alarms and task queues raise them."""


class Badly(ValueError):
    """One of a class that code catches for reasons of its own."""


class Typed(TypeError):
    """The class that ormsgpack says everything with."""


@dataclasses.dataclass
class Point:
    x: int
    y: Any = None


CLASSES = [Limit, Badly, Typed, KeyboardInterrupt, SystemExit, RecursionError, InvalidArgument]
VALUES: dict[str, Any] = {
    "tuples": [(at, at) for at in range(6_000)],
    "objects": [Point(at, (at,)) for at in range(2_000)],
    "times": [datetime(2026, 1, 1, tzinfo=UTC)] * 6_000,
    "keys": [{at: {(at,): at}} for at in range(2_000)],
    "bytes": [bytes([0xC4]) * 3, *[(b"\xc4\xc4", at) for at in range(4_000)]],
}
TRIES = 8


@pytest.fixture
def alarm() -> Iterator[Callable[[Any, float, Callable[[], Any]], BaseException | None]]:
    """Run something, with a handler that raises after so many seconds; gives what was raised, None where it ended."""
    before = signal.getsignal(signal.SIGALRM)

    armed: list[Any] = []

    def fire(why: str, *_: Any) -> None:
        if armed:
            raise armed.pop()(why)

    def run(kind: Any, seconds: float, work: Callable[[], Any]) -> BaseException | None:
        signal.signal(signal.SIGALRM, partial(fire, "time is up"))
        armed.append(kind)
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            work()
            armed.clear()
        except BaseException as error:  # noqa: BLE001 - what it was is what the test is about
            return error
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return None

    gc.collect()
    gc.disable()  # what a finalizer raises is Python's to report, and other tests leave some behind
    yield run
    gc.enable()
    signal.signal(signal.SIGALRM, before)


def outcomes(alarm: Any, kind: Any, work: Callable[[], Any]) -> list[BaseException]:
    """What was raised at many moments of the work; a run that ended before the alarm does not count."""
    found: list[BaseException] = []
    seconds = 0.004
    for _ in range(TRIES):
        error = alarm(kind, seconds, work)
        if error is None:
            seconds *= 0.7
        else:
            found.append(error)
            seconds *= 1.05
    return found


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("name", VALUES)
def test_encoding_that_is_interrupted(alarm: Any, kind: Any, name: str) -> None:
    one = Codec()
    one.register(Point, name="point")
    raised = outcomes(alarm, kind, lambda: one.encode(VALUES[name]))
    assert raised
    assert {type(error) for error in raised} == {kind}
    assert all("time is up" in str(error) for error in raised)
    assert one.decode(one.encode(VALUES[name][:5])) == VALUES[name][:5]


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("limit", [1000, 5000], ids=["usual", "raised recursion limit"])
@pytest.mark.parametrize(("known", "raw"), [(True, False), (True, True), (False, True)])
def test_decoding_that_is_interrupted(alarm: Any, kind: Any, raw: bool, limit: int, known: bool) -> None:
    one, other = Codec(), Codec()
    one.register(Point, name="point")
    if known:
        other.register(Point, name="point")
    data = one.encode([VALUES["objects"][:2000], VALUES["tuples"][:2000]])
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(limit)
    try:
        raised = outcomes(alarm, kind, lambda: other.decode(data, raw=raw))
    finally:
        sys.setrecursionlimit(before)
    assert raised
    assert {type(error) for error in raised} == {kind}


class Tracer:
    """Raises at the n-th step of Python in a callback of ormsgpack, its first one included."""

    def __init__(self, step: int) -> None:
        self.left = step
        self.fired = False

    def __call__(self, frame: Any, event: str, _: Any) -> Any:
        if frame.f_code.co_name != "_answers":
            return None
        frame.f_trace_opcodes = True
        if event in ("call", "opcode"):
            self.left -= 1
            if self.left == 0:
                self.fired = True
                raise Limit("traced")
        return self


def test_a_moment_at_each_step_of_a_callback() -> None:
    value = [(1,), {(2,): (3,)}, 1 << 80]
    one = Codec()
    expected = one.encode(value)
    ended = fired = 0
    gc.disable()  # what closes the generators of a pass that was given up, some time later, is not what is traced
    for step in range(1, 400):
        tracer = Tracer(step)
        sys.settrace(tracer)
        try:
            data = one.encode(value)
        except Limit:
            data = b""
        finally:
            sys.settrace(None)
        assert data == (b"" if tracer.fired else expected), step
        fired += tracer.fired
        ended += not tracer.fired
    gc.enable()
    assert fired > 20
    assert ended > 20


def test_what_a_users_own_code_raises_is_still_an_invalid_argument() -> None:
    one = Codec()

    def refuse(value: Point) -> Any:
        raise Limit("not today")

    one.register(Point, name="point", encode=refuse, decode=lambda state: Point(state))
    with pytest.raises(InvalidArgument, match="not today") as caught:
        one.encode({"a": [Point(1)]})
    assert caught.value.path == "$.a[0]"
    assert isinstance(caught.value.__cause__, Limit)


def test_what_a_users_own_loader_raises_is_undecodable_or_raw() -> None:
    one = Codec()

    def refuse(state: Any) -> Any:
        raise Limit("not today")

    one.register(Point, name="point", encode=lambda value: value.x, decode=refuse)
    data = one.encode({"a": [Point(7)]})
    with pytest.raises(Undecodable, match="not today"):
        one.decode(data)
    assert one.decode(data, raw=True) == {"a": [Raw("point", 1, 7)]}


def test_a_codec_that_was_interrupted_goes_on(alarm: Any) -> None:
    one = Codec()
    for _ in range(5):
        alarm(KeyboardInterrupt, 0.002, lambda: one.encode(VALUES["tuples"]))
    assert one.decode(one.encode([(1, 2)])) == [(1, 2)]
