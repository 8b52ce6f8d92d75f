"""Checkpoints as LangGraph makes them, for tests of savers."""

from langgraph.checkpoint.base import empty_checkpoint


def place(thread="t", namespace="", id=None):
    configurable = {"thread_id": thread, "checkpoint_ns": namespace}
    if id is not None:
        configurable["checkpoint_id"] = id
    return {"configurable": configurable}


def checkpoint(values=None, versions=None, **more):
    values = values or {}
    made = {**empty_checkpoint(), "channel_values": values, **more}
    made["channel_versions"] = dict.fromkeys(values, 1) if versions is None else versions
    return made


def put(saver, config, values=None, versions=None, new=None, source="loop", step=0, **metadata):
    """Put a checkpoint; gives its config."""
    made = checkpoint(values, versions)
    metadata = {"source": source, "step": step, "parents": {}, **metadata}
    return saver.put(config, made, metadata, made["channel_versions"] if new is None else new)


def chain(saver, length, thread="t", namespace="", **metadata):
    """Put so many checkpoints one after the other; gives their configs."""
    configs, config = [], place(thread, namespace)
    for step in range(length):
        config = put(saver, config, {"step": step}, {"step": step + 1}, step=step, **metadata)
        configs.append(config)
    return configs


def ids(tuples):
    return [item.config["configurable"]["checkpoint_id"] for item in tuples]
