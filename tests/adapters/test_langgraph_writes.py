"""Pending writes of `StateroomSaver`: which stays, in what order, how many, and before their checkpoint is there."""

import threading

import pytest

pytest.importorskip("langgraph.checkpoint.base")

from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME

from .checkpoints import chain, checkpoint, place, put


def test_the_first_write_of_a_place_stays_and_special_ones_are_replaced(saver):
    config = put(saver, place())
    saver.put_writes(config, [("a", 1), (ERROR, "first")], "task")
    saver.put_writes(config, [("a", 2), (ERROR, "second"), ("b", 3)], "task")
    saver.put_writes(config, [(INTERRUPT, "i1"), (RESUME, ["r"])], "task")
    saver.put_writes(config, [(INTERRUPT, "i2")], "task")
    assert sorted(saver.get_tuple(config).pending_writes, key=repr) == sorted(
        [
            ("task", "a", 1),
            ("task", ERROR, "second"),
            ("task", "b", 3),
            ("task", INTERRUPT, "i2"),
            ("task", RESUME, ["r"]),
        ],
        key=repr,
    )


def test_writes_are_in_the_order_of_path_task_and_index(saver):
    config = put(saver, place())
    saver.put_writes(config, [("c", 4)], "a", "~2")
    saver.put_writes(config, [("c", 2), ("c", 3)], "z", "~1")
    saver.put_writes(config, [("c", 1)], "y", "")
    assert [value for _, _, value in saver.get_tuple(config).pending_writes] == [1, 2, 3, 4]


def test_writes_that_come_before_their_checkpoint_wait_for_it(saver):
    made = checkpoint({"a": 1})
    saver.put_writes(place(id=made["id"]), [("a", "early")], "task")
    assert saver.get_tuple(place()) is None
    assert list(saver.list(place())) == []
    config = saver.put(place(), made, {"source": "input", "step": -1}, {"a": 1})
    assert saver.get_tuple(config).pending_writes == [("task", "a", "early")]
    saver.put(config, made, {"source": "input", "step": -1}, {"a": 1})  # the same again, as after an unknown outcome
    assert saver.get_tuple(config).pending_writes == [("task", "a", "early")]


def test_writes_of_a_checkpoint_that_was_followed_are_kept(saver):
    first, _ = chain(saver, 2)
    saver.put_writes(first, [("a", "x" * 40_000), ("b", "y" * 2_000)], "late")
    assert saver.get_tuple(first).pending_writes == [("late", "a", "x" * 40_000), ("late", "b", "y" * 2_000)]


def test_many_tasks_at_one_checkpoint(saver, store):
    config = put(saver, place(), {"state": "s" * 3_000})
    for number in range(60):
        saver.put_writes(config, [("a", f"{number}" * 1_000), ("b", number)], f"task-{number:02}", "~1")
    saver.put_writes(config, [("b", "late")], "task-07", "~1")  # the first one stays
    saver.put_writes(config, [("big", "x" * 20_000), (INTERRUPT, "why")], "task-60")
    expected = [("task-60", "big", "x" * 20_000), ("task-60", INTERRUPT, "why")]
    for number in range(60):
        expected += [(f"task-{number:02}", "a", f"{number}" * 1_000), (f"task-{number:02}", "b", number)]
    expected.sort(key=lambda write: (write[0] != "task-60", write[0], write[1] != INTERRUPT))
    read = saver.get_tuple(config).pending_writes
    assert [write for write in read if write != ("task-07", "b", 7)] == [
        w for w in expected if w != ("task-07", "b", 7)
    ]
    assert ("task-07", "b", "late") not in read
    assert max(len(result.value["content"]) for result in store.results.scan()) < 20_000  # not all in one record
    assert saver.threads(state="interrupted").items
    saver.copy_thread("t", "u")
    put(saver, config)
    saver.prune(["t"])
    assert saver.get_tuple(place("u")).pending_writes == read
    saver.delete_thread("t")
    saver.delete_thread("u")
    assert list(store.machines.scan()) == []


def test_writes_of_several_checkpoints_that_all_come_before_the_first(saver):
    made = [checkpoint({"a": number}) for number in range(3)]
    for number in (1, 0, 2):
        saver.put_writes(place(id=made[number]["id"]), [("a", number)], "task")
    config = place()
    for number in range(3):
        config = saver.put(config, made[number], {"source": "loop", "step": number}, {"a": 1})
        assert saver.get_tuple(config).pending_writes == [("task", "a", number)]


def test_puts_and_writes_that_race_lose_nothing(saver):
    made = [checkpoint({"n": number}) for number in range(30)]

    def write():
        for number, each in enumerate(made):
            saver.put_writes(place(id=each["id"]), [("n", number)], "task")

    writing = threading.Thread(target=write)
    writing.start()
    config = place()
    for number, each in enumerate(made):
        config = saver.put(config, each, {"source": "loop", "step": number}, {"n": 1})
    writing.join()
    assert [item.pending_writes for item in saver.list(place())] == [[("task", "n", n)] for n in range(29, -1, -1)]


def test_many_writes_that_come_early(saver):
    first = put(saver, place())
    made = [checkpoint({"a": number}) for number in range(2)]
    for number in range(30):
        saver.put_writes(place(id=made[number % 2]["id"]), [("a", f"{number}" * 500)], f"task-{number:02}")
    config = saver.put(first, made[0], {"source": "loop", "step": 0}, {"a": 1})
    assert len(saver.get_tuple(config).pending_writes) == 15
    config = saver.put(config, made[1], {"source": "loop", "step": 1}, {"a": 1})
    assert [task for task, _, _ in saver.get_tuple(config).pending_writes] == [f"task-{n:02}" for n in range(1, 30, 2)]
