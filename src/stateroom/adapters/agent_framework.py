"""Checkpoints of Microsoft's Agent Framework."""

from collections.abc import Iterable
from typing import Any, Self

from agent_framework import WorkflowCheckpoint
from agent_framework._workflows._checkpoint_encoding import decode_checkpoint_value, encode_checkpoint_value
from agent_framework.exceptions import WorkflowCheckpointException

from stateroom import Snapshot

from .faces import Access, Face
from .listing import every_snapshot
from .names import stored_key
from .snapshots import StoreLike

CHECKPOINT = "checkpoint"


class StateroomCheckpointStorage:
    """The framework's `CheckpointStorage` over a url, a `Store` or an `AsyncStore`.

    A checkpoint is a result in the DAG of its id, and a snapshot of the machine `agent_framework:WORKFLOW`; both are
    written in one commit. Values are encoded as the framework's own file storage does; of what it pickles, only types
    that it knows and those in `allowed_checkpoint_types` ("module:qualname") are read back, and a checkpoint with
    another is refused when it is saved (`WorkflowCheckpointException`).
    """

    def __init__(
        self, store: StoreLike = None, *, allowed_checkpoint_types: Iterable[str] = (), **options: Any
    ) -> None:
        self._access = Access(store, **options)
        self._allowed = frozenset(allowed_checkpoint_types)

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        """Store a checkpoint, in place of one of the same id; return its id."""
        try:
            encoded = encode_checkpoint_value(checkpoint.to_dict())
            self._decode(encoded)
        except WorkflowCheckpointException:
            raise
        except Exception as error:
            raise WorkflowCheckpointException(
                f"cannot encode checkpoint {checkpoint.checkpoint_id}: {error}"
            ) from error
        id, workflow = checkpoint.checkpoint_id, checkpoint.workflow_name
        key = _key(id)

        async def work(face: Face) -> None:
            async def body(tx: Any) -> None:
                before = await face.done(tx.results.find(key, CHECKPOINT))
                if before is not None and before.value["workflow_name"] != workflow:
                    await face.done(tx.machines.purge(_machine(before.value["workflow_name"]), key))
                await face.done(tx.results.put(key, CHECKPOINT, encoded))
                payload = {"id": id, "timestamp": checkpoint.timestamp, "previous": checkpoint.previous_checkpoint_id}
                await face.done(tx.machines.save(_machine(workflow), key, "saved", payload))

            await face.transact(body)

        await self._access.arun(work)
        return str(id)

    async def load(self, checkpoint_id: str) -> WorkflowCheckpoint:
        """Return a checkpoint; raises `WorkflowCheckpointException` where it is not there."""
        encoded = await self._access.arun(lambda face: _find(face, _key(checkpoint_id)))
        if encoded is None:
            raise WorkflowCheckpointException(f"No checkpoint found with ID {checkpoint_id}")
        return self._decode(encoded)

    async def list_checkpoints(self, *, workflow_name: str) -> list[WorkflowCheckpoint]:
        """Return the checkpoints of a workflow, oldest first."""

        async def work(face: Face) -> list[Any]:
            return [await _find(face, snapshot.name) for snapshot in await _listed(face, workflow_name)]

        return [self._decode(encoded) for encoded in await self._access.arun(work) if encoded is not None]

    async def delete(self, checkpoint_id: str) -> bool:
        """Remove a checkpoint, and say whether it was there."""
        key = _key(checkpoint_id)

        async def work(face: Face) -> bool:
            async def body(tx: Any) -> bool:
                before = await face.done(tx.results.find(key, CHECKPOINT))
                if before is None:
                    return False
                await face.done(tx.machines.purge(_machine(before.value["workflow_name"]), key))
                await face.done(tx.results.clear(key))
                return True

            return await face.transact(body)

        return await self._access.arun(work)

    async def get_latest(self, *, workflow_name: str) -> WorkflowCheckpoint | None:
        """Return the checkpoint with the latest timestamp; of several, the one saved last."""

        async def work(face: Face) -> Any | None:
            for snapshot in reversed(await _listed(face, workflow_name)):
                encoded = await _find(face, snapshot.name)
                if encoded is not None:
                    return encoded
            return None

        encoded = await self._access.arun(work)
        return None if encoded is None else self._decode(encoded)

    async def list_checkpoint_ids(self, *, workflow_name: str) -> list[str]:
        """Return the ids of a workflow's checkpoints, oldest first."""
        return [snapshot.payload["id"] for snapshot in await self._access.arun(lambda f: _listed(f, workflow_name))]

    def close(self) -> None:
        """Close what was opened here."""
        self._access.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _decode(self, encoded: Any) -> WorkflowCheckpoint:
        return WorkflowCheckpoint.from_dict(decode_checkpoint_value(encoded, allowed_types=self._allowed))


def _key(checkpoint_id: str) -> str:
    return "checkpoint:" + stored_key(checkpoint_id, 200)


def _machine(workflow: str) -> str:
    return "agent_framework:" + stored_key(workflow, 200)


async def _find(face: Face, key: str) -> Any | None:
    result = await face.done(face.store.results.find(key, CHECKPOINT))
    return None if result is None else result.value


async def _listed(face: Face, workflow: str) -> list[Snapshot]:
    """Snapshots of a workflow's checkpoints by timestamp, then as they were saved."""
    snapshots = await every_snapshot(face, _machine(workflow))
    return sorted(snapshots, key=lambda snapshot: (snapshot.payload["timestamp"], snapshot.updated_at))
