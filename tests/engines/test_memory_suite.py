"""The memory engine meets the contract, with one part and with several."""

from stateroom.engines.memory import MemoryEngine
from stateroom.testing import engine_suite


class TestMemory(engine_suite(MemoryEngine)):
    examples = 100


class TestMemoryOfFiveParts(engine_suite(lambda: MemoryEngine(5))):
    examples = 100
