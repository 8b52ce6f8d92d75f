"""Fixtures that every room's tests share: an open store on each engine and face. `kit.databases` says how."""

import logging
import signal
from collections.abc import Iterator

import pytest

from kit.databases import alone, clock, database, older, other, pytest_generate_tests, reopen, servers, store
from stateroom import codec

__all__ = ["alone", "clock", "database", "older", "other", "pytest_generate_tests", "reopen", "servers", "store"]

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_loggers() -> None:
    """Undo what programs that adapters are for do to the logging of the whole process, a Celery worker among them."""
    logging.disable(logging.NOTSET)
    logging.root.setLevel(logging.WARNING)
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("stateroom") and isinstance(logger, logging.Logger):
            logger.disabled = False
            logger.propagate = True


@pytest.fixture(autouse=True)
def _own_types() -> Iterator[None]:
    """Forget the types that a test registers for the whole process, a module that the command line imports among them."""
    registry = codec.default._registry
    kept = [(types, dict(types)) for types in (registry.by_type, registry.by_name)]
    yield
    for types, before in kept:
        if len(types) != len(before):
            types.clear()
            types.update(before)  # type: ignore[arg-type]
