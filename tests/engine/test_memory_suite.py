"""The memory engine meets the contract, with one part and with several."""

from hypothesis import settings

from holdfast.engines.memory import MemoryEngine
from holdfast.testing import engine_suite


class TestMemory(engine_suite(MemoryEngine)):
    draws = settings(max_examples=100, deadline=None, database=None)


class TestMemoryOfFiveParts(engine_suite(lambda: MemoryEngine(5))):
    draws = settings(max_examples=100, deadline=None, database=None)
