"""The errors: documented as a tree, told apart by code, kept whole by pickle, and really raised."""

import ast
import builtins
import copy
import pickle
import re
from pathlib import Path

import pytest

from stateroom import errors
from stateroom.errors import StoreError

CLASSES = [getattr(errors, name) for name in errors.__all__]
SOURCE = Path(errors.__file__).parent

CODES = {
    "StoreError": "error",
    "InvalidArgument": "invalid-argument",
    "NotFound": "not-found",
    "NoSavepoint": "no-savepoint",
    "AlreadyExists": "already-exists",
    "Refused": "refused",
    "ReadOnly": "read-only",
    "WrongState": "wrong-state",
    "StaleRevision": "stale-revision",
    "LostLease": "lost-lease",
    "NotInitialized": "not-initialized",
    "Conflict": "conflict",
    "Compacted": "compacted",
    "Unavailable": "unavailable",
    "OutcomeUnknown": "outcome-unknown",
    "Timeout": "timeout",
    "Closed": "closed",
    "InUse": "in-use",
    "Damaged": "damaged",
    "Undecodable": "undecodable",
    "UnsupportedFormat": "unsupported-format",
}
"""Part of the API: programs and scripts compare with them. Never change one."""

ATTRIBUTES = {
    "InvalidArgument": {"what", "value", "path"},
    "NotFound": {"kind", "id"},
    "NoSavepoint": {"kind", "id", "run"},
    "AlreadyExists": {"kind", "id"},
    "WrongState": {"kind", "id", "actual", "expected", "terminal"},
    "StaleRevision": {"kind", "id", "actual", "expected"},
    "LostLease": {"key", "holder", "token", "expires_at"},
    "NotInitialized": {"run"},
    "Conflict": {"key", "expected", "actual"},
    "Compacted": {"first"},
    "Unavailable": {"tried"},
    "InUse": {"pid", "path"},
    "Damaged": {"kind", "id", "key"},
    "Undecodable": {"kind", "id", "key", "path", "tag"},
    "UnsupportedFormat": {"found", "supported"},
}


def ids(kind):
    return kind.__name__


def tree():
    """Class name to the name above it and the built-in in brackets, as the module's docstring draws them."""
    found, path = {}, []
    for line in errors.__doc__.partition("::")[2].splitlines():
        match = re.match(r"^( *[│├└─ ]*)([A-Z]\w+)(?: \((\w+)\))?(?:  | )", line)
        if match and (not path or "─" in match[1]):
            depth = (len(match[1]) - 4) // 3
            del path[depth:]
            found[match[2]] = (path[-1] if path else "Exception", match[3])
            path.append(match[2])
    return found


def test_the_docstring_draws_every_class_where_it_stands():
    drawn = tree()
    assert set(drawn) == set(errors.__all__)
    for kind in CLASSES:
        above, builtin = drawn[kind.__name__]
        assert kind.__mro__[1].__name__ == above
        others = [base.__name__ for base in kind.__bases__[1:]]
        assert others == ([builtin] if builtin else [])


def test_everything_defined_is_exported():
    defined = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert defined == set(errors.__all__)


def test_codes_never_change():
    assert {kind.__name__: kind.code for kind in CLASSES} == CODES
    assert len(set(CODES.values())) == len(CODES)


def test_only_these_may_be_tried_again():
    assert {kind.__name__ for kind in CLASSES if kind.retry} == {"Conflict", "Unavailable"}


def test_the_builtin_errors_catch_theirs():
    expected = {"InvalidArgument": ValueError, "NotFound": LookupError, "NoSavepoint": LookupError}
    expected |= {"Unavailable": TimeoutError, "Timeout": TimeoutError}
    for kind in CLASSES:
        wanted = {expected[kind.__name__]} if kind.__name__ in expected else set()
        assert {base for base in (ValueError, LookupError, TimeoutError) if issubclass(kind, base)} == wanted
        assert not hasattr(builtins, kind.__name__)


@pytest.mark.parametrize("kind", CLASSES, ids=ids)
def test_a_pickle_and_a_copy_keep_class_message_and_fields(kind):
    error = kind("what happened", actual="a", expected={1, 2}, extra=b"\0")
    protocols = [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for again in (*protocols, copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind
        assert again == error
        assert (again.message, again.fields) == (error.message, error.fields)
        assert (again.actual, again.expected, again.extra) == ("a", {1, 2}, b"\0")


@pytest.mark.parametrize("kind", CLASSES, ids=ids)
def test_each_has_its_attributes_even_where_nothing_is_known(kind):
    expected = ATTRIBUTES.get(kind.__name__, set())
    assert set(kind.names) == expected
    bare = kind()
    assert bare.message == ""
    assert [getattr(bare, name) for name in kind.names] == [None] * len(expected)
    full = kind("m", **dict.fromkeys(kind.names, "known"))
    assert [getattr(full, name) for name in kind.names] == ["known"] * len(expected)
    with pytest.raises(AttributeError, match="no_such_thing"):
        full.no_such_thing


def test_errors_are_equal_by_class_message_and_fields():
    error = errors.WrongState("m", actual="a")
    assert error == errors.WrongState("m", actual="a")
    assert error != errors.WrongState("m", actual="b")
    assert error != errors.WrongState("n", actual="a")
    assert error != errors.Refused("m", actual="a")
    assert error != "m"
    assert len({error, error}) == 1


def test_str_is_the_message():
    assert str(errors.NotFound("no instance 'a'", kind="instance", id="a")) == "no instance 'a'"


BASES = {"Refused"}
"""Only ever caught. (StoreError itself is raised for what a driver reports and nobody foresaw.)"""
LATER = {
    "NoSavepoint": "savepoints follow",
    "NotInitialized": "savepoints follow",
    "InUse": "restoring over a file that is open follows",
}
"""Raised by parts that follow; leave out what has come."""


def raised():
    """Names of errors that some module makes: called, or the value in a table of errors."""
    found = set()
    for file in SOURCE.rglob("*.py"):
        if file == SOURCE / "errors.py" or "testing" in file.parts:
            continue
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        imports = [
            node for node in nodes if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("errors")
        ]
        names = {alias.asname or alias.name: alias.name for node in imports for alias in node.names}
        for node in nodes:
            made = [node.func] if isinstance(node, ast.Call) else []
            made += node.values if isinstance(node, ast.Dict) else []
            made += [node.exc] if isinstance(node, ast.Raise) else []
            found |= {names[each.id] for each in made if isinstance(each, ast.Name) and each.id in names}
            found |= {
                each.attr for each in made if isinstance(each, ast.Attribute) and "errors" in ast.unparse(each.value)
            }
    return found & set(errors.__all__)


def test_every_error_is_raised_somewhere():
    assert set(errors.__all__) - raised() - BASES - set(LATER) == set()


def test_bases_are_only_caught():
    assert not raised() & BASES


def test_every_subclass_in_the_package_stands_in_the_tree():
    loose = [kind for kind in StoreError.__subclasses__() if kind.__module__.startswith("stateroom.")]
    assert all(kind.__module__ == "stateroom.errors" for kind in loose)
