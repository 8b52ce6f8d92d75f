"""How a watcher goes about its work, checked once."""

from collections.abc import Collection
from typing import Any, Literal

import msgspec

from .. import arguments
from ..errors import InvalidArgument
from ..feed.positions import BEGINNING
from ..limits import PAGE_ITEMS

OnError = Literal["block", "skip"]
"""After an error of a handler: try for ever, or leave a dead letter and go on."""


class WatchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of ``store.watch`` beside a name and a handler."""

    families: Collection[str] | None = None
    ops: Collection[str] | None = None
    start: str = BEGINNING
    batch: int = 100
    on_error: OnError = "block"
    max_retries: int = 3
    backoff: tuple[float, float] = (0.2, 180)
    """The first and the longest pause after an error, in seconds."""
    ephemeral: bool = False
    checkpoint_every: int = 1

    @property
    def skip(self) -> bool:
        """Say whether a change that the handler refuses becomes a dead letter."""
        return self.on_error == "skip"

    def checked(self) -> "WatchOptions":
        """These options as plain values, all of which are allowed; else `InvalidArgument`."""
        return msgspec.structs.replace(
            self,
            start=arguments.text(self.start, "start"),
            batch=arguments.number(self.batch, "batch", least=1, most=PAGE_ITEMS),
            on_error=arguments.choice(self.on_error, "on_error", ("block", "skip")),
            max_retries=arguments.number(self.max_retries, "max_retries"),
            backoff=_make_backoff(self.backoff),
            checkpoint_every=arguments.number(self.checkpoint_every, "checkpoint_every"),
        )


def _make_backoff(pair: Any) -> tuple[float, float]:
    try:
        least, most = pair
        if 0 <= least <= most < 1e6:
            return least, most
    except (TypeError, ValueError):
        pass
    raise InvalidArgument(f"backoff is {pair!r}; use (least, most) seconds", what="backoff", value=pair)
