"""How threads, namespaces and checkpoints of LangGraph are named in the store.

A thread's *key* decides the part: everything of a thread shares it and changes together. LangGraph's ids may be empty,
long, or have ``/`` and NUL in them; a key has none of these, and different ids have different keys.
"""

from typing import Any
from urllib.parse import quote, unquote

from ...errors import InvalidArgument
from ..names import SAFE, stored_key

_ROOT = "."
"""Stands for the root namespace, which is the empty text; a namespace that is a dot is quoted."""


def thread_key(thread: str) -> str:
    """A thread's key: the root of all it has."""
    return stored_key(thread, 120)


def heads(thread: str) -> str:
    """The DAG with the newest checkpoint of each namespace."""
    return thread_key(thread) + "/heads"


def past(thread: str) -> str:
    """The DAG with the checkpoints before the newest."""
    return thread_key(thread) + "/checkpoints"


def head_id(namespace: str) -> str:
    """A namespace's newest checkpoint in `heads`."""
    return stored_key(namespace, 120) if namespace else _ROOT


def early_id(namespace: str) -> str:
    """Writes in `heads` that came before the first checkpoint of their namespace."""
    return "%early/" + head_id(namespace)


def is_early(id: str) -> bool:
    """Say whether an id in `heads` is of writes that came before the first checkpoint."""
    return id.startswith("%early/")


def past_id(namespace: str, checkpoint: str) -> str:
    """A checkpoint in `past`."""
    key = quote(checkpoint, safe=SAFE)
    if not checkpoint.strip() or len(key) > 100:
        raise InvalidArgument(
            f"checkpoint id {checkpoint!r} is blank or over 100 bytes; LangGraph's are UUIDs",
            what="checkpoint_id",
            value=checkpoint,
        )
    return f"{head_id(namespace)}/{key}"


def split_past(id: str) -> tuple[str, str]:
    """The namespace's `head_id`, and the checkpoint, of an id in `past`."""
    head, _, checkpoint = id.partition("/")
    return head, unquote(checkpoint)


def value_name(thread: str, digest: str) -> str:
    """A value that is kept apart, as a machine's name."""
    return f"{thread_key(thread)}/{digest}"


class Superseded(str):
    """The id of a checkpoint that was not the newest when it was read: whoever puts after it means a fork."""

    __slots__ = ()


class Place:
    """The place a `RunnableConfig` points to."""

    def __init__(self, config: Any) -> None:
        try:
            configurable = config["configurable"]
            thread = configurable["thread_id"]
        except (KeyError, TypeError) as error:
            raise InvalidArgument(
                'the config names no thread; use {"configurable": {"thread_id": ...}}', what="config", value=config
            ) from error
        self.thread = str(thread)
        self.namespace = str(configurable.get("checkpoint_ns") or "")
        self.any_namespace = configurable.get("checkpoint_ns") is None
        id = configurable.get("checkpoint_id") or None
        self.id: str | None = None if id is None else str(id)
        self.forks = isinstance(id, Superseded)


def config_of(thread: str, namespace: str, id: str) -> Any:
    """The config of a checkpoint."""
    return {"configurable": {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": id}}
