"""Runs an engine suite outside pytest, to see which of its tests an engine fails."""

import inspect

import pytest

from stateroom.testing.engine_suite import EngineSuite


def names(suite: type[EngineSuite]) -> list[str]:
    """The tests of a suite, in the order of their names."""
    return sorted(name for name in dir(suite) if name.startswith("test_"))


def failing(suite: type[EngineSuite], *only: str) -> set[str]:
    """The tests that fail; `only` these are run, or all."""
    return {name for name in only or names(suite) if not passes(suite, name)}


def passes(suite: type[EngineSuite], name: str) -> bool:
    instance = suite()
    test = getattr(instance, name)
    try:
        if "engine" in inspect.signature(test).parameters:
            with instance.fresh() as engine:
                test(engine)
        else:
            test()
    except pytest.skip.Exception:
        return True
    except (Exception, pytest.fail.Exception):  # noqa: BLE001 - any failure is one
        return False
    return True
