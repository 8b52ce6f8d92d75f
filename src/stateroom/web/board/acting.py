"""Actions as forms: on one record, and in bounded steps on all that a filter matches."""

from typing import Any
from urllib.parse import unquote

from starlette.responses import RedirectResponse, Response

from ...errors import InvalidArgument, StoreError
from ..actions import ACTIONS, act, read_order, run_retention
from ..errors import HttpError
from ..families import FAMILIES, read_filters
from .render import Shown, Visit

STEP = 50
"""Records of one step: a page load that is stopped has done no more."""

COUNTED = 10_000
"""Matches are counted up to this many."""

DESTROYING = frozenset({"delete"})


def check_form(visit: Visit, form: dict[str, str]) -> None:
    """Raise `HttpError` for a form of somebody who may not write, or of another site."""
    if visit.session is None:
        raise HttpError(401, "unauthenticated", "sign in with a token that may write")
    visit.server.guard.admit_write(visit.request, visit.session.token)
    visit.session.check(form.get("csrf", ""))


async def act_on_one(visit: Visit, form: dict[str, str]) -> Response:
    """Carry out what a form asks of one record, and go back to where it stood."""
    check_form(visit, form)
    family, _, path = visit.rest("act").partition("/")
    start, _, action = path.rpartition("/")
    body: dict[str, Any] = {"why": form.get("why", "")}
    if (family, action) == ("retention", "run"):
        await run_retention(visit.store, read_order(action, family, (), visit.token, body))
        return _back(visit.url("retention"))
    if (family, action) not in ACTIONS:
        raise HttpError(404, "not-found", f"{family[:50]} have no action {action[:50]!r}")
    if action in DESTROYING and form.get("sure") != "yes":
        raise InvalidArgument("tick the box that says so: what is deleted does not come back", what="sure")
    if "position" in form:
        body["position"] = form["position"]
    names, _ = ACTIONS[family, action]
    key = tuple(unquote(step, errors="strict") for step in start.split("/", names - 1))
    await act(visit.store, read_order(action, family, key, visit.token, body))
    if family not in FAMILIES:
        return _back(visit.url("consumers" if family in ("checkpoints", "dead_letters") else family))
    return _back(visit.url(family) if action in DESTROYING else visit.url(family, *key))


def _back(address: str) -> Response:
    return RedirectResponse(address, 303)


def _bulk(visit: Visit) -> tuple[str, str]:
    family, _, action = visit.rest("bulk").partition("/")
    if (family, action) not in ACTIONS or family not in FAMILIES:
        raise HttpError(404, "not-found", f"{family[:50]} have no action {action[:50]!r}")
    return family, action


async def _count(visit: Visit, family: str, filters: dict[str, list[str]]) -> int:
    """How many records a filter matches, up to `COUNTED`."""
    arguments = read_filters(FAMILIES[family], filters)
    store_family: Any = getattr(visit.store, family)
    total, cursor = 0, None
    while total < COUNTED:
        page = await store_family.query(**{**arguments, "limit": 1000}, cursor=cursor)
        total += len(page.items)
        cursor = page.cursor
        if cursor is None:
            break
    return min(total, COUNTED)


async def ask_for_all(visit: Visit) -> Shown:
    """Say how many records a filter matches, and ask for a typed confirmation."""
    if not visit.writes:
        raise HttpError(403, "forbidden", "sign in with a token that may write")
    family, action = _bulk(visit)
    filters = {name: values for name, values in visit.query.items() if name not in ("cursor", "limit")}
    total = await _count(visit, family, filters)
    data = {"family": family, "action": action, "total": total, "filters": {k: v[-1] for k, v in filters.items()}}
    extra = {"confirm": f"{action} {total}", "capped": total >= COUNTED, "run": None}
    return Shown("bulk.html", f"{action.capitalize()} {total} {family}", data, extra)


async def act_on_all(visit: Visit, form: dict[str, str]) -> Shown:
    """One step of a bulk action: at most `STEP` records, then a page that goes on or ends."""
    check_form(visit, form)
    family, action = _bulk(visit)
    total, done = _number(form, "total"), _number(form, "done")
    failed = _number(form, "failed")
    if form.get("confirm", "").strip() != f"{action} {total}":
        raise InvalidArgument(f"type {action!r} and the number, as the page says, to go on", what="confirm")
    filters = {name.removeprefix("filter."): value for name, value in form.items() if name.startswith("filter.")}
    arguments = read_filters(FAMILIES[family], {name: [value] for name, value in filters.items()})
    store_family: Any = getattr(visit.store, family)
    limit = max(0, min(STEP, total - done - failed))
    items: tuple[Any, ...] = ()
    cursor = form.get("cursor") or None
    if limit:
        page = await store_family.query(**{**arguments, "limit": limit}, cursor=cursor)
        items, cursor = page.items, page.cursor
    errors = []
    for item in items:
        key = tuple(str(getattr(item, name)) for name in FAMILIES[family].key)
        order = read_order(action, family, key, visit.token, {"why": form.get("why", "")})
        try:
            await act(visit.store, order)
            done += 1
        except StoreError as error:
            failed += 1
            errors.append(f"{'/'.join(key)}: {error.message}"[:300])
    ended = cursor is None or done + failed >= total
    data = {
        "family": family, "action": action, "total": total, "filters": filters, "done": done, "failed": failed,
        "errors": errors[:20], "ended": ended,
    }  # fmt: skip
    run = {"cursor": cursor or "", "why": form.get("why", "")}
    extra = {"confirm": f"{action} {total}", "capped": False, "run": run}
    return Shown("bulk.html", f"{action.capitalize()} {total} {family}", data, extra)


def _number(form: dict[str, str], name: str) -> int:
    text = form.get(name, "0")
    if not text.isdecimal() or len(text) > 9:
        raise InvalidArgument(f"{name} is {text[:30]!r}; use a whole number", what=name)
    return int(text)
