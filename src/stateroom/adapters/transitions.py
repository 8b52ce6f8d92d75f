"""State machines of the package transitions, kept in a store."""

from collections.abc import Sequence
from enum import Enum
from typing import Any, Self

from transitions import Machine
from transitions.extensions.asyncio import AsyncMachine

from stateroom import Failure, Snapshot
from stateroom.errors import InvalidArgument, Refused

from .faces import Face
from .snapshots import HeldSnapshot, StoreLike, state_text, state_value


def persist(
    machine: Machine,
    store: StoreLike,
    name: str,
    *,
    machine_name: str | None = None,
    model: Any = None,
    attributes: Sequence[str] = (),
    **options: Any,
) -> "Persistence":
    """Keep a model's state in `store`: restore it now, and save it at each change of state.

    `name` is the snapshot's name, `machine_name` its machine (omitted: that of the model's class). `model` may be left
    out where the machine has one; `attributes` of the model are kept beside the state. Restoring sets the state and
    calls no callback. A model that another process changed meanwhile is refused with `StaleRevision` before any of its
    callbacks runs, and, should that happen while they run, when it is saved: its state is then what it was before the
    event. An exception in a callback is stored as the machine's last error and comes through.
    """
    if not isinstance(machine, Machine):
        raise InvalidArgument(f"give a Machine of transitions, not {type(machine).__name__}", what="machine")
    if model is None:
        if len(machine.models) != 1:
            raise InvalidArgument(
                f"the machine has {len(machine.models)} models; say with model= which one to keep", what="model"
            )
        model = machine.models[0]
    kind = machine_name or type(model).__name__
    return Persistence(machine, model, tuple(attributes), HeldSnapshot(store, kind, name, **options))


class Persistence:
    """A model's place in a store, from `persist`."""

    def __init__(self, machine: Machine, model: Any, attributes: tuple[str, ...], held: HeldSnapshot) -> None:
        self._machine = machine
        self._model = model
        self._attributes = attributes
        self._held = held
        self._before: Any = None
        self.restored = self.reload()
        """Whether there was a snapshot when this was made."""
        hooks: tuple[Any, Any, Any] = (self._prepare, self._save, self._except)
        if isinstance(machine, AsyncMachine):
            hooks = (self._aprepare, self._asave, self._aexcept)
        _give_events(machine)
        machine.prepare_event.insert(0, _Hook(hooks[0]))
        machine.after_state_change.append(_Hook(hooks[1]))
        machine.on_exception.insert(0, _Hook(hooks[2]))

    @property
    def revision(self) -> int:
        """The revision that this model read or wrote last; 0 where nothing is stored yet."""
        return self._held.revision

    def reload(self) -> bool:
        """Set the model to what is stored, and say whether there was something; no callback is called."""
        snapshot = self._held.access.run(self._held.read)
        if snapshot is None:
            return False
        self._machine.set_state(state_value(snapshot.state), self._model)
        for attribute, value in (snapshot.payload or {}).items():
            setattr(self._model, attribute, value)
        return True

    def save(self) -> None:
        """Store the model as it is, without an event: its first state, or attributes that changed."""
        self._held.access.run(lambda face: self._write(face, None))

    def history(self, limit: int = 100) -> tuple[Snapshot, ...]:
        """Return the snapshots, newest first."""
        return self._held.history(limit)

    def last_error(self) -> Failure | None:
        """Return the last exception of a callback, as stored."""
        return self._held.last_error()

    def close(self) -> None:
        """Close what was opened here."""
        self._held.access.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _prepare(self, event: Any) -> None:
        if event.model is self._model:
            self._before = getattr(self._model, self._machine.model_attribute)
            self._held.access.run(self._held.check)

    async def _aprepare(self, event: Any) -> None:
        if event.model is self._model:
            self._before = getattr(self._model, self._machine.model_attribute)
            await self._held.access.arun(self._held.check)

    def _save(self, event: Any) -> None:
        if event.model is self._model:
            try:
                self._held.access.run(lambda face: self._write(face, event.event.name))
            except BaseException:
                setattr(self._model, self._machine.model_attribute, self._before)
                raise

    async def _asave(self, event: Any) -> None:
        if event.model is self._model:
            try:
                await self._held.access.arun(lambda face: self._write(face, event.event.name))
            except BaseException:
                setattr(self._model, self._machine.model_attribute, self._before)
                raise

    def _except(self, event: Any) -> None:
        if event.model is self._model and _is_own(event.error):
            self._held.access.run(lambda face: self._held.fail(face, event.error, event.event.name))
        self._raise(event)

    async def _aexcept(self, event: Any) -> None:
        if event.model is self._model and _is_own(event.error):
            await self._held.access.arun(lambda face: self._held.fail(face, event.error, event.event.name))
        self._raise(event)

    def _raise(self, event: Any) -> None:
        """Let the exception through, as transitions does where nobody else handles it."""
        if all(isinstance(handler, _Hook) for handler in self._machine.on_exception):
            raise event.error

    async def _write(self, face: Face, event: str | None) -> None:
        state = _names(getattr(self._model, self._machine.model_attribute))
        payload = {attribute: getattr(self._model, attribute) for attribute in self._attributes}
        await self._held.write(face, state_text(state), payload, event)


class _Hook:
    """A callback that is given the event, also where the machine gives callbacks the arguments of the trigger."""

    def __init__(self, hook: Any) -> None:
        self._hook = hook

    def __call__(self, event: Any) -> Any:
        return self._hook(event)


def _give_events(machine: Any) -> None:
    """Let a machine call hooks with the event."""
    call = machine.callback

    def callback(function: Any, event: Any) -> Any:
        return function(event) if isinstance(function, _Hook) else call(function, event)

    machine.callback = callback


def _is_own(error: Any) -> bool:
    """Say whether a callback raised this, rather than the store that refused a write."""
    return isinstance(error, Exception) and not isinstance(error, Refused)


def _names(state: Any) -> Any:
    if isinstance(state, list | tuple):
        return [_names(inner) for inner in state]
    return state.name if isinstance(state, Enum) else state
