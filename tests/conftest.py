"""Fixtures that every room's tests share: an open store on each engine and face. `kit.databases` says how."""

import signal

from kit.databases import alone, clock, database, older, other, pytest_generate_tests, reopen, servers, store

__all__ = ["alone", "clock", "database", "older", "other", "pytest_generate_tests", "reopen", "servers", "store"]

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
