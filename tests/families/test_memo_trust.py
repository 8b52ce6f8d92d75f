"""`memo` as a cache that can be trusted: which function gets what, what is kept of the inputs, and for how long."""

import functools
import threading
from datetime import timedelta

import pytest

from kit.aging import keys_left
from stateroom import OMITTED
from stateroom.errors import InvalidArgument, Timeout
from stateroom.families.results.memo import call


def optional(params=None):
    return params


class Box:
    def __init__(self, content):
        self.content = content

    def __call__(self, given):
        return (self.content, given)


@pytest.mark.parametrize(
    ("compute", "inputs", "value"),
    [
        (optional, {"depth": 3}, {"depth": 3}), (int, "5", 5), (dict, {"a": 1}, {"a": 1}), (str, 5, "5"),
        (list, (1, 2), [1, 2]), (lambda: "nothing", 1, "nothing"), (lambda *given: given, 1, (1,)),
        (lambda **named: named, 1, {}), (functools.partial(optional, "fixed"), 1, "fixed"),
        (functools.partial(pow, 2), 5, 32), (Box("b"), 1, ("b", 1)), (len, "abc", 3), (sorted, [2, 1], [1, 2]),
        ("text".upper, 1, "TEXT"), (lambda given, other=None: (given, other), 1, (1, None)), ([3, 1].count, 3, 1),
    ],
)  # fmt: skip
def test_a_function_is_given_the_inputs_unless_it_takes_none(compute, inputs, value):
    assert call(compute, inputs) == value


def test_what_a_function_raises_about_arguments_is_its_own():
    def wrong(given):
        raise TypeError(f"a bad argument: {given}")

    with pytest.raises(TypeError, match="a bad argument: 1"):
        call(wrong, 1)
    with pytest.raises(TypeError, match="required"):
        call(lambda one, two: None, 1)
    with pytest.raises(ValueError, match="invalid literal"):
        call(int, "x")


def test_classes_and_defaults_on_both_faces(store):
    assert store.results.memo("d", "fit", {"depth": 3}, optional) == {"depth": 3}
    assert store.results.memo("d", "int", "5", int) == 5
    assert store.results.get("d", store.results.memo_id("int", "5")) == 5


def test_inputs_are_kept_as_they_were_before_the_call(store):
    inputs = {"a": [1], "by": {"x": 1}}
    id = store.results.memo_id("g", inputs)

    def changes(given):
        given["a"].append(2)
        given.update(b=99)
        return "done"

    assert store.results.memo("d", "g", inputs, changes) == "done"
    assert store.results.ids("d") == (id,)
    assert store.results.find("d", id).inputs == {"a": [1], "by": {"x": 1}}
    assert store.results.memo("d", "g", {"a": [1], "by": {"x": 1}}, lambda: pytest.fail("computed again")) == "done"


@pytest.mark.parametrize("value", ["small", "v" * 100_000])
def test_large_inputs_are_left_out_of_pages_and_changes(store, database, value):
    inputs = {"path": "a", "text": ["x" * 1000] * 100}
    assert store.results.memo("d", "f", inputs, lambda: value) == value
    (shown,) = store.results.query(dag="d")
    (change,) = store.feed.read().items
    assert shown.inputs is OMITTED
    assert change.record == shown
    assert (shown.value is OMITTED) == (len(value) > 1000)
    assert list(store.results.scan(dag="d")) == [shown]
    whole = store.results.find("d", shown.id)
    assert (whole.inputs, whole.value, whole.digest) == (inputs, value, shown.digest)
    put = store.results.put("d", "p", value, inputs=inputs)
    assert (put.inputs, put.value) == (inputs, value)
    streamed = store.results.put_stream("d", "s", [b"x" * 100_000], inputs=inputs)
    assert (streamed.inputs, streamed.value) == (OMITTED, OMITTED)
    assert store.results.find("d", "s").inputs == inputs
    assert store.results.clear("d") == 3
    assert keys_left(database, b"V") == []


def test_what_is_ignored_neither_tells_calls_apart_nor_is_kept(store):
    calls = []

    def compute(given):
        calls.append(given["key"])
        return given["n"] + 1

    results = store.results
    assert results.memo("d", "f", {"n": 1, "key": "secret"}, compute, ignore=("key",)) == 2
    assert results.memo("d", "f", {"n": 1, "key": "other"}, compute, ignore=["key"]) == 2
    assert calls == ["secret"]
    id = results.memo_id("f", {"n": 1, "key": "whatever"}, ignore={"key"})
    assert id == results.memo_id("f", {"n": 1})
    assert results.find("d", id).inputs == {"n": 1}
    for inputs, ignore in (({"n": 1}, ("key",)), ([1], ("n",)), ({"n": 1}, "n"), ({"n": 1}, (5,))):
        with pytest.raises(InvalidArgument):
            results.memo("d", "f", inputs, compute, ignore=ignore)
        with pytest.raises(InvalidArgument):
            results.memo_id("f", inputs, ignore=ignore)


@pytest.mark.parametrize("ttl", [60, timedelta(minutes=1)])
def test_a_value_expires_and_is_computed_again(store, clock, ttl):
    values = iter([1, 2])
    assert store.results.memo("d", "f", 1, lambda: next(values), ttl=ttl) == 1
    clock.advance(59)
    assert store.results.memo("d", "f", 1, lambda: next(values), ttl=ttl) == 1
    clock.advance(1)
    assert store.results.memo("d", "f", 1, lambda: next(values)) == 2
    clock.advance(10**6)
    assert store.results.memo("d", "f", 1, lambda: pytest.fail("it has no ttl")) == 2


def test_bad_arguments_compute_nothing(store):
    for more in ({"ttl": 0}, {"ttl": "x"}, {"timeout": -1}, {"timeout": "x"}, {"timeout": True}):
        with pytest.raises(InvalidArgument):
            store.results.memo("d", "f", 1, lambda: pytest.fail("computed"), **more)
    assert store.results.ids("d") == ()


def test_whoever_waits_does_so_no_longer_than_its_timeout(store, other):
    started, go, values = threading.Event(), threading.Event(), []

    def compute():
        started.set()
        assert go.wait(60)
        return "value"

    holder = threading.Thread(target=lambda: values.append(other.results.memo("d", "f", 1, compute)))
    holder.start()
    assert started.wait(60)
    for timeout in (0, 0.01, timedelta(milliseconds=10)):
        with pytest.raises(Timeout, match=r"f:.* of DAG 'd'"):
            store.results.memo("d", "f", 1, lambda: pytest.fail("computed twice"), timeout=timeout)
    assert store.results.memo("d", "f", 2, lambda: "mine", timeout=0) == "mine"  # nobody else computes it
    go.set()
    assert store.results.memo("d", "f", 1, lambda: pytest.fail("computed twice"), timeout=60) == "value"
    holder.join(60)
    assert values == ["value"]
    assert store.results.memo("d", "f", 1, lambda: pytest.fail("computed twice"), timeout=0) == "value"


def test_an_exception_that_is_returned_is_alike_to_everybody(store, other):
    def compute():
        try:
            raise ValueError("no such file")
        except ValueError as error:
            return {"failed": error, "at": 3}

    first = store.results.memo("d", "f", 1, compute)
    second = other.results.memo("d", "f", 1, lambda: pytest.fail("computed again"))
    assert first == second == store.results.get("d", store.results.memo_id("f", 1))
    assert type(first["failed"]) is type(second["failed"])
    assert first["failed"].type == "ValueError"


@pytest.mark.parametrize("others", [0, 2])
def test_a_value_whose_computing_began_before_a_clear_is_not_kept_after_it(store, other, others):
    for number in range(others):
        store.results.put("d", f"o{number}", 1)
    store.results.put("d/e", "o", 1)
    started, go, values = threading.Event(), threading.Event(), []

    def old():
        started.set()
        assert go.wait(60)
        return "from before"

    thread = threading.Thread(target=lambda: values.append(other.results.memo("d", "f", 1, old)))
    thread.start()
    assert started.wait(60)
    assert store.results.clear("d") == others
    # Whoever asks now gets what was computed after the clear, and need not wait for the old one.
    assert store.results.memo("d", "f", 1, lambda: "from after", timeout=0) == "from after"
    go.set()
    thread.join(60)
    assert values == ["from after"]
    assert store.results.gather("d", store.results.ids("d")) == {store.results.memo_id("f", 1): "from after"}


def test_a_cleared_value_is_given_to_its_caller_and_nobody_else(store, other):
    started, go, values = threading.Event(), threading.Event(), []

    def old():
        started.set()
        assert go.wait(60)
        return "from before"

    thread = threading.Thread(target=lambda: values.append(other.results.memo("d", "f", 1, old)))
    thread.start()
    assert started.wait(60)
    assert store.results.clear("d") == 0
    go.set()
    thread.join(60)
    assert values == ["from before"]
    assert store.results.ids("d") == ()
    assert store.results.memo("d", "f", 1, lambda: "again") == "again"


@pytest.mark.parametrize("large", [False, True])
def test_inputs_that_contain_themselves_or_nest_too_deep_are_refused(store, large):
    loop = ["x" * 2_000_000] if large else []
    loop.append(loop)
    deep = []
    for _ in range(2000):
        deep = [deep]
    for inputs in (loop, deep, {"a": loop}):
        with pytest.raises(InvalidArgument):
            store.results.memo("d", "f", inputs, lambda: 1)
        with pytest.raises(InvalidArgument):
            store.results.memo_id("f", inputs)
    assert store.results.ids("d") == ()


def test_one_value_in_two_databases():
    from kit.faults import over
    from stateroom.engines.memory import MemoryEngine

    near, far = over(MemoryEngine()), over(MemoryEngine())
    assert near.results.memo("d", "f", 1, lambda: far.results.memo("d", "f", 1, lambda: 5)) == 5
    assert near.results.ids("d") == far.results.ids("d") != ()
