"""`StateroomSaver` beyond the conformance suite: plain calls, writers beside each other, values, writes, reopening."""

import asyncio

import pytest

pytest.importorskip("langgraph.checkpoint.base")

from langgraph.checkpoint.serde.types import INTERRUPT

import stateroom
from stateroom import AsyncStore
from stateroom.adapters.langgraph import StateroomSaver
from stateroom.errors import AlreadyExists, Closed, InvalidArgument, NotFound, StaleRevision

from .checkpoints import chain, checkpoint, ids, place, put


def values_kept(store):
    return [snapshot.name for snapshot in store.machines.scan(machine="langgraph.values") if snapshot.state == "value"]


def test_plain_calls_put_get_and_list(saver):
    configs = chain(saver, 3)
    assert saver.get_tuple(place()).config == configs[-1]
    assert saver.get(configs[0])["channel_values"] == {"step": 0}
    assert ids(saver.list(place())) == ids(reversed([saver.get_tuple(config) for config in configs]))
    assert ids(saver.list(place(), before=configs[2], limit=1)) == [configs[1]["configurable"]["checkpoint_id"]]
    assert saver.get_tuple(configs[1]).parent_config == configs[0]
    assert saver.get_tuple(place("other")) is None


def test_all_threads_are_listed_without_a_config_newest_first(saver):
    made = [chain(saver, 2, thread)[-1] for thread in ("a", "b")] + [chain(saver, 1, "a", "child:1")[-1]]
    listed = list(saver.list(None))
    assert len(listed) == 5
    assert ids(listed) == sorted(ids(listed), reverse=True)
    assert listed[0].config == made[-1]
    assert [item.metadata["step"] for item in saver.list(None, filter={"step": 1})] == [1, 1]


def test_a_store_an_async_store_and_a_url_see_the_same(url):
    with stateroom.open(url) as store, StateroomSaver(url) as by_url:
        config = put(StateroomSaver(store), place(), {"a": 1})
        over = StateroomSaver(AsyncStore.over(store))
        assert over.get_tuple(config) == by_url.get_tuple(config)  # a blocking call over an AsyncStore
        assert asyncio.run(over.aget_tuple(config)) == by_url.get_tuple(config)
        over.close()
    with pytest.raises(Closed):
        by_url.get_tuple(config)


def test_what_was_stored_is_there_after_reopening(url):
    with StateroomSaver(url) as saver:
        config = put(saver, place(), {"text": "x" * 100_000, "small": [1, None]})
        saver.put_writes(config, [("text", "y" * 50_000)], "task", "path")
        before = saver.get_tuple(place())
    with StateroomSaver(url) as saver:
        assert saver.get_tuple(place()) == before
        assert before.checkpoint["channel_values"] == {"text": "x" * 100_000, "small": [1, None]}
        assert before.pending_writes == [("task", "text", "y" * 50_000)]


# --- two writers


def test_of_two_writers_on_a_checkpoint_the_stale_one_is_refused(store):
    one, two = StateroomSaver(store), StateroomSaver(store)
    start = put(one, place(), {"a": 1})
    read = [saver.get_tuple(place()).config for saver in (one, two)]
    after = put(one, read[0], {"a": 2})
    with pytest.raises(StaleRevision) as refused:
        put(two, read[1], {"a": 3})
    assert after["configurable"]["checkpoint_id"] in str(refused.value)
    assert refused.value.fields["actual"] == after["configurable"]["checkpoint_id"]
    assert ids(one.list(place())) == ids([one.get_tuple(after), one.get_tuple(start)])
    put(two, two.get_tuple(place()).config, {"a": 3})  # having read again, it goes on


def test_a_stale_writer_is_refused_by_the_config_of_a_put_and_of_an_exact_read(store):
    one, two = StateroomSaver(store), StateroomSaver(store)
    start = put(one, place(), {"a": 1})
    exact = two.get_tuple(start).config
    put(one, start, {"a": 2})
    for config in (start, exact):
        with pytest.raises(StaleRevision):
            put(two, config, {"a": 3})
        with pytest.raises(StaleRevision):
            asyncio.run(two.aput(config, checkpoint({"a": 3}), {"source": "update", "step": 1}, {"a": 1}))


def test_of_two_writers_on_an_empty_thread_one_is_refused(store):
    one, two = StateroomSaver(store), StateroomSaver(store)
    assert one.get_tuple(place()) is None
    assert two.get_tuple(place()) is None
    put(one, place(), {"a": 1}, source="input")
    with pytest.raises(StaleRevision):
        put(two, place(), {"a": 2}, source="input")
    assert len(list(one.list(place()))) == 1


def test_a_fork_that_is_meant_is_made(saver):
    first, second = chain(saver, 2)
    old = saver.get_tuple(first)  # read when it had been followed: whoever goes on from it means a fork
    fork = put(saver, old.config, {"step": 9}, {"step": 2}, source="update")
    assert saver.get_tuple(place()).config == fork
    assert saver.get_tuple(fork).parent_config == first
    assert put(saver, second, {"step": 5}, source="fork") == saver.get_tuple(place()).config
    assert len(list(saver.list(place()))) == 4


def test_many_writers_make_one_chain(url):
    async def main():
        async with await stateroom.open_async(url) as store:
            savers = [StateroomSaver(store) for _ in range(4)]
            await savers[0].aput(place(), checkpoint({"n": 0}), {"source": "input", "step": -1}, {"n": 1})

            async def work(saver, number):
                refused = 0
                for step in range(10):
                    read = (await saver.aget_tuple(place())).config
                    try:
                        await saver.aput(read, checkpoint({"n": step}), {"source": "loop", "step": step}, {"n": 1})
                    except StaleRevision:
                        refused += 1
                return 10 - refused

            done = sum(await asyncio.gather(*(work(saver, n) for n, saver in enumerate(savers))))
            tuples = [item async for item in savers[0].alist(place())]
            assert len(tuples) == done + 1
            parents = [item.parent_config["configurable"]["checkpoint_id"] for item in tuples if item.parent_config]
            assert len(set(parents)) == len(parents)  # nobody has two children

    asyncio.run(main())


# --- values


def test_a_large_value_is_stored_once_and_shared_by_forks(saver, store):
    big = "x" * 200_000
    first = put(saver, place(), {"big": big, "n": 0}, {"big": 1, "n": 1})
    config = first
    for step in range(3):
        config = put(saver, config, {"big": big, "n": step}, {"big": 1, "n": step + 2}, new={"n": step + 2})
    fork = put(saver, saver.get_tuple(first).config, {"big": big, "n": 9}, {"big": 1, "n": 9}, source="fork")
    for each in (config, fork):
        assert saver.get_tuple(each).checkpoint["channel_values"]["big"] == big
    assert len(values_kept(store)) == 1
    changed = put(saver, fork, {"big": big + "!", "n": 9}, {"big": 2, "n": 9}, new={"big": 2})
    assert saver.get_tuple(changed).checkpoint["channel_values"]["big"] == big + "!"
    assert saver.get_tuple(fork).checkpoint["channel_values"]["big"] == big
    assert len(values_kept(store)) == 2


def test_a_fork_whose_versions_are_those_of_its_sibling_has_its_own_values(saver):
    start = put(saver, place(), {"a": "s"}, {"a": 1})
    left = put(saver, start, {"a": "left" * 9_000}, {"a": 2})
    right = put(saver, saver.get_tuple(start).config, {"a": "right" * 9_000}, {"a": 2})
    assert saver.get_tuple(left).checkpoint["channel_values"] == {"a": "left" * 9_000}
    assert saver.get_tuple(right).checkpoint["channel_values"] == {"a": "right" * 9_000}


def test_none_is_a_value_and_a_channel_without_a_version_is_not_loaded(saver):
    config = put(saver, place(), {"none": None, "gone": 1}, {"none": 1})
    assert saver.get_tuple(config).checkpoint["channel_values"] == {"none": None}


def test_a_state_that_changes_little_takes_little(store, saver):
    rows = {f"row{number}": f"{number:0100}" for number in range(100)}
    config = place()
    sizes = []
    for step in range(40):
        rows = {**rows, f"row{step % 100}": f"{step:0100x}"}
        versions = {"rows": step + 1}
        config = put(saver, config, {"rows": rows}, versions)
        (record,) = store.results.gather("t/heads", ["."]).values()
        sizes.append(len(record["content"]))
        assert saver.get_tuple(config).checkpoint["channel_values"]["rows"] == rows
    assert sum(sizes) < 40 * 10_000 / 5
    for number, item in enumerate(reversed(list(saver.list(place())))):
        assert item.checkpoint["channel_values"]["rows"][f"row{number}"] == f"{number:0100x}"


def test_a_list_that_grows_is_stored_as_what_is_new(saver, store):
    from langchain_core.messages import HumanMessage

    config, messages = place(), []
    for turn in range(60):
        messages = [*messages, HumanMessage(f"{turn}" * 500, id=str(turn))]
        config = put(saver, config, {"messages": messages}, {"messages": turn + 1})
        saver.put_writes(config, [("messages", [*messages, "more"])], f"task{turn}")
    stored = [snapshot.payload for snapshot in store.machines.scan(machine="langgraph.values")]
    whole = [payload for payload in stored if isinstance(payload, bytes)]
    assert len(whole) < len(stored) / 3
    fresh = StateroomSaver(store)  # which remembers nothing
    for turn, item in enumerate(reversed(list(fresh.list(place())))):
        assert item.checkpoint["channel_values"]["messages"] == messages[: turn + 1]
        assert item.pending_writes == [(f"task{turn}", "messages", [*messages[: turn + 1], "more"])]
    fresh.copy_thread("t", "u")
    fresh.prune(["t"])
    assert len(list(store.machines.scan(machine="langgraph.values"))) < len(stored) + 5
    for thread in ("t", "u"):
        assert StateroomSaver(store).get_tuple(place(thread)).checkpoint["channel_values"]["messages"] == messages
    fresh.delete_thread("t")
    fresh.delete_thread("u")
    assert list(store.machines.scan()) == list(store.results.scan()) == []


def test_large_values_of_every_likeness(saver):
    import random

    dice, config, text = random.Random(1), place(), "x" * 20_000
    texts = []
    for version in range(40):
        at, length = dice.randrange(len(text)), dice.choice([0, 1, 100, 15_000])
        text = (
            dice.choice([text, text[:at], text[at:]])[:60_000] + "y" * length + text[at : at + dice.randrange(30_000)]
        )
        texts.append(text)
        config = put(saver, config, {"text": text}, {"text": version + 1})
    saver._apart.__init__()
    assert [item.checkpoint["channel_values"]["text"] for item in saver.list(place())] == texts[::-1]


def test_messages_dates_and_sets_come_back_as_they_were(saver):
    from datetime import UTC, datetime
    from uuid import uuid4

    from langchain_core.messages import AIMessage, HumanMessage
    from langgraph.types import Interrupt, Send

    values = {
        "messages": [HumanMessage("hi", id="1"), AIMessage("hello", id="2", tool_calls=[])],
        "when": datetime(2026, 1, 2, tzinfo=UTC),
        "many": {"a", "b"},
        "id": uuid4(),
        "bytes": b"\0\xff",
    }
    config = put(saver, place(), values)
    saver.put_writes(config, [("x", Send("node", {"m": values["messages"]})), (INTERRUPT, (Interrupt("why"),))], "t")
    read = saver.get_tuple(config)
    assert read.checkpoint["channel_values"] == values
    writes = {channel: value for _, channel, value in read.pending_writes}
    assert writes["x"] == Send("node", {"m": values["messages"]})
    assert next(iter(writes[INTERRUPT])).value == "why"


class Strange:
    """A class that nothing but pickle could store."""


def test_nothing_is_pickled(saver, store):
    with pytest.raises(TypeError):
        put(saver, place(), {"a": Strange()})
    assert saver.get_tuple(place()) is None
    assert store.results.ids("t/heads") == ()


def test_values_can_be_encrypted(store):
    pytest.importorskip("Crypto", reason="LangGraph encrypts with pycryptodome")
    from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

    saver = StateroomSaver(store, serde=EncryptedSerializer.from_pycryptodome_aes(key=b"k" * 16))
    config = put(saver, place(), {"a": "secret" * 1000})
    assert saver.get_tuple(config).checkpoint["channel_values"] == {"a": "secret" * 1000}
    assert b"secret" not in repr(store.results.gather("t/heads", ["."])).encode()


# --- metadata and names


def test_nul_in_metadata_is_left_out_as_langgraph_does(saver):
    config = put(saver, place(), note="a\0b", nested={"deep": "c\0d"})
    assert saver.get_tuple(config).metadata["note"] == "ab"
    assert saver.get_tuple(config).metadata["nested"] == {"deep": "c\0d"}
    assert ids(saver.list(place(), filter={"note": "a\0b"})) == [config["configurable"]["checkpoint_id"]]


def test_what_the_config_says_is_in_the_metadata(saver):
    config = {"configurable": {**place()["configurable"], "user": "ann", "__hidden": 1}, "metadata": {"run_id": "r1"}}
    metadata = saver.get_tuple(put(saver, config)).metadata
    assert (metadata["user"], metadata["run_id"]) == ("ann", "r1")
    assert not {"__hidden", "thread_id"} & set(metadata)


def test_metadata_of_any_type_comes_back(saver):
    config = put(saver, place(), tags={"a", "b"}, numbers={1: "one"})
    metadata = saver.get_tuple(config).metadata
    assert (metadata["tags"], metadata["numbers"]) == ({"a", "b"}, {1: "one"})
    assert metadata["source"] == "loop"
    assert len(list(saver.list(place(), filter={"source": "loop"}))) == 1


@pytest.mark.parametrize("thread", ["", " ", "a/b", "a\0b", "ü" * 200, "x" * 5000, "%", ".", "heads", 7])
def test_a_thread_may_have_any_name(saver, thread):
    config = put(saver, place(thread, "child/1|x:\0"), {"a": 1})
    root = put(saver, place(thread), {"a": 2})
    assert config["configurable"]["thread_id"] == str(thread)
    assert saver.get_tuple(config).config == config
    assert saver.get_tuple(place(thread)).checkpoint["channel_values"] == {"a": 2}
    assert {thread.thread_id for thread in saver.threads()} == {str(thread)}
    assert len(list(saver.list({"configurable": {"thread_id": thread}}))) == 2
    saver.delete_thread(thread)
    assert list(saver.list(None)) == []
    assert saver.get_tuple(root) is None


def test_names_that_look_alike_are_different_threads(saver):
    alike = ["a", "a ", "%61", "a/", "", ".", "%", "%2E", "%25", "x" * 300, "x" * 301]
    for thread in alike:
        put(saver, place(thread), {"name": thread})
    assert [saver.get(place(thread))["channel_values"]["name"] for thread in alike] == alike


@pytest.mark.parametrize(
    "call",
    [
        lambda saver: saver.get_tuple({}),
        lambda saver: saver.put_writes(place(), [("a", 1)], "task"),
        lambda saver: saver.put(place(), checkpoint(id="x" * 101), {}, {}),
        lambda saver: saver.put(place("\ud800"), checkpoint(), {}, {}),
        lambda saver: saver.prune(["t"], strategy="some"),
        lambda saver: StateroomSaver(7),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(saver, store, call):
    with pytest.raises(InvalidArgument):
        call(saver)
    assert list(store.results.scan()) == []


# --- threads


def test_threads_are_listed_with_their_newest_metadata(saver):
    for number in range(5):
        chain(saver, 3, f"t{number}", owner="ann" if number % 2 else "bob")
        chain(saver, 2, f"t{number}", "child:1")
    page = saver.threads(limit=2)
    assert [thread.thread_id for thread in page] == ["t0", "t1"]
    everything = [*page, *saver.threads(limit=2, cursor=page.cursor)]
    assert [thread.metadata["step"] for thread in everything] == [2, 2, 2, 2]
    ann = saver.threads(filter={"owner": "ann"})
    assert [thread.thread_id for thread in ann] == ["t1", "t3"]
    assert ann.cursor is None
    assert ann.items[0].checkpoint_id == saver.get_tuple(place("t1")).checkpoint["id"]
    assert asyncio.run(saver.athreads(filter={"owner": "ann"})) == ann


def test_a_thread_that_waits_for_somebody_says_so(saver, store):
    config = put(saver, place(), source="input")
    saver.put_writes(config, [(INTERRUPT, "may I?")], "task")
    assert [thread.thread_id for thread in saver.threads(state="interrupted")] == ["t"]
    assert [change.record.state for change in store.feed.read(families=["machines"]).items][-1] == "interrupted"
    put(saver, config)
    assert saver.threads(state="interrupted").items == ()
    assert [thread.state for thread in saver.threads()] == ["active"]
    made = checkpoint()
    saver.put_writes(place("u", id=made["id"]), [(INTERRUPT, "early")], "task")
    saver.put(place("u"), made, {"source": "loop", "step": 0}, {})
    assert [thread.thread_id for thread in saver.threads(state="interrupted")] == ["u"]


# --- removing and copying


def test_deleting_a_thread_leaves_nothing(saver, store):
    config = put(saver, place(), {"big": "x" * 50_000, "state": "s" * 5_000})
    put(saver, config, {"big": "y" * 50_000, "state": "s" * 5_000}, {"big": 2, "state": 1})
    saver.put_writes(config, [("w", "z" * 50_000)], "task")
    saver.delete_thread("t")
    assert list(store.results.scan()) == list(store.machines.scan()) == []


def test_copies_are_whole_and_live_on_their_own(saver, store):
    config = put(saver, place("a"), {"big": "x" * 50_000, "state": "s" * 5_000})
    saver.put_writes(config, [("w", "z" * 50_000)], "task", "path")
    put(saver, config, {"big": "x" * 50_000, "state": "s" * 5_000}, new={})
    chain(saver, 2, "a", "child:1")
    saver.copy_thread("a", "b")
    for left, right in zip(saver.list(place("a")), saver.list(place("b")), strict=True):
        assert left[1:3] + left[4:] == right[1:3] + right[4:]
        assert right.config["configurable"]["thread_id"] == "b"
    saver.delete_thread("a")
    assert [item.checkpoint["channel_values"].get("big") for item in saver.list(place("b"))] == ["x" * 50_000] * 2
    with pytest.raises(NotFound):
        saver.copy_thread("a", "c")
    with pytest.raises(AlreadyExists):
        saver.copy_thread("b", "b")
    assert {thread.thread_id for thread in saver.threads()} == {"b"}


def test_a_thread_whose_last_run_is_deleted_goes_on_before_it(saver):
    config = put(saver, place(), {"n": 1}, run_id="one")
    put(saver, put(saver, config, {"n": 2}, run_id="two"), {"n": 3}, run_id="two")
    saver.delete_for_runs(["two"])
    assert saver.get_tuple(place()).config == config
    after = put(saver, config, {"n": 4}, run_id="three")
    assert saver.get_tuple(place()).config == after
    saver.delete_for_runs(["one", "three"])
    assert saver.threads().items == ()


def test_pruning_keeps_what_a_run_needs_and_gives_back_the_rest(saver, store):
    config = place()
    for step in range(6):
        config = put(saver, config, {"big": f"{step}" * 20_000, "same": "s" * 30_000}, {"big": step + 1, "same": 1})
    assert len(values_kept(store)) == 7
    saver.prune(["t"])
    assert len(values_kept(store)) == 2
    assert saver.get_tuple(place()).checkpoint["channel_values"] == {"big": "5" * 20_000, "same": "s" * 30_000}
    assert len(list(saver.list(place()))) == 1
    put(saver, config, {"big": "new"}, {"big": 9})


def test_what_is_pruned_while_it_is_listed_is_left_out(saver, store):
    config = put(saver, place(), {"big": "1" * 20_000}, {"big": 1})
    config = put(saver, config, {"big": "2" * 20_000}, {"big": 2})
    fresh = StateroomSaver(store)  # which remembers no values
    lister = fresh._lister(place(), None, None, None)
    fresh._access.run(lister.start)
    last = put(saver, config, {"big": "3" * 20_000}, {"big": 3})
    saver.prune(["t"])
    assert fresh._access.run(lister.more) == []
    assert [item.config for item in fresh.list(place())] == [last]


def test_what_is_stored_is_seen_by_the_feed_and_copied(saver, store, tmp_path):
    chain(saver, 2)
    families = [(change.family, change.id) for change in store.feed.read(limit=1000).items]
    assert {("results", "t/heads"), ("results", "t/checkpoints"), ("machines", "t")} <= set(families)
    store.backup(tmp_path / "backup.db")
    with StateroomSaver(tmp_path / "backup.db", namespace=store._scope.namespace) as copied:
        assert list(copied.list(None)) == list(saver.list(None))
