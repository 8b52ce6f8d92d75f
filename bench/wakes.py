"""Waking whoever waits for a change: in this process and across processes, on every engine; and idle watchers.

What hands over is measured in turns with a bare `threading.Condition`, so that what else the machine does meets both.
"hand-over" is from when the commit has taken effect and its waiters are told, to `engine.wait` having returned in the
waiting thread; "the change" is from there to `feed.read` having given it; "with the commit" counts from the `emit`.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

import stateroom

TURNS = 5


class Times(list[float]):
    """Seconds; printed as the middle and the worst of a hundred, in microseconds."""

    def at(self, share: float) -> float:
        return sorted(self)[min(len(self) - 1, int(len(self) * share))]

    def __str__(self) -> str:
        return f"p50 {self.at(0.5) * 1e6:8,.0f} us   p99 {self.at(0.99) * 1e6:8,.0f} us"


def hand_over(found: Times, times: int, waiter: Callable[[], Callable[[], float]], tell: Callable[[], None]) -> None:
    """`tell` in this thread, in turns with what `waiter` gives in another: it waits, and gives when it was told."""
    ready = threading.Semaphore(0)

    def waiting() -> None:
        for _ in range(times):
            wait = waiter()
            ready.release()
            told = wait()
            found.append(max(0.0, time.perf_counter() - told))

    thread = threading.Thread(target=waiting)
    thread.start()
    for _ in range(times):
        ready.acquire()
        time.sleep(0.003)  # until it waits
        tell()
    thread.join()


class Bare:
    """A hand-over between two threads with nothing around it."""

    def __init__(self) -> None:
        self._told = threading.Condition()
        self._at = 0.0

    def waiter(self) -> Callable[[], float]:
        return self._wait

    def _wait(self) -> float:
        with self._told:
            self._told.wait()
        return self._at

    def tell(self) -> None:
        with self._told:
            self._at = time.perf_counter()
            self._told.notify()


class Waking:
    """A store whose waiters are told, and when."""

    def __init__(self, store: stateroom.Store) -> None:
        self._store = store
        self._engine = store._engine
        self._told = self._began = 0.0
        self._position = store.feed.latest()
        self._note_when_told()

    def _note_when_told(self) -> None:
        engine = self._engine
        for owner, name in (("_changed", "notify_all"), ("_writer", "_moved"), ("_watcher", "committed")):
            inner = getattr(engine, owner, None)
            if inner is not None:
                tell = getattr(inner, name)

                def noted(*given: object, tell: Callable[..., object] = tell) -> None:
                    self._told = time.perf_counter()
                    tell(*given)

                setattr(inner, name, noted)

    def catch_up(self) -> None:
        """Stand after what there is."""
        self._position = self._store.feed.latest()

    def engine(self) -> Callable[[], float]:
        """Waits in the engine."""
        rows = (self._engine.read(part, (b"",))[0] for part in range(self._engine.parts))
        version = sum(row.version for row in rows if row is not None)

        def wait() -> float:
            self._engine.wait(None, version, 30)
            return self._told

        return wait

    def change(self) -> Callable[[], float]:
        """Waits for a change."""

        def read() -> float:
            self._position = self._store.feed.read(self._position, wait=30).next
            return self._told

        return read

    def commit(self) -> Callable[[], float]:
        """The same, and counts from before the commit."""

        def read() -> float:
            self._position = self._store.feed.read(self._position, wait=30).next
            return self._began

        return read

    def tell(self) -> None:
        self._began = time.perf_counter()
        self._store.feed.emit("note", 1)


def in_process(name: str, url: str, times: int) -> None:
    bare, waited, read, whole = Times(), Times(), Times(), Times()
    with stateroom.open(url, durability="normal") as store:
        waking, condition = Waking(store), Bare()
        for _ in range(TURNS):
            hand_over(bare, times // TURNS, condition.waiter, condition.tell)
            hand_over(waited, times // TURNS, waking.engine, waking.tell)
            waking.catch_up()
            hand_over(read, times // TURNS, waking.change, waking.tell)
            hand_over(whole, times // TURNS, waking.commit, waking.tell)
    print(f"{name:<11}bare condition    {bare}")
    for label, found in (("hand-over", waited), ("the change", read), ("with the commit", whole)):
        print(f"{name:<11}{label:<18}{found}   {found.at(0.5) / bare.at(0.5):5.1f} times the condition")


WRITER = """
import sys, time, stateroom
with stateroom.open(sys.argv[1], durability="normal") as store:
    for _ in range(int(sys.argv[2])):
        time.sleep(0.02 + 0.0137 * (time.time() % 1))
        store.feed.emit("note", time.time())
"""


def across(name: str, url: str, times: int) -> None:
    """From the writer's emit in another process, to the reader having the change."""
    found = Times()
    with stateroom.open(url, durability="normal") as store:
        at = store.feed.latest()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        writer = subprocess.Popen([sys.executable, "-c", WRITER, url, str(times)], env=environment)
        while len(found) < times:
            page = store.feed.read(at, wait=30)
            found += [time.time() - change.record for change in page.items]
            at = page.next
        writer.wait()
    print(f"{name:<11}across processes  {found}   (the commit included)")


def idle(name: str, url: str) -> None:
    """Processor time of watchers that have nothing to do."""
    with stateroom.open(url) as store:
        watcher = store.watch("idle", lambda change: None, start=stateroom.LATEST)
        watcher.start()
        time.sleep(0.5)
        began = time.process_time()
        time.sleep(4)
        print(f"{name:<11}an idle watcher   {(time.process_time() - began) / 4:8.2%} of a core")
        watcher.stop()


async def idle_followers(url: str, count: int) -> None:
    async with await stateroom.open_async(url) as store:

        async def follow() -> None:
            async for _ in store.feed.follow(start=stateroom.LATEST):
                return

        tasks = [asyncio.create_task(follow()) for _ in range(count)]
        await asyncio.sleep(2)
        began, threads = time.process_time(), threading.active_count()
        await asyncio.sleep(4)
        took = (time.process_time() - began) / 4
        began = time.perf_counter()
        await store.feed.emit("note", 1)
        await asyncio.gather(*tasks)
        woken = time.perf_counter() - began
        print(
            f"{count:,} idle followers on asyncio: {took:.2%} of a core, {threads} threads; all woken in {woken * 1e3:.0f} ms"
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--wakes", type=int, default=300)
    options.add_argument("--no-postgresql", action="store_true")
    given = options.parse_args()
    in_process("memory", "memory:", given.wakes)
    with tempfile.TemporaryDirectory() as folder:
        in_process("sqlite", f"{folder}/in.db", given.wakes)
        across("sqlite", f"{folder}/in.db", given.wakes)
        idle("sqlite", f"{folder}/in.db")
        asyncio.run(idle_followers(f"{folder}/in.db", 1000))
    if given.no_postgresql:
        return
    from stateroom.testing.postgres import Server

    server = Server(settings={"fsync": "on", "full_page_writes": "on"})
    try:
        server.init().start()
        in_process("postgresql", server.url(), given.wakes)
        across("postgresql", server.url(), given.wakes)
        idle("postgresql", server.url())
    finally:
        server.remove()


if __name__ == "__main__":
    main()
