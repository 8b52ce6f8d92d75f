"""Write the file that later versions must open: python tests/migration/write.py

Run once for each number of the file format, before the first release that has it; its file is then never changed. It
holds something of every family. What it must say is beside it, as JSON.
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import stateroom
from stateroom import Context, Event, Execution, Instance
from stateroom.engines.sqlite.opening import FORMAT
from stateroom.testing.faces import ManualClock

HERE = Path(__file__).parent
AT = datetime(2026, 5, 1, tzinfo=UTC)


def fill(store: stateroom.Store) -> None:
    """Something of every family; large values too."""
    store.machines.define("door", {"shut": {"open": "ajar"}, "ajar": {"shut": "shut"}}, initial="shut")
    store.instances.start(Instance("order/1", "shop", business_key="order", context=Context({"a": (1, b"x")})))
    store.instances.put(Instance("order/2", "shop", status="completed", labels={"city": "Łódź"}))
    store.executions.create(
        Execution("order/e", "job", data={"n": 1 << 70}), events=[Event("asked", "t", {"a": {1, 2}})]
    )
    store.executions.update("order/e", state="running", events=[Event("began", at=AT)])
    store.machines.save("door", "order", "shut", {"n": 1})
    store.machines.save("door", "order", "ajar", {"n": 2}, event="open")
    store.machines.fail("door", "order", ValueError("stuck"))
    store.results.put("order", "small", (1, {"a": None}), producer="f")
    store.results.put("order", "large", "y" * 100_000)
    store.savepoints.init("order", schedule=10)
    store.savepoints.save("order", 10, {"a": 1, "b": [2]})
    store.savepoints.update("order", 20, changed={"c": 3}, removed=["b"])
    store.timers.set("order", AT, {"why": "later"})
    store.leases.acquire("order", "worker", 3600)
    store.checkpoints.set("mailer", store.feed.latest())
    store.feed.emit("mail", {"to": "a"}, "order")


def says(store: stateroom.Store) -> dict[str, Any]:
    """What the file says, as JSON can hold it."""
    found = {
        "instances": list(store.instances.scan()),
        "executions": list(store.executions.scan()),
        "events": store.executions.events("order/e"),
        "machines": store.machines.load("door", "order"),
        "history": store.machines.history("door", "order"),
        "failure": store.machines.last_error("door", "order"),
        "definition": store.machines.definition("door"),
        "results": [store.results.find("order", id) for id in store.results.ids("order")],
        "savepoints": {str(at): store.savepoints.at("order", at).to_dict() for at in store.savepoints.list("order")},
        "timers": store.timers.due(AT),
        "lease": store.leases.holder("order"),
        "checkpoints": [checkpoint.name for checkpoint in store.checkpoints.list()],
        "feed": [[change.op, change.family, list(change.key), change.record] for change in store.feed.read().items],
    }
    said: dict[str, Any] = json.loads(stateroom.to_json(found))
    for result in (*said["results"], *(change[3] or {} for change in said["feed"])):
        if isinstance(result, dict) and isinstance(result.get("value"), str):
            result["value"] = result["value"][:20]  # its digest says the rest
    said["failure"]["reason"].pop("traceback")
    return said


def main() -> None:
    """Write the file of this version's format, and what it says."""
    path = HERE / f"format-{FORMAT}.db"
    path.unlink(missing_ok=True)
    with stateroom.open(path, clock=ManualClock()) as store:
        fill(store)
        store.compact()
        said = says(store)
    path.with_suffix(".json").write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write(f"{path} {path.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
