"""What engines that hand bytes to a library ask of a batch beside its limits."""

from ..engine import Batch, validate
from ..errors import InvalidArgument

__all__ = ["validate_bytes"]

_BYTES = {bytes, type(None)}


def validate_bytes(batch: Batch) -> None:
    """Check the limits, and that all is bytes: a library would notice only when the whole group is being written."""
    validate(batch)
    kinds = {*map(type, batch.write), *map(type, batch.write.values()), *map(type, batch.expect), *map(type, batch.add)}
    for prefix, value in batch.append:
        kinds.update((type(prefix), type(value)))
    if not kinds <= _BYTES:
        names = ", ".join(sorted(kind.__name__ for kind in kinds - _BYTES))
        raise InvalidArgument(f"a batch holds {names}; keys and values are bytes", what="batch")
