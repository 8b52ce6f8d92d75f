"""Something happens at a line of the package: an exception comes up there, or a signal's handler runs there.

Signals come to the main thread between any two instructions of Python code. A signal cannot be sent to a chosen line, a
trace function can be called at it, and it is called as a handler is: in the thread that runs the line, on top of its
frame, and what it raises comes up there.
"""

import sys
import threading
from pathlib import Path

import stateroom

PACKAGE = str(Path(stateroom.__file__).parent)
ENGINES = (f"{PACKAGE}/engines/", f"{PACKAGE}/engine.py", f"{PACKAGE}/core/bridge.py")


class Interrupted(Exception):
    """What a handler raises."""


class At:
    """Calls `act` at the number-th step (from 1) that this thread makes in files of the package.

    A step is a line, or with `opcodes` an instruction. Files that are being imported do not count.
    """

    def __init__(self, number, act, *, files=ENGINES, opcodes=False):
        self.number, self.act, self.files, self.opcodes = number, act, files, opcodes
        self.where = None
        """File and line where it happened; None: the call ended before."""
        self._count = 0

    def run(self, call):
        """What `call` gives or raises; the rest of the threads are left alone."""
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            return call()
        finally:
            sys.settrace(before)

    def _enter(self, frame, event, argument):
        code = frame.f_code
        if not code.co_filename.startswith(self.files) or code.co_name == "<module>":
            return None
        frame.f_trace_opcodes = self.opcodes
        frame.f_trace_lines = not self.opcodes
        return self._step

    def _step(self, frame, event, argument):
        if event == ("opcode" if self.opcodes else "line") and self.where is None:
            self._count += 1
            if self._count == self.number:
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                self.act()
        return self._step


def raising(kind):
    """An `act` that raises."""

    def act():
        raise kind("in the middle of it")

    return act


def in_thread(call, patience=30.0):
    """What `call` gives or raises in a thread of its own, which must come back."""
    outcome = []

    def run():
        try:
            outcome.append(call())
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test is told
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(patience)
    assert outcome, "a call hangs"
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]
