"""Databases of LangGraph's own savers are taken over, and compared tuple by tuple."""

import json

import pytest

pytest.importorskip("langgraph.checkpoint.sqlite")
pytest.importorskip("langgraph.checkpoint.postgres")

from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command

import stateroom
from stateroom.adapters.langgraph import StateroomSaver
from stateroom.cli import main
from stateroom.errors import AlreadyExists, InvalidArgument, NotFound, Unavailable
from stateroom.testing.postgres import shared

from .checkpoints import place, put
from .graphs import graph, thread


@pytest.fixture(params=["sqlite", "postgresql"])
def source(request, tmp_path):
    """A saver of LangGraph's, its url, and what is in it: graphs that ran, wait, and forked."""
    if request.param == "sqlite":
        url, opened = str(tmp_path / "old.sqlite"), SqliteSaver.from_conn_string(str(tmp_path / "old.sqlite"))
    else:
        server = shared("18")
        name = f"old_{tmp_path.name[-12:].replace('-', '_')}".lower()
        server.execute(f'CREATE DATABASE "{name}"')
        url = server.url().rpartition("/")[0] + f"/{name}"
        opened = PostgresSaver.from_conn_string(url)
    with opened as saver:
        saver.setup()
        made = graph(saver, tmp_path / "log")
        for id in ("done", "waits"):
            made.invoke({"steps": ["start", "x" * 30_000]}, thread(id))
        asked = made.get_state(thread("done")).config
        made.invoke(Command(resume="yes"), thread("done"))
        made.update_state(asked, {"answer": "forked"}, as_node="ask")
        config = put(saver, place("writes", "child:1"), {"a": None})
        saver.put_writes(config, [("a", 1), ("b", 2)], "task-b", "~1")
        saver.put_writes(config, [("a", 3), (ERROR, "no"), (INTERRUPT, "why")], "task-a", "~2")
        yield saver, url


def test_everything_is_taken_over_and_goes_on(source, store, tmp_path):
    old, url = source
    saver = StateroomSaver(store)
    imported = saver.import_from(url)
    assert imported.threads == 3
    there, here = ({item.config["configurable"]["checkpoint_id"]: item for item in s.list(None)} for s in (old, saver))
    assert imported.checkpoints == len(there) == len(here)
    for id, item in there.items():
        assert here[id][1:4] == item[1:4]
        assert [*map(list, here[id].pending_writes)] == [*map(list, item.pending_writes)]
    assert imported.writes == sum(len(item.pending_writes) for item in there.values())
    made, before = (graph(s, tmp_path / "log") for s in (saver, old))
    assert made.get_state(thread("done")).values == before.get_state(thread("done")).values
    assert made.invoke(Command(resume="yes"), thread("waits"))["steps"][-1] == "last"
    made.invoke({"steps": ["again"]}, thread("done"))


def test_it_may_be_done_again_until_somebody_has_written(source, store):
    _, url = source
    saver = StateroomSaver(store)
    first = saver.import_from(url)
    assert saver.import_from(url) == first
    (config,) = [item.config for item in saver.list({"configurable": {"thread_id": "writes"}})]
    saver.put_writes(config, [(ERROR, "another")], "task-a", "~2")
    with pytest.raises(AlreadyExists, match="writes"):
        saver.import_from(url)


def test_the_command_line_takes_over_too(source, tmp_path, capsys):
    _, url = source
    target = str(tmp_path / "new.db")
    assert main(["--url", target, "--json", "import", "langgraph", url]) == 0
    assert json.loads(capsys.readouterr().out)["threads"] == 3
    with StateroomSaver(target) as saver:
        assert len(saver.threads()) == 3
    assert main(["--url", target, "import", "nothing", url]) == 2
    assert main(["--url", target, "import", "langgraph", str(tmp_path / "none.sqlite")]) == 1


def test_what_is_not_there_or_no_database_is_refused(store, tmp_path):
    saver = StateroomSaver(store)
    with pytest.raises(NotFound):
        saver.import_from(str(tmp_path / "none.sqlite"))
    with pytest.raises(Unavailable):
        saver.import_from("postgresql://nobody@127.0.0.1:1/none")
    (tmp_path / "text").write_text("no database, but a text that is long enough to be looked at" * 20)
    with pytest.raises(InvalidArgument):
        saver.import_from(str(tmp_path / "text"))
    with stateroom.open(tmp_path / "other.db") as other:
        other.results.put("dag", "id", 1)
    before = (tmp_path / "other.db").read_bytes()
    with pytest.raises(InvalidArgument):
        saver.import_from(str(tmp_path / "other.db"))
    assert (tmp_path / "other.db").read_bytes() == before
