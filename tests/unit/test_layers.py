"""Imports go down only: each module may import from its own layer and from those below (docs/design/overview.md)."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "stateroom"

ROOMS = (
    "errors", "limits", "clock", "arguments", "keys", "codec",
    "engine", "engines",
    "core", "values", "records", "feed", "families", "watch",
    "database", "retention", "store", "types", "telemetry", "",
    "testing", "node", "web", "adapters", "cli", "__main__",
)  # fmt: skip
"""From the ground up: a room imports only from itself and from rooms before it. "" is the package itself."""

RANK = {name: rank for rank, name in enumerate(ROOMS)}
SHELL = {"cli", "web", "adapters", "node"}
"""Rooms on the public API alone; none imports another, but the command line starts them."""
CORE = RANK[""]
DRIVERS = {"apsw": "engines", "psycopg": "engines", "sqlite3": "engines", "rocksdict": "engines"}

pytestmark = pytest.mark.skipif(not SOURCE.is_dir(), reason="the source is not beside the tests (an installed wheel)")


@cache
def modules() -> dict[str, Path]:
    """Dotted name inside the package to its file."""
    found = {}
    for file in sorted(SOURCE.rglob("*.py")):
        parts = list(file.relative_to(SOURCE).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = file
    return found


def imports(module: str, file: Path) -> Iterator[str]:
    """Absolute dotted names this file imports when it runs; those for type checkers alone do not count."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    package = ["stateroom", *module.split(".")] if module else ["stateroom"]
    if file.name != "__init__.py":
        package.pop()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            yield from (f"{name}.{alias.name}" for alias in node.names)


def inside(name: str) -> str | None:
    """The module of this package that an imported name lies in."""
    if name != "stateroom" and not name.startswith("stateroom."):
        return None
    known = modules()
    rest = name.removeprefix("stateroom").strip(".")
    while rest and rest not in known:
        rest = rest.rpartition(".")[0]
    return rest


def top(module: str) -> str:
    return module.partition(".")[0]


def test_every_module_has_a_layer() -> None:
    strangers = {top(module) for module in modules()} - set(RANK)
    assert not strangers, f"say in ROOMS where these belong: {strangers}"


def test_imports_go_down_only() -> None:
    up = [
        f"{module or 'stateroom'} imports {name}"
        for module, file in modules().items()
        for name in imports(module, file)
        if (target := inside(name)) is not None and RANK[top(target)] > RANK[top(module)]
    ]
    assert not up


def test_the_shell_uses_the_public_api_only() -> None:
    """What stands above the store sees `stateroom`, its errors, limits and types, and itself."""
    deep = [
        f"{module} imports {name}"
        for module, file in modules().items()
        if top(module) in SHELL
        for name in imports(module, file)
        if (target := inside(name)) is not None
        and top(target) not in {"", "errors", "limits", "codec", "types", top(module)}
        and not (top(module) == "cli" and top(target) in SHELL)
    ]
    assert not deep


def test_modules_form_no_circle() -> None:
    known = modules()
    graph = {
        module: {target for name in imports(module, file) if (target := inside(name)) is not None and target != module}
        for module, file in known.items()
        if RANK[top(module)] < CORE
    }
    TopologicalSorter(graph).prepare()


def test_drivers_are_imported_by_engines_alone() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, file in modules().items()
        for name in imports(module, file)
        if (home := DRIVERS.get(top(name))) and top(module) not in (home, "testing")
    ]
    assert not wrong


def test_the_core_imports_no_extra() -> None:
    """Everything below the shell runs with msgspec, ormsgpack and apsw alone. Extras are imported inside functions,

    or by an engine for its own driver: an engine is loaded only when its url asks for it.
    """
    core = {"msgspec", "ormsgpack", "apsw", "stateroom"} | set(sys.stdlib_module_names)
    wrong = []
    for module, file in modules().items():
        if RANK[top(module)] > CORE:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in tree.body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            own = {driver for driver, home in DRIVERS.items() if home == top(module)}
            wrong += [f"{module} imports {name}" for name in names if top(name) not in core | own]
    assert not wrong
