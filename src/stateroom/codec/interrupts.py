"""Exceptions that a signal handler raised in the middle of our work: they go to the caller, whatever their class.

A handler runs between any two steps of Python code in the main thread. What it raises (an alarm's time limit, a task
queue's soft limit) may be of any class, also of one that the code around it catches for reasons of its own.
"""

import signal
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any


def from_handler(error: BaseException) -> bool:
    """Tell whether a signal handler that is installed now had its part in raising this."""
    if not isinstance(error, Exception):
        return True
    frames = error.__traceback__
    if frames is None or frames.tb_next is None:
        return False  # raised right where it was caught, by something in C: what most errors are
    codes = _handlers()
    while frames is not None:
        if frames.tb_frame.f_code in codes:
            return True
        frames = frames.tb_next
    return False


def _handlers() -> set[CodeType]:
    return {code for number in signal.valid_signals() if (code := _code(signal.getsignal(number))) is not None}


def _code(handler: Any) -> CodeType | None:
    """The code of a function, a method, a partial or an object that can be called."""
    for _ in range(4):
        if isinstance(handler, FunctionType):
            return handler.__code__
        if isinstance(handler, MethodType):
            handler = handler.__func__
        elif isinstance(handler, partial):
            handler = handler.func
        else:
            handler = vars(type(handler)).get("__call__")
    return None
