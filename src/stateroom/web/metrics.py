"""Metrics of a store for Prometheus, written as text; counters of the server itself beside them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from .. import AsyncStore


class Served:
    """Requests that were answered, by method and status."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.streams = 0

    def count(self, method: str, status: int) -> None:
        """Count one answer."""
        self.requests[method if method in ("GET", "POST", "HEAD") else "OTHER", status] += 1


def _label(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _family(name: str, kind: str, text: str, samples: Sequence[tuple[dict[str, str], float]]) -> list[str]:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        inner = ",".join(f"{key}={_label(label)}" for key, label in labels.items())
        lines.append(f"{name}{{{inner}}} {value:g}" if inner else f"{name} {value:g}")
    return lines


async def text_of(store: AsyncStore, served: Served) -> str:
    """The metrics in Prometheus' text format."""
    stats: Any = await store.stats()
    space = {"namespace": stats.namespace}
    states = [
        ({**space, "family": family, "state": state}, count)
        for family in ("instances", "executions", "machines")
        for state, count in getattr(stats, family).items()
    ]
    lines = _family("stateroom_records", "gauge", "Records by family and state.", states)
    lines += _family("stateroom_commits_total", "counter", "Commits to the database so far.", [({}, stats.commits)])
    if stats.bytes is not None:
        lines += _family("stateroom_bytes", "gauge", "Size of the database on disk.", [({}, stats.bytes)])
    lags = [({**space, "consumer": lag.name}, lag.commits) for lag in stats.checkpoints]
    lines += _family("stateroom_feed_lag_commits", "gauge", "Commits that came after a consumer's checkpoint.", lags)
    lines += _family("stateroom_dead_letters", "gauge", "Changes watchers gave up on.", [(space, stats.dead_letters)])
    lines += _family("stateroom_sse_clients", "gauge", "Clients that follow the feed.", [({}, served.streams)])
    answers = [({"method": method, "status": str(code)}, n) for (method, code), n in sorted(served.requests.items())]
    lines += _family("stateroom_http_requests_total", "counter", "Requests answered.", answers)
    return "\n".join(lines) + "\n"
