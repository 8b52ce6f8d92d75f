"""Drawings as SVG: sparklines, timelines and graphs. Every text in them is escaped."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from markupsafe import Markup

BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y = 180, 40, 90, 26
NODES = 200


class Box(NamedTuple):
    """A node of a graph."""

    id: str
    text: str
    href: str = ""
    note: str = ""
    kind: str = ""


class Edge(NamedTuple):
    """An arrow of a graph."""

    start: str
    end: str
    text: str = ""
    kind: str = ""


def sparkline(values: Sequence[float], name: str) -> Markup:
    """A line of values over the last hour."""
    if len(values) < 2:
        return Markup('<span class="quiet">no samples yet</span>')
    top = max(values) or 1.0
    step = 200 / (len(values) - 1)
    points = " ".join(f"{i * step:.1f},{38 - 36 * max(0.0, value) / top:.1f}" for i, value in enumerate(values))
    return Markup(
        '<svg class="spark" viewBox="0 0 200 40" role="img" aria-label="{name}: {last:g} now, at most {top:g}"'
        ' preserveAspectRatio="none"><polyline points="{points}"/></svg>'
    ).format(name=name, last=round(values[-1], 2), top=round(top, 2), points=points)


def state_class(state: object) -> str:
    """The class that colours a state."""
    good, bad, live = {"completed"}, {"failed", "cancelled"}, {"running", "publishing", "bid_accepted"}
    text = str(state)
    return "good" if text in good else "bad" if text in bad or "reject" in text else "live" if text in live else "wait"


def timeline(revisions: Sequence[tuple[str, str]], events: Iterable[str] = ()) -> Markup:
    """A bar of states over time. `revisions`: times (ISO 8601) and states, oldest first; `events`: times of events."""
    if not revisions:
        return Markup("")
    times = [datetime.fromisoformat(at).timestamp() for at, _ in revisions]
    ticks = [datetime.fromisoformat(at).timestamp() for at in events]
    start, end = min([*times, *ticks]), max([*times, *ticks])
    span = (end - start) or 1.0
    width = 700.0

    def x(at: float) -> float:
        return 10 + (at - start) / span * width

    parts = []
    for index, (_, state) in enumerate(revisions):
        left = x(times[index])
        right = x(times[index + 1]) if index + 1 < len(times) else 10 + width + 80
        parts.append(
            Markup('<rect class="bar {kind}" x="{x:.1f}" y="26" width="{w:.1f}" height="18"/>').format(
                kind=state_class(state), x=left, w=max(2.0, right - left)
            )
        )
        changed = index == 0 or revisions[index - 1][1] != state
        if changed and right - left > 40:
            parts.append(Markup('<text x="{x:.1f}" y="18">{t}</text>').format(x=left, t=state[:20]))
    parts += [Markup('<circle class="tick" cx="{x:.1f}" cy="54" r="3"/>').format(x=x(at)) for at in ticks]
    return Markup(
        '<svg class="timeline" viewBox="0 0 800 64" role="img" aria-label="{n} revisions over {span:.3g} s">'
        "{inner}</svg>"
    ).format(n=len(revisions), span=end - start, inner=Markup("").join(parts))


def _layers(ids: Sequence[str], edges: Sequence[Edge]) -> Mapping[str, int]:
    """The column of each node: one more than that of the first that leads to it; circles are cut."""
    out: dict[str, list[str]] = {id: [] for id in ids}
    reached = set()
    for edge in edges:
        if edge.start != edge.end and edge.start in out and edge.end in out:
            out[edge.start].append(edge.end)
            reached.add(edge.end)
    column: dict[str, int] = {}
    heads = [id for id in ids if id not in reached] or list(ids[:1])
    for head in [*heads, *ids]:
        if head in column:
            continue
        column[head] = 0
        line = [head]
        while line:
            id = line.pop(0)
            for target in out[id]:
                if target not in column:
                    column[target] = column[id] + 1
                    line.append(target)
    return column


def graph(boxes: Sequence[Box], edges: Sequence[Edge], name: str) -> Markup:
    """A graph in columns from left to right."""
    if not boxes:
        return Markup('<p class="quiet">nothing to draw</p>')
    column = _layers([box.id for box in boxes], edges)
    rows: dict[int, int] = {}
    at: dict[str, tuple[int, int]] = {}
    for box in boxes:
        layer = column[box.id]
        row = rows.get(layer, 0)
        rows[layer] = row + 1
        at[box.id] = (20 + layer * (BOX_WIDTH + GAP_X), 34 + row * (BOX_HEIGHT + GAP_Y))
    width = 40 + (max(rows) + 1) * (BOX_WIDTH + GAP_X) - GAP_X
    height = 60 + max(rows.values()) * (BOX_HEIGHT + GAP_Y)
    inner = [_arrow(edge, at) for edge in edges if edge.start in at and edge.end in at]
    inner += [_box(box, *at[box.id]) for box in boxes]
    marker = Markup(
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="9" markerHeight="9"'
        ' markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0 8 4 0 8z"/></marker></defs>'
    )
    return Markup(
        '<div class="scroll" tabindex="0" role="region" aria-label="{name}">'
        '<svg class="graph" width="{w}" height="{h}" viewBox="0 0 {w} {h}">{m}{inner}</svg></div>'
    ).format(name=name, w=width, h=height, m=marker, inner=Markup("").join(inner))


def _box(box: Box, x: int, y: int) -> Markup:
    text = box.text if len(box.text) <= 22 else box.text[:21] + "…"
    body = Markup(
        '<rect class="node {kind}" x="{x}" y="{y}" width="{w}" height="{h}" rx="6"/>'
        '<text x="{tx}" y="{ty}">{text}</text><text class="note" x="{tx}" y="{ny}">{note}</text><title>{full}</title>'
    ).format(
        kind=box.kind, x=x, y=y, w=BOX_WIDTH, h=BOX_HEIGHT, tx=x + 10, text=text, note=box.note[:28],
        ty=y + (17 if box.note else 25), ny=y + 33, full=box.text,
    )  # fmt: skip
    return Markup('<a href="{href}">{body}</a>').format(href=box.href, body=body) if box.href else body


def _arrow(edge: Edge, at: Mapping[str, tuple[int, int]]) -> Markup:
    (x1, y1), (x2, y2) = at[edge.start], at[edge.end]
    middle = BOX_HEIGHT // 2
    if edge.start == edge.end:
        path = f"M{x1 + 60} {y1} c-10 -26 50 -26 40 0"
        tx, ty = x1 + 80, y1 - 22
    elif x2 > x1:
        right, level = x1 + BOX_WIDTH, y2 + middle
        path = f"M{right} {y1 + middle} C{right + 40} {y1 + middle} {x2 - 40} {level} {x2} {level}"
        tx, ty = (x1 + BOX_WIDTH + x2) // 2, (y1 + y2) // 2 + middle - 5
    elif x2 == x1:
        right, start, end = x1 + BOX_WIDTH, y1 + middle, y2 + middle
        path = f"M{right} {start} C{right + 50} {start} {right + 50} {end} {right} {end}"
        tx, ty = right + 42, (start + end) // 2 + 4
    else:
        path = f"M{x1 + 90} {y1 + BOX_HEIGHT} C{x1 + 90} {y1 + 90} {x2 + 90} {y2 + 90} {x2 + 90} {y2 + BOX_HEIGHT}"
        tx, ty = (x1 + x2) // 2 + 90, max(y1, y2) + 74
    text = Markup('<text class="label" x="{x}" y="{y}">{t}</text>').format(x=tx, y=ty, t=edge.text[:16])
    return Markup('<path class="edge {kind}" d="{d}" marker-end="url(#arrow)"/>{text}').format(
        kind=edge.kind, d=path, text=text if edge.text else ""
    )
