"""What msgspec builds for a type at its first use is built when the module is imported.

Two threads that use a type for the first time at once crash the process (msgspec 0.22: the second one finds the type's
description half built). A race shows that one time in hundreds, so the test looks at when the description is built.
"""

import pytest

from engines.sqlite_helpers import run

PROGRAM = """
import sys
import msgspec
from stateroom.codec import failure, packing
from stateroom.families.savepoints import chunks
CALLS = {
    "plain": lambda: msgspec.convert({"value": {"a": [1, "b", None]}}, packing._OnlyPlain),
    "failure": lambda: failure.from_state(["T", "m", "x", "", [], ["T", "m", "y"], []]),
    "page": lambda: msgspec.convert([["a"], [1]], chunks.PageHead),
    "layer": lambda: msgspec.convert([1, 2, 3, ["a"]], chunks.LayerHead),
    "new": lambda: msgspec.convert({"a": 1}, msgspec.defstruct("New", [("a", int)])),
}
built = []
def watch(frame, event, argument):
    if event == "call" and frame.f_code.co_name == "get_class_annotations":
        built.append(sys.argv[1])
sys.setprofile(watch)
CALLS[sys.argv[1]]()
sys.setprofile(None)
print(len(built))
"""


@pytest.mark.parametrize("kind", ["plain", "failure", "page", "layer"])
def test_nothing_is_left_to_build_when_threads_start(kind: str) -> None:
    assert run(PROGRAM, kind) == ["0"]


def test_what_is_built_at_first_use_is_noticed() -> None:
    assert run(PROGRAM, "new") == ["1"]
