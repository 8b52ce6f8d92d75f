"""State machines of the package python-statemachine, kept in a store."""

from collections.abc import Mapping
from typing import Any, Self

from statemachine.orderedset import OrderedSet

from stateroom import Failure, Snapshot

from .snapshots import HeldSnapshot, StoreLike, state_text, state_value

HISTORY = "history_values"
"""Where the states to go back to are kept, among the attributes of the payload."""


class PersistentModel:
    """A model for a `StateMachine` or `StateChart` whose state is in a store.

    `machine` and `name` are those of the snapshot. `attributes` are kept beside the state, and are attributes of the
    model; those stored win. A machine made with a model that has a state starts in it and calls no entry callback. Each
    transition is saved when its callbacks are done; the first state with the first transition, or by `save`. A model
    that another process changed meanwhile is refused with `StaleRevision` before any callback of the next event runs;
    should that happen while they run, when it is saved.
    """

    def __init__(
        self,
        store: StoreLike,
        machine: str,
        name: str,
        *,
        attributes: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._held = HeldSnapshot(store, machine, name, **options)
        self._attributes = tuple(attributes or ())
        self._history: dict[str, list[str]] = {}
        self._history_is_given = False
        self._checked: Any = None
        self.state: Any = None
        """The active state, or the set of active states; None before the machine has started."""
        for attribute, value in (attributes or {}).items():
            setattr(self, attribute, value)
        self.reload()

    @property
    def revision(self) -> int:
        """The revision that this model read or wrote last; 0 where nothing is stored yet."""
        return self._held.revision

    def reload(self) -> bool:
        """Set the model to what is stored, and say whether there was something; no callback is called."""
        snapshot = self._held.access.run(self._held.read)
        if snapshot is None:
            return False
        state = state_value(snapshot.state)
        payload = dict(snapshot.payload or {})
        self._history = payload.pop(HISTORY, {})
        self._history_is_given = False
        self.state = OrderedSet(state) if isinstance(state, list) else state
        for attribute, value in payload.items():
            setattr(self, attribute, value)
        return True

    def save(self) -> None:
        """Store the model as it is, without an event: the first state, or attributes that changed."""
        self._write(None)

    def fail(self, reason: Any, event: str | None = None) -> None:
        """Store what went wrong (an exception, or data) as the machine's last error; its state stays."""
        self._held.access.run(lambda face: self._held.fail(face, reason, event))

    def history(self, limit: int = 100) -> tuple[Snapshot, ...]:
        """Return the snapshots, newest first."""
        return self._held.history(limit)

    def last_error(self) -> Failure | None:
        """Return what `fail` stored last."""
        return self._held.last_error()

    def close(self) -> None:
        """Close what was opened here."""
        self._held.access.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def prepare_event(self, machine: Any, event_data: Any) -> dict[str, Any]:
        """Refuse an event of a stale model; called by the machine."""
        if not self._history_is_given:
            states = {state.id: state for state in _states(machine)}
            for compound, ids in self._history.items():
                machine.history_values[compound] = [states[id] for id in ids if id in states]
            self._history_is_given = True
        if event_data.trigger_data is not self._checked:
            # Asked for each transition and state that the event concerns; the first is before any callback.
            self._held.access.run(self._held.check)
            self._checked = event_data.trigger_data
        return {}

    def after_transition(self, event: Any, machine: Any) -> None:
        """Save what a transition led to; called by the machine."""
        self._history = {id: [state.id for state in states] for id, states in machine.history_values.items()}
        self._write(str(event) or None)

    def _write(self, event: str | None) -> None:
        payload: dict[str, Any] = {attribute: getattr(self, attribute) for attribute in self._attributes}
        if self._history:
            payload[HISTORY] = self._history
        state = list(self.state) if isinstance(self.state, OrderedSet) else self.state
        self._held.access.run(lambda face: self._held.write(face, state_text(state), payload, event))


def _states(machine: Any) -> list[Any]:
    """List the states of a machine at every depth."""
    return list(machine.states_map.values())
