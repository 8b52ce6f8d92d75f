"""Lists of all the snapshots of a machine, which adapters use as an index."""

from stateroom import Snapshot

from .faces import Face


async def every_snapshot(face: Face, machine: str, state: str | None = None) -> list[Snapshot]:
    """Read all snapshots of a machine, page by page; with a `state`, those in it."""
    snapshots: list[Snapshot] = []
    cursor: str | None = None
    while True:
        page = await face.done(face.store.machines.query(machine=machine, state=state, limit=1000, cursor=cursor))
        snapshots += page.items
        cursor = page.cursor
        if cursor is None:
            return snapshots
