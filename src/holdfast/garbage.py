"""Python's garbage collector, held back while a page of objects is made.

The collector runs for each 700 containers that were made and are still there, and each time it looks at those of
before again, in the end at all of the process. While a page of records is built none of them can be garbage, and yet
that was half of the time that it took. Held back, the collector looks at them once, when the page is done.
"""

import gc
import os
import threading


class _Pause:
    """A context manager; several threads may be inside, and the collector goes on when the last one leaves.

    What is done inside is short, never suspends and never waits. Who had the collector off keeps it off.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._was_on = False

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._was_on = gc.isenabled()
                gc.disable()
            self._inside += 1

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._was_on:
                gc.enable()

    def start_in_child(self) -> None:
        """After a fork no other thread is there to leave."""
        if self._inside and self._was_on:
            gc.enable()
        self._lock = threading.Lock()
        self._inside = 0


paused = _Pause()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=paused.start_in_child)
