"""LangGraph's own conformance suite: all capabilities, on every engine, through each kind of store."""

import asyncio

import pytest

pytest.importorskip("langgraph.checkpoint.conformance")

from langgraph.checkpoint.conformance import checkpointer_test, validate

import stateroom
from stateroom import AsyncStore
from stateroom.adapters.langgraph import StateroomSaver

CAPABILITIES, TESTS = 8, 81


@pytest.mark.parametrize("kind", ["Store", "AsyncStore"])
def test_every_capability_and_every_test_passes(store, kind):
    @checkpointer_test(name="StateroomSaver")
    async def make():
        yield StateroomSaver(store if kind == "Store" else AsyncStore.over(store))

    report = asyncio.run(validate(make))
    results = report.to_dict()["results"]
    assert [failure for result in results.values() for failure in result["failures"]] == []
    assert len(results) == CAPABILITIES
    assert sum(result["tests_passed"] for result in results.values()) == TESTS
    assert report.conformance_level() == "FULL"


def test_the_suite_passes_on_a_store_opened_for_an_event_loop(url):
    async def main():
        async with await stateroom.open_async(url) as store:

            @checkpointer_test(name="StateroomSaver")
            async def make():
                yield StateroomSaver(store)

            report = await validate(make)
            assert await store.check() == []
            return report

    report = asyncio.run(main())
    assert report.passed_all()
    assert sum(result["tests_passed"] for result in report.to_dict()["results"].values()) == TESTS
