"""Every wrapper, set to let things pass, meets the contract; so does a stack of all of them."""

from stateroom.engines.memory import MemoryEngine
from stateroom.engines.wrap import Conflicting, Faulty, Prefixed, Recording, Slow, Traced, Wrapper
from stateroom.errors import StoreError
from stateroom.testing import engine_suite


class Submitting(MemoryEngine):
    """The memory engine with all that is optional: a submit that answers at once, and looks at several parts."""

    def read_many(self, requests, /):
        return [self.read(part, keys) for part, keys in requests]

    def scan_many(self, ranges, /):
        return [self.scan(part, start, stop, limit=limit) for part, start, stop, limit in ranges]

    def submit(self, part, batch, done, /):
        try:
            outcome = self.commit(part, batch)
        except StoreError as error:
            outcome = error
        done(outcome)


def memory():
    return Submitting(3)


class Behind:
    """A prefix, over an engine where somebody else has rows before, between and after."""

    overhead = 4

    def __call__(self):
        return Prefixed(memory(), b"mine")


class Stack:
    overhead = 4

    def __call__(self):
        engine = Recording(Prefixed(Prefixed(memory(), b"ab"), b"cd"))
        return Traced(Slow(Conflicting(Faulty(engine, 10**9)), lambda name, part: None), lambda span: None)


class TestSubmittingMemory(engine_suite(memory)):
    pass


class TestWrapper(engine_suite(lambda: Wrapper(memory()))):
    pass


class TestWrapperWithoutSubmit(engine_suite(lambda: Wrapper(MemoryEngine()))):
    pass


class TestPrefixed(engine_suite(Behind())):
    pass


class TestStack(engine_suite(Stack())):
    pass
