"""Telemetry: what it says of an operation, what it never says, and that it is not there when off."""

import asyncio

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import stateroom
from stateroom import Instance, telemetry
from stateroom.core import operation
from stateroom.errors import NotFound


class Seen:
    def __init__(self):
        self.spans, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.meters = MeterProvider([self.reader])

    def names(self):
        return [span.name for span in self.spans.get_finished_spans()]


@pytest.fixture
def seen():
    seen = Seen()
    telemetry.instrument(tracer_provider=seen.tracers, meter_provider=seen.meters)
    yield seen
    telemetry.uninstrument()
    seen.tracers.shutdown()
    seen.meters.shutdown()


def test_each_operation_has_a_span_and_a_duration_without_values(seen):
    with stateroom.open("memory:", namespace="shop") as store:
        store.instances.put(Instance("secret-id", "secret-workflow"))
        with pytest.raises(NotFound):
            store.instances.get("secret-other")
        with store.transaction() as tx:
            tx.timers.next()
    spans = {span.name: span for span in seen.spans.get_finished_spans()}
    assert set(spans) - {"stop retention"} == {"put instances", "get instances", "next timers"}
    put, get = spans["put instances"], spans["get instances"]
    base = {"db.system.name": "stateroom", "db.collection.name": "instances", "db.namespace": "shop"}
    assert dict(put.attributes) == {**base, "db.operation.name": "put"}
    assert dict(get.attributes) == {**base, "db.operation.name": "get", "error.type": "not-found"}
    assert (put.status.is_ok, get.status.is_ok) == (True, False)
    data = seen.reader.get_metrics_data().to_json()
    assert "db.client.operation.duration" in data
    assert "secret" not in data + "".join(span.to_json() for span in spans.values())


def test_coroutines_are_timed_until_they_end(seen):
    async def work():
        async with stateroom.open_async("memory:") as store:
            await store.instances.put(Instance("a", "w"))
            assert [item.id async for item in store.instances.scan()] == ["a"]
            assert (await store.instances.get("a")).id == "a"

    asyncio.run(work())
    assert seen.names()[:2] == ["put instances", "get instances"]
    assert "scan instances" not in seen.names()


def test_nothing_is_called_when_off(seen):
    telemetry.uninstrument()
    with stateroom.open("memory:") as store:
        store.instances.put(Instance("a", "w"))
        store.instances.get("a")
        assert store.instances.get.__module__ == operation.__name__  # no function stands before the operation's own
    assert seen.names() == []
