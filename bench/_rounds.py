"""What the two PostgreSQL benches share: rounds of timed calls, by one caller and by many threads."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable

THREADS = 16
Call = Callable[[int], object]


class Rounds:
    """Seconds a call, by the name of what was called: one figure a round."""

    def __init__(self, calls: int) -> None:
        self.often = calls
        self.times: dict[str, list[float]] = defaultdict(list)
        self._made = 0

    def fresh(self) -> str:
        """A name that no earlier round has used."""
        self._made += 1
        return f"x{self._made}"

    def calls(self, name: str, call: Call, calls: int = 0) -> None:
        """One caller."""
        calls = calls or self.often
        begin = time.perf_counter()
        for number in range(calls):
            call(number)
        self.times[name].append((time.perf_counter() - begin) / calls)

    def together(self, name: str, make: Callable[[int], Call]) -> None:
        """`make(thread)` gives what each thread calls; the time a call is the whole time over all calls."""
        work = [make(thread) for thread in range(THREADS)]
        barrier = threading.Barrier(THREADS + 1)
        each = self.often // 4

        def run(call: Call) -> None:
            barrier.wait()
            for number in range(each):
                call(number)

        threads = [threading.Thread(target=run, args=(call,)) for call in work]
        for thread in threads:
            thread.start()
        barrier.wait()
        begin = time.perf_counter()
        for thread in threads:
            thread.join()
        self.times[name].append((time.perf_counter() - begin) / (THREADS * each))
