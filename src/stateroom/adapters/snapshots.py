"""A state machine's snapshot that one holder writes: what another holder wrote meanwhile is never overwritten."""

import json
import os
from typing import Any

from stateroom import AsyncStore, Failure, Snapshot, Store
from stateroom.errors import StaleRevision

from .faces import Access, Face

StoreLike = str | os.PathLike[str] | Store | AsyncStore | None


def state_text(value: Any) -> str:
    """Write a state as the name of a snapshot's state: a text as it is, several or another value as JSON."""
    return value if isinstance(value, str) and not value.startswith(("[", '"')) else json.dumps(value)


def state_value(text: str) -> Any:
    """Read what `state_text` wrote."""
    if text.startswith(("[", '"')):
        return json.loads(text)
    return text


class HeldSnapshot:
    """The snapshot of one machine and name, and the revision that this holder read or wrote last."""

    def __init__(self, store: StoreLike, machine: str, name: str, **options: Any) -> None:
        self.access = Access(store, **options)
        self.machine = machine
        self.name = name
        self.revision = 0

    async def read(self, face: Face) -> Snapshot | None:
        """Read the snapshot, and hold it."""
        snapshot: Snapshot | None = await face.done(face.store.machines.find(self.machine, self.name))
        self.revision = 0 if snapshot is None else snapshot.revision
        return snapshot

    async def check(self, face: Face) -> None:
        """Refuse with `StaleRevision` where another holder wrote meanwhile."""
        snapshot: Snapshot | None = await face.done(face.store.machines.find(self.machine, self.name))
        actual = 0 if snapshot is None else snapshot.revision
        if actual != self.revision:
            raise StaleRevision(
                f"machine {self.machine!r}, name {self.name!r} is at revision {actual}, not {self.revision}: another "
                "holder changed it; reload it and send the event again",
                kind="machines",
                id=f"{self.machine}/{self.name}",
                expected=self.revision,
                actual=actual,
            )

    async def write(self, face: Face, state: str, payload: Any, event: str | None) -> None:
        """Store the next snapshot, unless another holder wrote meanwhile (`StaleRevision`, `AlreadyExists`)."""
        snapshot = await face.done(
            face.store.machines.save(
                self.machine, self.name, state, payload, event=event, expected_revision=self.revision
            )
        )
        self.revision = snapshot.revision

    async def fail(self, face: Face, reason: Any, event: str | None) -> None:
        """Store what went wrong, beside the snapshot."""
        await face.done(face.store.machines.fail(self.machine, self.name, reason, event=event))

    def history(self, limit: int = 100) -> tuple[Snapshot, ...]:
        """Return the snapshots, newest first."""

        async def work(face: Face) -> tuple[Snapshot, ...]:
            page = await face.done(face.store.machines.history(self.machine, self.name, limit=limit))
            return tuple(page.items)

        return self.access.run(work)

    def last_error(self) -> Failure | None:
        """Return the last failure, until it is cleared."""

        async def work(face: Face) -> Failure | None:
            failure: Failure | None = await face.done(face.store.machines.last_error(self.machine, self.name))
            return failure

        return self.access.run(work)
