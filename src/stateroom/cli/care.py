"""For when something is wrong, or the keys change: doctor, rekey."""

import platform

import typer

import stateroom

from ..errors import InvalidArgument
from .node import node_remarks
from .safe import masked
from .session import key_ring, opened
from .whole import broken, tell_problems


def doctor(context: typer.Context) -> None:
    """Say what runs here and what is wrong: versions, the file, rows that cannot be read. Exit code 1 for problems.

    Nothing is deleted or changed. A record that cannot be rebuilt here is listed with its id, and is no problem.
    """
    with opened(context) as (store, output):
        problems = store.check()
        stats = store.stats()
        facts = {
            "stateroom": stateroom.__version__,
            "python": platform.python_version(),
            "database": masked(store.url),
            "engine": stats.engine,
            "parts": stats.parts,
            "bytes": stats.bytes,
            "commits": stats.commits,
            "encrypted": stats.encrypted,
        }
        nodes = store.locations.nodes()
        remarks = node_remarks(nodes, store.locations.holders())
        if output.as_json:
            output.json({**facts, "nodes": nodes, "remarks": remarks, "problems": problems})
        else:
            numbers = {name: f"{facts[name]:,}" for name in ("bytes", "commits") if facts[name] is not None}
            output.fields(facts | numbers | ({"nodes": ", ".join(node.name for node in nodes)} if nodes else {}))
            for remark in remarks:
                output.say(remark, "yellow")
            tell_problems(output, problems)
        if broken(problems):
            raise typer.Exit(1)


def rekey(context: typer.Context) -> None:
    """Encrypt everything again under the current key of $STATEROOM_KEY_RING, while others go on. For after a rotation.

    The key ring is named there by its file, or written out as JSON.
    """
    if key_ring() is None:
        raise InvalidArgument("set $STATEROOM_KEY_RING to the key ring: its file, or its JSON", what="key_ring")
    with opened(context) as (store, output):
        outcome = store.rekey()
        if output.as_json:
            output.json(outcome)
        else:
            output.say(f"{outcome.rows:,} rows encrypted again, {outcome.unreadable:,} left that cannot be read")
        if outcome.unreadable:
            raise typer.Exit(1)
