"""`stateroom watcher`: the named consumers of the feed."""

from collections import Counter

import typer

from .options import All, Limit
from .output import Column
from .session import opened

app = typer.Typer(help="Named watchers of the feed.", no_args_is_help=True)

_LEASE = "/\x01watch"  # what the key of a watcher's lease ends in

COLUMNS = (
    Column("NAME", lambda one: one["name"], fold=True),
    Column("COMMITS BEHIND", lambda one: f"{one['commits_behind']:,}", "right"),
    Column("DEAD LETTERS", lambda one: f"{one['dead_letters']:,}" if one["dead_letters"] else None, "right", drop=2),
    Column("RUNS IN", lambda one: one["held_by"], fold=True),
    Column("UPDATED", lambda one: one["updated_at"], drop=1),
)


@app.command("list")
def list_(context: typer.Context, limit: Limit = 100, everything: All = False) -> None:
    """List watchers and other consumers: how far they are behind, what they gave up on, and where they run."""
    with opened(context) as (store, output):
        letters = Counter(letter.watcher for letter in store.dead_letters.list())
        held = {
            lease.key.removesuffix(_LEASE): lease.owner for lease in store.leases.scan() if lease.key.endswith(_LEASE)
        }
        lags = {lag.name: lag for lag in store.stats().checkpoints}
        watchers = [
            {
                "name": name,
                "commits_behind": lags[name].commits if name in lags else 0,
                "dead_letters": letters[name],
                "held_by": held.get(name),
                "updated_at": lags[name].updated_at if name in lags else None,
            }
            for name in sorted({*lags, *letters, *held})
        ]
        output.records(COLUMNS, watchers, limit=None if everything else limit, empty="no watchers")
