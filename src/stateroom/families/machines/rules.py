"""Transition rules of machines: data that the store keeps, and checks in the batch that saves.

A definition stands in every part, for a save must read it in the part it writes: so a change of the definition and a
save that races with it are ordered. It is written part by part; the first part decides which of two changes is later.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec
import ormsgpack

from ... import arguments, keys
from ...codec import seal, unseal
from ...codec.malformed import parsing
from ...codec.shown import Shown
from ...core.namespace import Reader, Rows, Scope
from ...core.transaction import Transaction, transact
from ...errors import InvalidArgument, WrongState
from ...limits import VALUE_BYTES
from ...records.audit import Problem, rows_of

KEEP_HISTORY = 100
"""Revisions that are kept of each machine, where nothing else is defined."""

_MOST_BYTES = VALUE_BYTES // 2
# As it is stored. Made here, for a type that two threads meet first at the same time is not safe to decode.
_PACKED: msgspec.msgpack.Decoder[tuple[str, dict[str, dict[str, str]], str | None, tuple[str, ...], int, int]] = (
    msgspec.msgpack.Decoder(tuple[str, dict[str, dict[str, str]], str | None, tuple[str, ...], int, int])
)


class Definition(Shown, frozen=True):
    """The transitions that a machine may make."""

    machine: str
    transitions: Mapping[str, Mapping[str, str]]
    """State to event to the state that follows."""
    initial: str | None = None
    """The state of the first save; None: any state that the definition knows."""
    final: tuple[str, ...] = ()
    """States that nothing leaves, whatever `transitions` says."""
    keep_history: int = KEEP_HISTORY
    """Revisions that are kept of each machine."""
    generation: int = 0
    """1 for the first definition of a machine, +1 for each later one."""

    @property
    def states(self) -> frozenset[str]:
        """Every state that it knows."""
        targets = (target for edges in self.transitions.values() for target in edges.values())
        return frozenset((*self.transitions, *targets, *self.final))


def make(machine: str, transitions: Any, initial: Any, final: Any, keep_history: Any) -> Definition:
    """A checked definition. Raises `InvalidArgument`."""
    machine = arguments.name(machine, "machine")
    if not isinstance(transitions, Mapping):
        raise InvalidArgument(
            "transitions must be a mapping such as {'idle': {'start': 'running'}}",
            what="transitions",
            value=transitions,
        )
    table: dict[str, dict[str, str]] = {}
    for state, edges in transitions.items():
        if not isinstance(edges, Mapping):
            raise InvalidArgument(
                f"transitions of {state!r} must map events to states", what="transitions", value=edges
            )
        table[arguments.name(state, "state")] = {
            arguments.name(event, "event"): arguments.name(target, "state") for event, target in edges.items()
        }
    ends = tuple(dict.fromkeys(arguments.names(final, "final")))
    initial = arguments.optional_name(initial, "initial")
    definition = Definition(machine, table, initial, ends, arguments.number(keep_history, "keep_history"))
    if initial is not None and initial not in definition.states:
        names = ", ".join(sorted(definition.states)) or "none"
        raise InvalidArgument(
            f"initial state {initial!r} is in no transition; known are {names}", what="initial", value=initial
        )
    if len(_pack(definition)) > _MOST_BYTES:
        raise InvalidArgument(
            f"the definition of {machine!r} is over {_MOST_BYTES >> 10} KiB", what="transitions", value=len(table)
        )
    return definition


def row_key(scope: Scope, machine: str) -> bytes:
    return scope.key(keys.DEFINITION, keys.path(machine))


def _pack(definition: Definition) -> bytes:
    return ormsgpack.packb(
        [definition.machine, definition.transitions, definition.initial, list(definition.final),
         definition.keep_history, definition.generation]
    )  # fmt: skip


@lru_cache(256)
def _unpack(packed: bytes) -> Definition:
    return Definition(*_PACKED.decode(packed))


def decode(scope: Scope, key: bytes, value: bytes) -> Definition:
    """The definition in a row. Raises `Damaged`."""
    with parsing("the definition of a machine", kind="machines", key=key):
        return _unpack(scope.codec.reveal(key, unseal(key, value)))


async def load(rows: Rows, machine: str) -> Definition | None:
    """The definition as the part of some rows has it; remembered in a transaction."""
    key = row_key(rows.scope, machine)
    row = await rows.get(key)
    return None if row is None else decode(rows.scope, key, row.value)


async def newest(reader: Reader, machine: str) -> Definition | None:
    """The definition that was written last: as the first part has it."""
    key = row_key(reader.scope, machine)
    (row,) = await reader.in_part(0).peek([key])
    return None if row is None else decode(reader.scope, key, row.value)


async def store(scope: Scope, definition: Definition) -> Definition:
    """Write a definition to every part, beginning with the first, and give it with its generation."""
    generation = await _write(scope, 0, definition, None)
    for part in range(1, scope.parts):
        await _write(scope, part, definition, generation)
    return msgspec.structs.replace(definition, generation=generation)


async def _write(scope: Scope, part: int, definition: Definition, generation: int | None) -> int:
    """Write it to one part, unless a later one is there; without a generation it becomes the latest."""
    key = row_key(scope, definition.machine)

    async def body(tx: Transaction) -> int:
        row = await tx.rows.get(key)
        present = 0 if row is None else decode(scope, key, row.value).generation
        number = present + 1 if generation is None else generation
        if number > present:
            packed = _pack(msgspec.structs.replace(definition, generation=number))
            tx.rows.put(key, seal(key, scope.codec.protect(key, packed)))
        return number

    return await transact(scope, body, part=part)


def check(definition: Definition | None, name: str, before: str | None, state: str, event: str | None) -> None:
    """Raise `WrongState` for a save that the definition does not allow; `before`: the state now, None: no snapshot."""
    if definition is None:
        return
    if before is None:
        allowed = definition.states if definition.initial is None else frozenset({definition.initial})
        if state not in allowed:
            raise _refused(definition, name, None, allowed, f"begins as {' or '.join(sorted(allowed))}, not {state}")
        return
    if state == before and event is None:
        return  # a new payload for the same state
    if before not in definition.states:  # defined anew without it: no rule says how to leave it
        if state in definition.states:
            return
        why = f"is {before}, and neither that nor {state} is in its definition of now"
        raise _refused(definition, name, before, frozenset(), why)
    if before in definition.final and state != before:
        raise _refused(definition, name, before, frozenset(), f"is {before}, which is final")
    edges = definition.transitions.get(before, {})
    if edges.get(event) == state if event is not None else state in edges.values():
        return
    sources = frozenset(
        source
        for source, leaving in definition.transitions.items()
        if source not in definition.final
        and (leaving.get(event) == state if event is not None else state in leaving.values())
    )
    how = "" if event is None else f" by {event}"
    raise _refused(definition, name, before, sources, f"is {before}, and no transition leads to {state}{how}")


def _refused(definition: Definition, name: str, actual: str | None, expected: frozenset[str], why: str) -> WrongState:
    return WrongState(
        f"machine {definition.machine!r}, name {name!r} {why}",
        kind="machines",
        id=f"{definition.machine}/{name}",
        actual=actual,
        expected=expected,
        terminal=actual in definition.final,
    )


async def audit(reader: Reader, part: int) -> list[Problem]:
    """Definitions of a part that are not those of the first part: a change of them was interrupted."""
    prefix = reader.scope.key(keys.DEFINITION)
    rows_here = {row.key: row.value for row in await rows_of(reader, part, prefix)}
    first = rows_here if part == 0 else {row.key: row.value for row in await rows_of(reader, 0, prefix)}
    problems = []
    for key in sorted(rows_here.keys() | first.keys()):
        pair = [decode(reader.scope, key, rows[key]) if key in rows else None for rows in (rows_here, first)]
        if pair[0] != pair[1]:
            machine = key[len(prefix) : -1].decode(errors="replace")
            message = f"machine {machine!r} is defined otherwise than in part 0; define it again"
            problems.append(Problem("definition-behind", message, "machines", machine, part))
    return problems
