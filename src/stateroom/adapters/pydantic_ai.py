"""Durable execution of Pydantic AI's agents: a run that was cut off goes on after its last finished step."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from pydantic_ai.durable_exec import (
    JSON_CODEC,
    BaseDurabilityCapability,
    DurabilityEngineSpec,
    JournalCallableOperationBackend,
    RoleBasedOperationConfig,
)

from stateroom.errors import InvalidArgument

from .faces import Access, Face
from .names import stored_key
from .snapshots import StoreLike


@dataclass
class _Run:
    id: str
    dag: str
    steps: Counter[str] = field(default_factory=Counter)
    agents: int = 0


class StateroomDurability(BaseDurabilityCapability[Any]):
    """A capability that keeps each model request and tool call of an agent in a url, a `Store` or an `AsyncStore`.

    It works inside `with durability.run(id)`: a run of the same id, in this process or a later one, is given what its
    steps gave before, and only what was not finished is done. Steps are results in the DAG `run:ID`, written when they
    end; a step that was cut off is done again. Two processes that run one id do each step once. Outside of `run` the
    agent runs as it does without the capability.
    """

    engine_spec = DurabilityEngineSpec(
        engine_name="Stateroom",
        durable_unit_noun="step",
        durable_container_noun="run",
        codec=JSON_CODEC,
        sequential_tools_in_durable_context=True,
    )

    def __init__(
        self,
        store: StoreLike = None,
        *,
        models: Mapping[str, Any] | None = None,
        event_stream_handler: Any = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(models=models, event_stream_handler=event_stream_handler, name=name)
        self._access = Access(store, **options)
        self._current: ContextVar[_Run | None] = ContextVar("stateroom_run", default=None)

    @contextmanager
    def run(self, id: str) -> Iterator[None]:
        """Make the agents that run in the block durable, under a name that says which run this is."""
        if self._current.get() is not None:
            raise InvalidArgument("a run is open in this task; a run in a run has no steps of its own", what="id")
        token = self._current.set(_Run(id, _dag(id)))
        try:
            yield
        finally:
            self._current.reset(token)

    async def forget(self, id: str) -> int:
        """Remove the steps of a run, and say how many there were; the next run of this id begins anew."""

        async def work(face: Face) -> int:
            removed: int = await face.done(face.store.results.clear(_dag(id)))
            return removed

        return await self._access.arun(work)

    def close(self) -> None:
        """Close what was opened here."""
        self._access.close()

    @property
    def in_durable_context(self) -> bool:
        """Say whether a run is open."""
        return self._current.get() is not None

    def get_default_run_id(self) -> str | None:
        """Return the id that an agent's run has, the same when it is replayed."""
        run = self._current.get()
        if run is None:
            return None
        run.agents += 1
        return run.id if run.agents == 1 else f"{run.id}-{run.agents}"

    def get_durable_operation_backend(self) -> "JournalCallableOperationBackend[None]":
        """Return what stores the steps."""
        return _Steps(self)

    async def step(self, name: str, body: Callable[[], Awaitable[object]]) -> object:
        """Do a step, or give what it gave before."""
        run = self._current.get()
        if run is None:
            return await body()
        number = run.steps[name]
        run.steps[name] += 1

        async def compute(*_: Any) -> object:
            return await body()

        async def work(face: Face) -> object:
            return await face.done(face.store.results.memo(run.dag, "step", {"name": name, "number": number}, compute))

        return await self._access.arun(work)


class _Steps(JournalCallableOperationBackend[None]):
    def __init__(self, durability: StateroomDurability) -> None:
        super().__init__(
            agent_name=durability.name,
            default_model_id=durability.default_model_id,
            config=RoleBasedOperationConfig(model=None, event=None, capability=None, tool=None),
        )
        self._durability = durability

    async def execute(
        self,
        *,
        operation_id: Any,
        name: str,
        body: Callable[[], Awaitable[object]],
        cache_key: tuple[object, ...],
        config: None,
    ) -> object:
        """Do an operation as the next step of its name."""
        return await self._durability.step(name, body)


def _dag(id: str) -> str:
    return "run:" + stored_key(id, 200)
