"""Values of any size that hang on no record's row: events, and what `once` keeps."""

from .. import keys
from ..errors import Damaged, Undecodable
from ..records.audit import Problem
from ..records.kind import owner_of, wrapper_in
from ..values import wrapper
from .rows import Look, readable

_KEPT = {keys.EVENTS: "executions", keys.ONCE: "once"}
"""Tags of rows whose values no family looks at in `check`, and to whom they belong."""


async def audit_values(look: Look) -> list[Problem]:
    """Values that cannot be rebuilt here, or not read at all."""
    problems: list[Problem] = []
    for tag, family in _KEPT.items():
        prefix = look.scope.key(tag)
        async for rows in look.runs(f"values of {family}", prefix):
            for row in rows:
                suffix = row.key[len(look.scope.prefix) :]
                owner = readable(suffix[len(tag) :])
                try:
                    owner = owner_of(suffix)
                    data = await wrapper.fetch(look.reader.look_at(owner), row.key, wrapper_in(look.scope, row) or b"")
                    look.scope.codec.decode(data)
                except Damaged as error:
                    code = "undecodable" if isinstance(error, Undecodable) else "damaged"
                    id = owner if family == "executions" else readable(suffix[len(tag) :])
                    problems.append(
                        Problem(code, f"a value of {family} {id!r}: {error.message}", family, id, look.part)
                    )
    return problems
