"""OpenTelemetry: a span and a duration for each operation, under the stable conventions for databases.

Off until `instrument` is called; no value and no id is ever reported. Needs the extra `telemetry`.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from inspect import iscoroutinefunction
from time import perf_counter
from typing import Any

from .core.operation import observe
from .errors import InvalidArgument, StoreError

SYSTEM = "stateroom"
BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
"""Seconds, as the conventions advise."""


@cache
def _collection(family: str) -> str:
    """The attribute of a store that a family's class stands for: ``DeadLetters`` is ``dead_letters``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", family).lower()


def instrument(*, tracer_provider: Any = None, meter_provider: Any = None) -> None:
    """Report operations of stores that are opened from now on, to the providers given or to the global ones.

    Spans are called ``put instances`` and have the attributes ``db.system.name``, ``db.operation.name``,
    ``db.collection.name`` and ``db.namespace``, after an error ``error.type`` too; the metric is
    ``db.client.operation.duration`` in seconds. Iterations (scan) have none. Raises `InvalidArgument` where the extra
    is not installed.
    """
    try:
        from opentelemetry import metrics, trace
    except ImportError as error:
        raise InvalidArgument(
            'telemetry needs the extra: pip install "stateroom[telemetry]"', what="telemetry"
        ) from error
    tracer = trace.get_tracer("stateroom", tracer_provider=tracer_provider)
    meter = metrics.get_meter("stateroom", meter_provider=meter_provider)
    duration = meter.create_histogram(
        "db.client.operation.duration",
        unit="s",
        description="Duration of operations.",
        explicit_bucket_boundaries_advisory=BUCKETS,
    )
    kind, failed = trace.SpanKind.CLIENT, trace.StatusCode.ERROR

    @contextmanager
    def reported(name: str, attributes: dict[str, str]) -> Iterator[None]:
        started = perf_counter()
        labels = attributes
        with tracer.start_as_current_span(
            name, kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except BaseException as error:
                # Its text may hold what was stored.
                code = error.code if isinstance(error, StoreError) else type(error).__qualname__
                labels = {**attributes, "error.type": code}
                span.set_attribute("error.type", code)
                span.set_status(failed)
                raise
            finally:
                duration.record(perf_counter() - started, labels)

    observe(_observer(reported))


def _observer(reported: Any) -> Callable[[Callable[..., Any], str, str, str], Callable[..., Any]]:
    def observer(call: Callable[..., Any], family: str, name: str, namespace: str) -> Callable[..., Any]:
        collection = _collection(family)
        attributes = {
            "db.system.name": SYSTEM, "db.operation.name": name, "db.collection.name": collection,
            "db.namespace": namespace,
        }  # fmt: skip
        title = f"{name} {collection}"

        async def finish(work: Any) -> Any:
            with reported(title, attributes):
                return await work

        def observed(*args: Any, **kwargs: Any) -> Any:
            if is_async:
                return finish(call(*args, **kwargs))
            with reported(title, attributes):
                return call(*args, **kwargs)

        is_async = iscoroutinefunction(call)
        return observed

    return observer


def uninstrument() -> None:
    """Report nothing of stores that are opened from now on."""
    observe(None)


__all__ = ["instrument", "uninstrument"]
