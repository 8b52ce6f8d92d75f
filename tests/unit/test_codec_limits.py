"""Depth, cycles, disguises, order of sets: what must be refused, and what must never crash."""

import os
import subprocess
import sys
import threading
from contextlib import suppress
from enum import StrEnum
from typing import Any

import ormsgpack
import pytest

from stateroom.codec import Codec, depth
from stateroom.errors import Damaged, InvalidArgument, Undecodable


def nested(levels: int, wrap: Any, value: Any = 1) -> Any:
    for _ in range(levels):
        value = wrap(value)
    return value


WRAPS: dict[str, Any] = {
    "list": lambda value: [value],
    "dict": lambda value: {"a": value},
    "tuple": lambda value: (value,),
    "keyed": lambda value: {(1,): value},
    "numbered": lambda value: {1: value},
    "frozenset": lambda value: frozenset((value,)),
    "mixed": lambda value: ([{"a": value}],),
    "both": lambda value: [({1: 2},), {1: value}],
    "side": lambda value: ([value], {1: 1}),
}


@pytest.mark.parametrize("name", WRAPS)
@pytest.mark.parametrize("levels", [5, 20, 90, 99, 240])
def test_what_is_accepted_at_any_depth_can_be_read_again(name: str, levels: int) -> None:
    value = nested(levels, WRAPS[name])
    one = Codec()
    if levels > 90 and name not in ("list", "dict", "numbered"):
        with suppress(InvalidArgument):
            one.encode(value)
        return
    data = one.encode(value)
    assert one.decode(data) == value
    assert one.decode(data, raw=True) == value


@pytest.mark.parametrize("name", WRAPS)
@pytest.mark.parametrize("levels", [300, 2_000, 100_000])
def test_deeper_is_refused_and_never_crashes(name: str, levels: int) -> None:
    if name == "frozenset" and levels > 300:
        pytest.skip("the hash of a frozenset recurses in C")
    value = nested(levels, WRAPS[name])
    with pytest.raises(InvalidArgument, match="deep") as caught:
        Codec().encode(value)
    assert caught.value.path.startswith("$")


def test_the_documented_depths_are_accepted() -> None:
    one = Codec()
    for name, levels in (("list", depth.PLAIN), ("dict", depth.PLAIN), ("tuple", depth.EXTENSIONS)):
        value = nested(levels, WRAPS[name])
        assert one.decode(one.encode(value)) == value
        with pytest.raises(InvalidArgument):
            one.encode(nested(levels + 6, WRAPS[name]))


def test_stored_bytes_cannot_overflow_the_stack() -> None:
    one = Codec()
    for width in (1000, 200, 100, 17):
        data = b"\x91\x01"
        for _ in range(400):
            data = b"\x91" * width + b"\xc9" + len(data).to_bytes(4, "big") + b"\x01" + data
        with pytest.raises(Undecodable):
            one.decode(data)
        with suppress(Undecodable):
            assert "deep" in str(one.decode(data, raw=True))


def test_the_deepest_values_fit_a_small_stack() -> None:
    one = Codec()
    value: Any = 1
    for _ in range(depth.EXTENSIONS - depth.FREE):
        value = (nested(depth.DEEP, WRAPS["list"], value),)
    for _ in range(depth.FREE):
        value = (nested(depth.PLAIN - 1, WRAPS["list"], value),)
    found: list[bytes] = []
    before = threading.stack_size(6 << 20)
    try:
        thread = threading.Thread(target=lambda: found.append(one.encode(one.decode(one.encode(value)))))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert found == [one.encode(value)]


def test_a_nearly_full_stack_is_refused_not_a_recursion_error() -> None:
    one = Codec()
    value = nested(60, WRAPS["tuple"])
    data = one.encode(value)
    ends = set()

    def down() -> None:
        with suppress(RecursionError):
            down()
        for action in (lambda: one.encode(value), lambda: one.decode(data)):
            try:
                ends.add(type(action()))
            except (InvalidArgument, Undecodable) as error:
                ends.add(type(error))
            except RecursionError:
                # Not even the call itself fits.
                pass

    sys.setrecursionlimit(sys.getrecursionlimit())
    down()
    assert ends >= {bytes, tuple}


@pytest.mark.parametrize("shape", ["list", "dict", "tuple", "keyed"])
def test_cycles_are_refused_with_their_path(shape: str) -> None:
    loop: list[Any] = [1]
    loop.append({"list": loop, "dict": {"a": loop}, "tuple": (loop,), "keyed": {1: loop}}[shape])
    with pytest.raises(InvalidArgument, match="contains itself") as caught:
        Codec().encode({"x": loop})
    steps = {"list": "", "dict": ".a", "tuple": "[0]", "keyed": "[1]"}
    assert caught.value.path == "$.x[1]" + steps[shape]


def test_the_same_object_twice_is_no_cycle() -> None:
    part = [1]
    assert Codec().decode(Codec().encode([part, part, (part,)])) == [[1], [1], ([1],)]


class Mode(StrEnum):
    FAST = "fast"


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("key", [Mode.FAST, Text("a"), memoryview(b"a"), print])
@pytest.mark.parametrize(
    "around", [lambda key: {key: 1}, lambda key: ({"x": 1, key: 1},), lambda key: [{1: 2, key: 3}]]
)
def test_keys_of_other_types_are_never_taken_for_text(key: Any, around: Any) -> None:
    with pytest.raises(InvalidArgument, match="<key") as caught:
        Codec().encode(around(key))
    assert type(key).__name__ in str(caught.value)


@pytest.mark.parametrize("size", [0, 1, 300, 70_000])
@pytest.mark.parametrize("at", ["alone", "list", "dict", "tuple", "deep", "keyed"])
def test_bytearrays_are_never_taken_for_bytes(size: int, at: str) -> None:
    value = bytearray(size)
    around: Any = {
        "alone": value,
        "list": [b"x", value, 1.5],
        "dict": {"a": {"b": value}},
        "tuple": (([value],),),
        "deep": nested(12, WRAPS["list"], value),
        "keyed": {1: [value]},
    }[at]
    back = Codec().decode(Codec().encode(around))
    assert repr(back) == repr(around)
    with pytest.raises(InvalidArgument, match="memoryview"):
        Codec().encode([around, memoryview(value)])


def test_equal_sets_have_equal_bytes_whatever_the_hash_seed() -> None:
    program = (
        "from stateroom.codec import Codec; import sys\n"
        "members = ['b', 'a', 'dd', (1, 'x'), 2.5, None, frozenset({'p', 'q', 'r', 's'})]\n"
        "value = [set(members), {'x', 'y', 'z', 'w'}, {b'a', b'b', b'c'}, {5, 3, 2**70}]\n"
        "sys.stdout.buffer.write(Codec().encode(value))\n"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(runs) == 1


@pytest.mark.parametrize(
    ("data", "path", "tag"),
    [
        (b"", "$", None),
        (b"\xc1", "$", None),
        (b"\xdd\xff\xff\xff\xff", "$", None),
        (b"\xa2\xff\xff", "$", None),
        (b"\x91\xd4\x63\x00", "$[0]", "extension 99"),
        (b"\x81\xa1a\xc7\x05\x04hello", "$.a", "datetime"),
        (b"\x81\xa3a b\xc7\x05\x09hello", "$['a b']", "uuid"),
        (b"\x92\x01\xc7\x02\x0a\x01\x02", "$[1]", "complex"),
        (b"\xc7\x04\x0e\x93\x01\x02\x03", "$", "mapping"),
        (b"\xc7\x06\x0e\x92\x01\xc7\x01\x08x", "$[1]", "decimal"),
        (b"\xc7\x03\x02\x91\x91\x01", "$", "set"),
        (b"\xc7\x13\x11Europe/../etc/passwd", "$", "timezone"),
    ],
)
def test_broken_bytes_are_undecodable_with_path_and_tag(data: bytes, path: str, tag: str | None) -> None:
    with pytest.raises(Undecodable) as caught:
        Codec().decode(data)
    assert (caught.value.path, caught.value.tag) == (path, tag)


def test_names_from_data_are_never_imported() -> None:
    data = ormsgpack.packb([ormsgpack.Ext(20, ormsgpack.packb(["antigravity:x", 1, {}]))])
    assert "antigravity" not in sys.modules
    with pytest.raises(Undecodable, match="no type is registered"):
        Codec().decode(data)
    assert "antigravity" not in sys.modules


def test_a_raised_recursion_limit_does_not_let_the_stack_overflow() -> None:
    program = (
        "import sys; sys.setrecursionlimit(1_000_000)\n"
        "from stateroom.codec import Codec\n"
        "from stateroom.errors import InvalidArgument, Undecodable\n"
        "one = Codec()\n"
        "def ext(tag, data): return b'\\xc9' + len(data).to_bytes(4, 'big') + bytes((tag,)) + data\n"
        "bombs = [b'\\x91' * 4_000, b'\\x91' * 1_000_000, b'\\x81\\xa1a' * 1_000_000, b'\\x81' * 1_000_000]\n"
        "for tag in (1, 2, 14, 20, 21, 99):\n"
        "    data = b'\\x91\\x01'\n"
        "    for _ in range(2_000): data = ext(tag, data)\n"
        "    bombs.append(data)\n"
        "    data = b'\\x91\\x01'\n"
        "    for _ in range(300): data = b'\\x91' * 900 + ext(tag, data)\n"
        "    bombs.append(data)\n"
        "for bomb in bombs:\n"
        "    for raw in (False, True):\n"
        "        try: one.decode(bomb, raw=raw)\n"
        "        except Undecodable: continue\n"
        "        assert raw, bomb[:9]\n"
        "for wrap in (lambda v: [v], lambda v: {'a': v}, lambda v: (v,), lambda v: {1: v}, lambda v: [({1: v},)]):\n"
        "    value = 1\n"
        "    for _ in range(200_000): value = wrap(value)\n"
        "    try: one.encode(value)\n"
        "    except InvalidArgument: print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["refused"] * 5), done.stderr[-2000:]


@pytest.mark.parametrize("size", [0, 3, 11, 13])
def test_numbers_of_another_length_are_damaged(size):
    from stateroom.codec import tags

    for tag in (tags.TIMEDELTA, tags.COMPLEX):
        stored = ormsgpack.packb(ormsgpack.Ext(tag, b"\x09" * size))
        with pytest.raises(Damaged):
            Codec().decode(stored)
