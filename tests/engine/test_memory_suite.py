"""The memory engine meets the contract, with one part and with several."""

from holdfast.engines.memory import MemoryEngine
from holdfast.testing import engine_suite


class TestMemory(engine_suite(MemoryEngine)):
    examples = 100


class TestMemoryOfFiveParts(engine_suite(lambda: MemoryEngine(5))):
    examples = 100
