"""Actions of a token that may write: to one record, and never without a change in the feed that says who and why."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from .. import AsyncStore
from ..errors import InvalidArgument, NotFound
from .jsonable import plain
from .tokens import Token

OPERATOR = "operator"
"""The type of the changes that say what was done here."""


class Order(NamedTuple):
    """An action: on what, by whom and why, with its other arguments."""

    action: str
    family: str
    key: tuple[str, ...]
    who: str
    why: str
    arguments: dict[str, Any]


def read_order(action: str, family: str, key: tuple[str, ...], token: Token, body: Any) -> Order:
    """The order in a request. Raises `InvalidArgument` for a body that is none."""
    if body is not None and not isinstance(body, dict):
        raise InvalidArgument("the body must be a JSON object", what="body")
    arguments = dict(body or {})
    why = arguments.pop("why", "")
    if not isinstance(why, str) or len(why) > 1000:
        raise InvalidArgument("why must be a text of up to 1000 characters", what="why")
    return Order(action, family, key, token.name or "token", why, arguments)


def _said(order: Order) -> dict[str, Any]:
    return {
        "action": order.action, "family": order.family, "key": list(order.key), "who": order.who, "why": order.why,
    }  # fmt: skip


async def _cancel_instance(tx: Any, order: Order) -> Any:
    return plain(await tx.instances.cancel(*order.key))


async def _cancel_execution(tx: Any, order: Order) -> Any:
    return plain(await tx.executions.update(*order.key, state="cancelled", message=order.why or "cancelled"))


async def _delete(tx: Any, order: Order) -> Any:
    family = getattr(tx, order.family)
    deleted = await (family.purge if order.family == "machines" else family.delete)(*order.key)
    if not deleted:
        raise NotFound(f"no such record among {order.family}", kind=order.family, id="/".join(order.key))
    return {"deleted": True}


async def _cancel_timer(tx: Any, order: Order) -> Any:
    return {"cancelled": await tx.timers.cancel(*order.key)}


async def _done_timer(tx: Any, order: Order) -> Any:
    return {"done": await tx.timers.done(await tx.timers.get(*order.key))}


async def _release_lease(tx: Any, order: Order) -> Any:
    lease = await tx.leases.holder(*order.key)
    return {"released": lease is not None and await tx.leases.release(lease)}


async def _clear_error(tx: Any, order: Order) -> Any:
    return {"cleared": await tx.machines.clear_error(*order.key)}


async def _seek_checkpoint(tx: Any, order: Order) -> Any:
    position = order.arguments.get("position")
    if not isinstance(position, str):
        raise InvalidArgument("position must be a text: that of a change, or of another checkpoint", what="position")
    return plain(await tx.checkpoints.set(*order.key, position))


async def _delete_checkpoint(tx: Any, order: Order) -> Any:
    return {"deleted": await tx.checkpoints.delete(*order.key)}


async def _letter(tx: Any, order: Order) -> Any:
    watcher, id = order.key
    for letter in await tx.dead_letters.list(watcher):
        if str(letter.id) == id:
            return letter
    raise NotFound(f"no dead letter {id!r} of {watcher!r}", kind="dead_letters", id=id)


async def _retry_letter(tx: Any, order: Order) -> Any:
    await tx.dead_letters.retry(await _letter(tx, order))
    return {"retried": True}


async def _delete_letter(tx: Any, order: Order) -> Any:
    return {"deleted": await tx.dead_letters.delete(await _letter(tx, order))}


Act = Callable[[Any, Order], Awaitable[Any]]

ACTIONS: dict[tuple[str, str], tuple[int, Act]] = {
    ("instances", "cancel"): (1, _cancel_instance),
    ("instances", "delete"): (1, _delete),
    ("executions", "cancel"): (1, _cancel_execution),
    ("executions", "delete"): (1, _delete),
    ("machines", "delete"): (2, _delete),
    ("machines", "clear-error"): (2, _clear_error),
    ("results", "delete"): (2, _delete),
    ("timers", "cancel"): (1, _cancel_timer),
    ("timers", "done"): (1, _done_timer),
    ("leases", "release"): (1, _release_lease),
    ("checkpoints", "seek"): (1, _seek_checkpoint),
    ("checkpoints", "delete"): (1, _delete_checkpoint),
    ("dead_letters", "retry"): (2, _retry_letter),
    ("dead_letters", "delete"): (2, _delete_letter),
}
"""For each family and action: how many names its key has, and what does it."""


async def act(store: AsyncStore, order: Order) -> Any:
    """Carry an order out in one commit with the change that says who gave it. Raises what the store raises."""
    names, action = ACTIONS[order.family, order.action]
    if len(order.key) != names:
        raise InvalidArgument(f"{order.family} have keys of {names} names", what="key")
    owner = order.key[1] if order.family == "machines" else order.key[0]

    async def body(tx: Any) -> Any:
        result = await action(tx, order)
        await tx.feed.emit(OPERATOR, _said(order), id=owner)
        return result

    return await store.transact(body)


async def run_retention(store: AsyncStore, order: Order) -> Any:
    """Delete what the policies say, in bounded steps; the change that says so comes first."""
    await store.feed.emit(OPERATOR, _said(order))
    return plain(await store.retention.run(max_records=1000, max_seconds=10))
