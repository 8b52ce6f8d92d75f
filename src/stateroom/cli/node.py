"""`stateroom node`: who is there, and a node of its own."""

import signal
import threading
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

import stateroom

from ..errors import InvalidArgument, NotFound
from .confirm import DryRun, Yes, agreed
from .options import All, Limit
from .output import Column
from .session import key_ring, opened

app = typer.Typer(help="Nodes that hold results.", no_args_is_help=True)


def clocks_of(node: Any) -> str:
    """The clocks that a node saw differ from its own."""
    return ", ".join(f"{name} {seconds:+g} s" for name, seconds in sorted(node.clocks.items()))


NODES = (
    Column("NODE", lambda node: node.name, fold=True),
    Column("STATE", lambda node: "alive" if node.alive else "dead"),
    Column("ADDRESS", lambda node: node.address, fold=True),
    Column("LAST HEARTBEAT", lambda node: node.seen_at),
    Column("CLOCKS", clocks_of, fold=True),
)

_AHEAD_SECONDS = 1.0


def node_remarks(nodes: Sequence[Any], holders: Sequence[str]) -> list[str]:
    """Return what somebody should know of nodes, as sentences: dead ones, unknown ones, clocks that differ."""
    known = {node.name: node for node in nodes}
    remarks = []
    for name in holders:
        if name not in known:
            remarks.append(f"results are registered on node {name}, which is not known: it never ran, or was forgotten")
        elif not known[name].alive:
            since = known[name].seen_at
            remarks.append(
                f"node {name} is dead since {since:%Y-%m-%d %H:%M:%S} UTC; what it alone holds is out of reach"
            )
    now = datetime.now(UTC)
    for node in nodes:
        if (ahead := (node.seen_at - now).total_seconds()) > _AHEAD_SECONDS:
            remarks.append(f"the clock of node {node.name} is {ahead:.0f} s or more ahead of this machine's")
        if node.clocks:
            remarks.append(f"node {node.name} sees other clocks than its own: {clocks_of(node)}")
    return remarks


@app.command("list")
def list_(context: typer.Context, limit: Limit = 100, everything: All = False) -> None:
    """List every node that was ever there, dead ones too."""
    with opened(context) as (store, output):
        output.records(NODES, store.locations.nodes(), limit=None if everything else limit, empty="no nodes")


@app.command("forget")
def forget(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The node, which must be dead.")],
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Forget a node that is gone for good, with its locations."""
    with opened(context) as (store, output):
        count = sum(1 for _ in store.locations.scan(node=name))
        known = any(node.name == name for node in store.locations.nodes())
        if not known and not count:
            raise NotFound(f"no node {name!r}", kind="nodes", id=name)
        thing = f"{name} with {count:,} locations"
        if not agreed(output, [thing], "node", yes=yes, dry_run=dry_run, verb="forget"):
            return
        store.locations.forget(name)
        removed = store.locations.clear_node(name)
        if output.as_json:
            output.json({"node": name, "locations": removed})
        else:
            output.say(f"forgot node {name} and {removed:,} locations")


@app.command("run")
def run(
    context: typer.Context,
    local: Annotated[str, typer.Option(help="The node's own store: a path or url; made where it is not there.")],
    name: Annotated[str, typer.Option(help="The node's name.")],
    secret_file: Annotated[str, typer.Option(help="File with the secret that all nodes share: 32 bytes or more.")],
    listen: Annotated[str, typer.Option(help="HOST:PORT; port 0 for any. Without TLS a loopback address.")] = (
        "127.0.0.1:0"
    ),
    advertise: Annotated[str | None, typer.Option(help="HOST:PORT that others reach it at, if another.")] = None,
    ttl: Annotated[float, typer.Option(help="Seconds without heartbeat after which it is dead.")] = 10.0,
    tls_cert: Annotated[str | None, typer.Option(help="Certificate (PEM).")] = None,
    tls_key: Annotated[str | None, typer.Option(help="Its key (PEM).")] = None,
    tls_ca: Annotated[str | None, typer.Option(help="Who signs the nodes' certificates (PEM).")] = None,
    mutual: Annotated[bool, typer.Option("--mutual", help="Answer only who shows a certificate of that one.")] = False,
) -> None:
    """Run a node until it is interrupted: serve what a local store holds, over the shared store of --url."""
    node_class = _node_class()
    tls: dict[str, Any] | None = None
    if tls_cert or tls_key or tls_ca or mutual:
        if not tls_cert or not tls_key:
            raise InvalidArgument("TLS needs --tls-cert and --tls-key", what="tls")
        tls = {"cert": tls_cert, "key": tls_key, "ca": tls_ca, "mutual": mutual}
    ended, interrupted = threading.Event(), threading.Event()

    def end(number: int, _frame: object) -> None:
        if number == signal.SIGINT:
            interrupted.set()
        ended.set()

    with opened(context) as (shared, output), closing(stateroom.open(local, key_ring=key_ring())) as own:
        secret = f"file:{secret_file}"
        node = node_class(shared, own, name, secret=secret, listen=listen, advertise=advertise, ttl=ttl, tls=tls)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)
        with node:
            if output.as_json:
                output.line({"name": node.name, "address": node.address})
            else:
                output.say(f"node {node.name} at {node.address}; Ctrl-C ends it")
            while not ended.wait(3600):
                pass
    if interrupted.is_set():
        raise KeyboardInterrupt


def _node_class() -> Any:
    try:
        from ..node import Node
    except ImportError as error:
        raise InvalidArgument('nodes need the extra: pip install "stateroom[server]"', what="node") from error
    return Node
