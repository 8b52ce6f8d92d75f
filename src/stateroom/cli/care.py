"""For when something is wrong, or the keys change: doctor, rekey."""

import platform
from typing import Any

import typer

import stateroom

from ..errors import InvalidArgument
from .node import node_remarks
from .output import Column, Output
from .session import key_ring, opened

_UNREADABLE = ("undecodable", "damaged")


def doctor(context: typer.Context) -> None:
    """Say what runs here and what is wrong: versions, the file, rows that cannot be read. Exit code 1 for problems.

    Nothing is deleted or changed. A record that cannot be decoded is listed with its id; the others are not touched by
    it.
    """
    with opened(context) as (store, output):
        problems = store.check()
        found = store.stats()
        facts = {
            "stateroom": stateroom.__version__,
            "python": platform.python_version(),
            "database": store.url,
            "engine": found.engine,
            "parts": found.parts,
            "bytes": found.bytes,
            "commits": found.commits,
            "encrypted": found.encrypted,
        }
        nodes = store.locations.nodes()
        remarks = node_remarks(nodes, store.locations.holders())
        if output.as_json:
            output.json({**facts, "nodes": nodes, "remarks": remarks, "problems": problems})
        else:
            output.fields(facts | ({"nodes": ", ".join(node.name for node in nodes)} if nodes else {}))
            for remark in remarks:
                output.say(remark, "yellow")
            _list(output, problems)
        if problems:
            raise typer.Exit(1)


def _list(output: Output, problems: list[Any]) -> None:
    if not problems:
        output.say("no problems", "green")
        return
    columns = (
        Column("PROBLEM", lambda one: one.code),
        Column("FAMILY", lambda one: one.family),
        Column("ID", lambda one: one.id, fold=True),
        Column("WHAT", lambda one: one.message, fold=True),
    )
    output.table(columns, problems)
    unreadable = sum(one.code in _UNREADABLE for one in problems)
    if unreadable:
        output.note(
            f"{unreadable} rows cannot be read: register the type they name (or give the key ring), or restore them"
            " from a backup; they are kept as they are"
        )


def rekey(context: typer.Context) -> None:
    """Encrypt everything again under the current key of $STATEROOM_KEY_RING, while others go on. For after a rotation.

    The key ring is named there by its file, or written out as JSON.
    """
    if key_ring() is None:
        raise InvalidArgument("set $STATEROOM_KEY_RING to the key ring: its file, or its JSON", what="key_ring")
    with opened(context) as (store, output):
        done = store.rekey()
        if output.as_json:
            output.json(done)
        else:
            output.say(f"{done.rows:,} rows encrypted again, {done.unreadable:,} left that cannot be read")
        if done.unreadable:
            raise typer.Exit(1)
