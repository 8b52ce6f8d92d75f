"""Pages of records: lists, one record, a DAG, a run, a machine's definition."""

from typing import Any

from ... import OMITTED
from ...errors import NoSavepoint, NotFound, StoreError
from .. import records
from ..actions import ACTIONS
from ..families import FAMILIES, Listed, moment, number, read_key
from ..jsonable import plain
from .diff import differences
from .drawing import NODES, Box, Edge, state_class
from .render import Shown, Visit

STATES = {
    "status": ("pending", "running", "waiting", "completed", "failed", "cancelled"),
    "state": (
        "new", "ask_for_bid", "ask_for_bid_accepted", "bid_accepted", "running", "publishing", "ask_for_bid_rejected",
        "bid_rejected", "completed", "failed", "cancelled",
    ),
    "order": ("id", "updated"),
}  # fmt: skip
COLUMNS = {
    "instances": ("workflow", "status", "current_step", "business_key", "updated_at"),
    "executions": ("job_id", "state", "node_id", "message", "updated_at"),
    "machines": ("state", "previous_state", "event", "updated_at"),
    "results": ("size", "producer", "expires_at", "updated_at"),
    "savepoints": ("count", "bytes"),
}
VALUE_BYTES = 64 << 10
"""A larger value is fetched when it is asked for."""

ENTITIES = 500


def key_of(family: str, record: Any) -> list[str]:
    """The names of a record's key."""
    if not isinstance(record, dict):
        return [str(record)]
    return [str(record[name]) for name in FAMILIES[family].key if name in record]


def _field(family: Listed, name: str, read: Any, value: str) -> dict[str, Any]:
    options = STATES.get(name, ()) if not (family.name == "machines" and name == "state") else ()
    kind = "number" if read is number else "text"
    hint = {"label": "KEY=VALUE", "status_in": "running,waiting", "state_in": "new,running"}.get(name, "")
    if read is moment:
        hint = "2026-01-31T12:00Z"
    return {"name": name, "value": value, "options": options, "kind": kind, "hint": hint}


async def listed(visit: Visit, name: str) -> Shown:
    """A page of a family with its filters."""
    family = FAMILIES[name]
    asked = {key: values[-1] for key, values in visit.query.items()}
    visit.query.setdefault("limit", ["50"])
    page = await records.page_of(visit.store, family, dict(visit.query))
    fields = [_field(family, key, read, asked.get(key, "")) for key, read in family.filters.items()]
    filters = {key: value for key, value in asked.items() if key not in ("cursor", "limit")}
    rows = [(key_of(name, item), item) for item in page["items"]]
    actions = [action for owner, action in ACTIONS if owner == name] if visit.writes else []
    extra = {
        "family": name, "fields": fields, "filters": filters, "rows": rows, "columns": COLUMNS[name],
        "limit": visit.query["limit"][-1], "actions": actions, "first": "cursor" not in asked,
    }  # fmt: skip
    return Shown("list.html", name.capitalize(), page, extra)


async def record(visit: Visit, name: str) -> Shown:
    """One record: its value, its revisions with the difference of two, its events, and what it belongs to."""
    family = FAMILIES[name]
    key = read_key(family, visit.rest(name))
    if name == "savepoints":
        return await savepoint(visit, key)
    shown = plain(await _found(visit, family, key))
    data: dict[str, Any] = {"record": shown, "history": [], "events": [], "diff": None, "error": None, "lease": None}
    chosen = (visit.one("from"), visit.one("to"))
    if name in ("instances", "executions", "machines"):
        await _revisions(visit, name, key, data, chosen)
    if name == "executions":
        data["events"] = (await records.events_of(visit.store, family, key, {"last": ["200"]}))["items"]
    if name == "machines":
        data["error"] = plain(await visit.store.machines.last_error(*key))
    if name in ("instances", "executions"):
        data["lease"] = plain(await visit.store.leases.holder(key[0]))
    state = shown.get("status") or shown.get("state")
    actions = [action for owner, action in ACTIONS if owner == name] if visit.writes else []
    extra: dict[str, Any] = {
        "family": name,
        "key": list(key),
        "state": state,
        "actions": actions,
        "links": _links(visit, name, shown),
    }
    extra["states"] = [
        (item["updated_at"], str(item.get("status") or item.get("state"))) for item in reversed(data["history"])
    ]
    return Shown("record.html", "/".join(key), data, extra)


async def _found(visit: Visit, family: Listed, key: tuple[str, ...]) -> Any:
    asked = visit.one("value") == "1"
    if family.name == "results" and not asked:
        page = await visit.store.results.query(dag=key[0], id_prefix=key[1], limit=1)
        found = next((item for item in page.items if item.id == key[1]), None)
        if found is not None:
            return found.replace(value=OMITTED) if found.size > VALUE_BYTES else found
    found = await getattr(visit.store, family.name).find(*key, raw=True)
    if found is None:
        raise NotFound(f"no such record among {family.name}", kind=family.name, id="/".join(key))
    return found


async def _revisions(
    visit: Visit, name: str, key: tuple[str, ...], data: dict[str, Any], chosen: tuple[str, str]
) -> None:
    store_family: Any = getattr(visit.store, name)
    page = await store_family.history(*key, limit=100)
    history = plain(list(page.items))
    data["history"] = history
    by_revision = {str(item["revision"]): item for item in history}
    new = by_revision.get(chosen[1]) or (history[0] if history else None)
    old = by_revision.get(chosen[0]) or (history[1] if len(history) > 1 else None)
    if new and old:
        lines = [list(line) for line in differences(old, new)]
        data["diff"] = {"from": old["revision"], "to": new["revision"], "lines": lines}


def _links(visit: Visit, name: str, shown: dict[str, Any]) -> list[tuple[str, str]]:
    links = []
    if name == "executions":
        links.append((f"job {shown['job_id']}", visit.url("executions", job_id=shown["job_id"])))
        root = shown["id"].partition("/")[0]
        links.append((f"instances of {root}", visit.url("instances", id_prefix=root)))
    if name == "instances":
        links.append((f"workflow {shown['workflow']}", visit.url("instances", workflow=shown["workflow"])))
        links.append(("its executions", visit.url("executions", id_prefix=shown["id"].partition("/")[0])))
    if name == "machines":
        links.append(
            (f"definition of {shown['machine']}", visit.url("definitions", shown["machine"], name=shown["name"]))
        )
    if name == "results":
        links.append((f"DAG {shown['dag']}", visit.url("dags", shown["dag"])))
    return [*links, ("its changes", visit.url("feed", ids=shown.get("id") or shown.get("name")))]


async def savepoint(visit: Visit, key: tuple[str, ...]) -> Shown:
    """A savepoint: its entities, or how it differs from another of the run."""
    run, timestamp = key[0], number("timestamp", [key[1]])
    entities = await _entities(visit, run, timestamp)
    other = visit.one("with")
    lines = None
    if other:
        before = await _entities(visit, run, number("with", [other]))
        lines = [list(line) for line in differences(before, entities)]
    times = list(await visit.store.savepoints.list(run))[-200:]
    data = {"run": run, "timestamp": timestamp, "entities": entities, "with": other, "diff": lines, "timestamps": times}
    return Shown("savepoint.html", f"{run} at {timestamp}", data, {"limit": ENTITIES})


async def _entities(visit: Visit, run: str, timestamp: int) -> dict[str, Any]:
    try:
        cut = await visit.store.savepoints.at(run, timestamp)
    except NoSavepoint as error:
        raise NotFound(f"no savepoint of {run!r} at {timestamp}", kind="savepoints", id=run) from error
    if cut.timestamp != timestamp:
        raise NotFound(f"no savepoint of {run!r} at {timestamp}", kind="savepoints", id=run)
    entities: dict[str, Any] = {}
    async for id, state in cut.entities():
        if len(entities) >= ENTITIES:
            break
        entities[id] = plain(state)
    return entities


async def run(visit: Visit) -> Shown:
    """The savepoints of a run, newest first, with their sizes."""
    (name,) = read_key(Listed("runs", ("run",), {}), visit.rest("runs"))
    page = await records.page_of(visit.store, FAMILIES["savepoints"], {"run": [name], "limit": ["100"]})
    return Shown("run.html", f"Run {name}", {"run": name, **page})


async def dag(visit: Visit) -> Shown:
    """The values of a DAG as a graph, with the nodes that hold them."""
    (name,) = read_key(Listed("dags", ("dag",), {}), visit.rest("dags"))
    page = await visit.store.results.query(dag=name, limit=NODES, cursor=visit.one("cursor") or None)
    locations = await visit.store.locations.of_dag(name)
    items = [
        {
            "id": item.id, "size": item.size, "producer": plain(item.producer), "inputs": _input_ids(item.inputs),
            "nodes": [location.node for location in locations.get(item.id, ())],
        }
        for item in page.items
    ]  # fmt: skip
    ids = {item["id"] for item in items}
    items += [
        {"id": id, "size": None, "producer": None, "inputs": [], "nodes": [location.node for location in where]}
        for id, where in list(locations.items())[:NODES]
        if id not in ids
    ]
    boxes = [
        Box(item["id"], item["id"], visit.url("results", name, item["id"]), ", ".join(item["nodes"])) for item in items
    ]
    edges = [Edge(start, item["id"]) for item in items for start in item["inputs"]]
    data = {"dag": name, "items": items, "cursor": page.cursor}
    return Shown("dag.html", f"DAG {name}", data, {"boxes": boxes, "edges": edges})


def _input_ids(inputs: Any) -> list[str]:
    """The texts in what a value was made from: those that name values of the DAG become arrows."""
    line: list[Any] = [inputs]
    ids: list[str] = []
    while line and len(ids) < NODES:
        value = line.pop()
        if isinstance(value, str):
            ids.append(value)
        elif isinstance(value, dict):
            line += value.values()
        elif isinstance(value, list | tuple):
            line += value
    return sorted(set(ids))


async def definition(visit: Visit) -> Shown:
    """A machine's definition as a diagram, with the way that one of its kind took."""
    (machine,) = read_key(Listed("definitions", ("machine",), {}), visit.rest("definitions"))
    name = visit.one("name")
    try:
        defined = await visit.store.machines.definition(machine)
    except StoreError as error:
        if error.code != "not-found":
            raise
        defined = None
    way: list[dict[str, Any]] = []
    if name:
        page = await visit.store.machines.history(machine, name, limit=100)
        way = [
            {"from": item.previous_state, "event": item.event, "to": item.state, "at": plain(item.updated_at)}
            for item in reversed(page.items)
        ]
    boxes, edges = _diagram(defined, way)
    transitions = plain(defined.transitions) if defined is not None else None
    data = {"machine": machine, "name": name, "transitions": transitions, "way": way}
    return Shown("definition.html", f"Machine {machine}", data, {"boxes": boxes, "edges": edges})


def _diagram(defined: Any, way: list[dict[str, Any]]) -> tuple[list[Box], list[Edge]]:
    steps = {(step["from"], step["to"]) for step in way if step["from"] is not None}
    here = way[-1]["to"] if way else None
    if defined is None:
        edges = [Edge(start, end, "", "taken") for start, end in sorted(steps)]
        states = list(dict.fromkeys(step["to"] for step in way))
        return [Box(state, state, kind="here" if state == here else "wait") for state in states], edges
    edges = [
        Edge(start, end, str(event), "taken" if (start, end) in steps else "")
        for start, events in defined.transitions.items()
        for event, end in events.items()
    ]
    named = [state for edge in edges for state in (edge.start, edge.end)]
    states = list(dict.fromkeys([defined.initial, *defined.transitions, *named, *defined.final]))
    boxes = [
        Box(
            state,
            state,
            kind="here" if state == here else state_class(state),
            note=_note(state, defined),
        )
        for state in states
        if state is not None
    ]
    return boxes, edges


def _note(state: str, defined: Any) -> str:
    return "initial" if state == defined.initial else "final" if state in defined.final else ""
