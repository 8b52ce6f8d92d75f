"""`StateroomStore`: LangGraph's long-term memory in a store.

A namespace is a DAG of results named after it, and a machine's snapshot that says that it is there. Both share a root,
so an item and its namespace come in one commit. What expires is removed by retention, as any result that does.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Self

from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchItem,
    SearchOp,
    TTLConfig,
    validate_op_namespace,
)

from stateroom import OMITTED, AsyncStore, Store
from stateroom.errors import InvalidArgument

from ..faces import Access, Face
from ..names import stored_key

MACHINE = "langgraph.store"
"""The machine whose snapshots are the namespaces."""

Namespace = tuple[str, ...]


class StateroomStore(BaseStore):
    """LangGraph's `BaseStore` over a url, a `Store` or an `AsyncStore`; plain methods and coroutines in one class.

    `ttl` is LangGraph's `TTLConfig`, in minutes. There is no vector search: a `query` or an index is refused.
    """

    supports_ttl = True

    def __init__(
        self,
        store: "str | os.PathLike[str] | Store | AsyncStore | None" = None,
        *,
        ttl: TTLConfig | None = None,
        index: None = None,
        **options: Any,
    ) -> None:
        """Open `store` (with the `options` of `stateroom.open`), or use one that is open, which stays its owner's."""
        if index is not None:
            raise InvalidArgument("StateroomStore has no vector search; leave index out", what="index", value=index)
        self.ttl_config = ttl
        self._access = Access(store, **options)
        self._known: set[Namespace] = set()

    def close(self) -> None:
        """Close what was opened here."""
        self._access.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    def batch(self, ops: Iterable[Any]) -> list[Any]:
        """Run operations: what reads sees the state before all of them; of two puts of one key the last is done."""
        operations = _checked(ops)
        return self._access.run(lambda face: self._batch(face, operations))

    async def abatch(self, ops: Iterable[Any]) -> list[Any]:
        """As `batch`."""
        operations = _checked(ops)
        return await self._access.arun(lambda face: self._batch(face, operations))

    async def _batch(self, face: Face, ops: Sequence[Any]) -> list[Any]:
        results: list[Any] = []
        puts: dict[tuple[Namespace, str], PutOp] = {}
        for op in ops:
            result: Any = None
            if isinstance(op, GetOp):
                result = await self._get(face, op)
            elif isinstance(op, SearchOp):
                result = await self._search(face, op)
            elif isinstance(op, ListNamespacesOp):
                result = await self._namespaces(face, op)
            else:
                puts[op.namespace, op.key] = op
            results.append(result)
        for op in puts.values():
            await self._put(face, op)
        return results

    async def _get(self, face: Face, op: GetOp) -> Item | None:
        dag, id = _dag(op.namespace), stored_key(op.key, 250)
        result = await face.done(face.store.results.find(dag, id))
        if result is None:
            return None
        if op.refresh_ttl and result.expires_at is not None:
            await self._refresh(face, dag, [id])
        return Item(**_fields(result, op.namespace))

    async def _put(self, face: Face, op: PutOp) -> None:
        dag, id, ttl = _dag(op.namespace), stored_key(op.key, 250), op.ttl
        if op.value is None:
            await face.done(face.store.results.delete(dag, id))
            return
        value: dict[str, Any] = {"key": op.key, "value": dict(op.value)}
        if ttl is not None:
            value["ttl"] = ttl
        seconds = None if ttl is None else ttl * 60
        if op.namespace in self._known:
            await face.done(face.store.results.put(dag, id, value, ttl=seconds))
            return

        async def body(tx: Any) -> None:
            if await face.done(tx.machines.find(MACHINE, dag)) is None:
                await face.done(tx.machines.save(MACHINE, dag, "namespace", {"namespace": list(op.namespace)}))
            await face.done(tx.results.put(dag, id, value, ttl=seconds))

        await face.transact(body)
        self._known.add(op.namespace)

    async def _refresh(self, face: Face, dag: str, ids: Sequence[str]) -> None:
        """Let items live as long again as they were given, without a change of anything else."""

        async def body(tx: Any) -> None:
            for id in ids:
                result = await face.done(tx.results.find(dag, id))
                if result is not None and result.expires_at is not None:
                    value = {**result.value, "updated_at": result.value.get("updated_at", result.updated_at)}
                    await face.done(tx.results.put(dag, id, value, ttl=value["ttl"] * 60))

        await face.transact(body)

    async def _search(self, face: Face, op: SearchOp) -> list[SearchItem]:
        if op.query is not None:
            raise InvalidArgument(
                "StateroomStore has no vector search; use filter instead of query", what="query", value=op.query
            )
        matching: list[tuple[datetime, Namespace, str, SearchItem, bool]] = []
        for namespace in await self._all(face):
            if namespace[: len(op.namespace_prefix)] != tuple(op.namespace_prefix):
                continue
            for id, result in await _items(face, _dag(namespace)):
                item = SearchItem(**_fields(result, namespace), score=None)
                if all(_matches(item.value.get(key), condition) for key, condition in (op.filter or {}).items()):
                    matching.append((item.updated_at, namespace, id, item, result.expires_at is not None))
        matching.sort(key=lambda row: row[1:3])
        matching.sort(key=lambda row: row[0], reverse=True)
        page = matching[op.offset : op.offset + op.limit]
        if op.refresh_ttl:
            for _, namespace, id, _, expires in page:
                if expires:
                    await self._refresh(face, _dag(namespace), [id])
        return [row[3] for row in page]

    async def _namespaces(self, face: Face, op: ListNamespacesOp) -> list[Namespace]:
        conditions = op.match_conditions or ()
        listed = set()
        for namespace in await self._all(face):
            matches = all(_in_place(condition, namespace) for condition in conditions)
            if matches and await face.done(face.store.results.count(_dag(namespace))):
                listed.add(namespace[: op.max_depth] if op.max_depth is not None else namespace)
        return sorted(listed)[op.offset : op.offset + op.limit]

    async def _all(self, face: Face) -> list[Namespace]:
        """Every namespace that ever had an item."""
        namespaces: list[Namespace] = []
        cursor: str | None = None
        while True:
            page = await face.done(face.store.machines.query(machine=MACHINE, limit=1000, cursor=cursor))
            namespaces += [tuple(snapshot.payload["namespace"]) for snapshot in page]
            cursor = page.cursor
            if cursor is None:
                return namespaces


def _checked(ops: Iterable[Any]) -> list[Any]:
    operations = list(ops)
    for op in operations:
        if not isinstance(op, GetOp | SearchOp | ListNamespacesOp | PutOp):
            raise InvalidArgument(f"{op!r} is no operation of LangGraph's stores", what="ops", value=op)
        validate_op_namespace(op)
    return operations


def _dag(namespace: Namespace) -> str:
    return "store:" + stored_key(".".join(namespace), 200)


async def _items(face: Face, dag: str) -> list[tuple[str, Any]]:
    """All items of a namespace as results."""
    items: list[tuple[str, Any]] = []
    cursor: str | None = None
    while True:
        page = await face.done(face.store.results.query(dag=dag, limit=1000, cursor=cursor))
        for result in page:
            complete = result
            if result.value is OMITTED:
                complete = await face.done(face.store.results.find(dag, result.id))
            if complete is not None:
                items.append((result.id, complete))
        cursor = page.cursor
        if cursor is None:
            return items


def _fields(result: Any, namespace: Namespace) -> dict[str, Any]:
    stored = result.value
    return {
        "value": stored["value"],
        "key": stored["key"],
        "namespace": namespace,
        "created_at": result.created_at,
        "updated_at": stored.get("updated_at", result.updated_at),
    }


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "$eq": lambda value, other: value == other,
    "$ne": lambda value, other: value != other,
    "$gt": lambda value, other: value is not None and float(value) > float(other),
    "$gte": lambda value, other: value is not None and float(value) >= float(other),
    "$lt": lambda value, other: value is not None and float(value) < float(other),
    "$lte": lambda value, other: value is not None and float(value) <= float(other),
}


def _matches(value: Any, condition: Any) -> bool:
    """Say whether a value is as a filter says, with LangGraph's operators."""
    if isinstance(condition, Mapping):
        if any(key.startswith("$") for key in condition):
            return all(_compare(value, operator, operand) for operator, operand in condition.items())
        return isinstance(value, Mapping) and all(_matches(value.get(key), inner) for key, inner in condition.items())
    if isinstance(condition, list | tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(condition)
            and all(_matches(element, right) for element, right in zip(value, condition, strict=True))
        )
    return bool(value == condition)


def _compare(value: Any, operator: str, operand: Any) -> bool:
    compare = _OPERATORS.get(operator)
    if compare is None:
        raise InvalidArgument(
            f"a filter has no operator {operator!r}; one of {', '.join(_OPERATORS)}", what="filter", value=operator
        )
    return bool(compare(value, operand))


def _in_place(condition: MatchCondition, namespace: Namespace) -> bool:
    """Say whether a namespace begins or ends with a path; ``*`` stands for any label."""
    path = tuple(condition.path)
    if len(namespace) < len(path):
        return False
    labels = namespace[: len(path)] if condition.match_type == "prefix" else namespace[len(namespace) - len(path) :]
    return all(label in ("*", actual) for label, actual in zip(path, labels, strict=True))
