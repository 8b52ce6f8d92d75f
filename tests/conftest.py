"""Fixtures that every room's tests share: an open store on each engine and face. `kit.databases` says how."""

from kit.databases import alone, clock, database, older, other, pytest_generate_tests, reopen, servers, store

__all__ = ["alone", "clock", "database", "older", "other", "pytest_generate_tests", "reopen", "servers", "store"]
