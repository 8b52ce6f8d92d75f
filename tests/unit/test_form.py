"""The form of the source: sizes that keep it readable, and no loose ends. A limit is raised only with a reason, here."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "stateroom"
FILE_LINES = 500
MEDIAN_LINES = 180
FUNCTION_LINES = 60
PUBLIC_NAMES = 40

pytestmark = pytest.mark.skipif(not SOURCE.is_dir(), reason="the source is not beside the tests (an installed wheel)")


def files(*folders: Path) -> list[Path]:
    return sorted(file for folder in folders for file in folder.rglob("*.py"))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its decorators and docstring: words are free."""
    last = function.end_lineno or function.lineno
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return last - function.lineno + 1 - ((first.end_lineno or first.lineno) - first.lineno + 1)
    return last - function.lineno + 1


def test_no_file_is_long() -> None:
    everything = files(SOURCE, ROOT / "tests", ROOT / "bench", ROOT / "examples")
    long = {str(file.relative_to(ROOT)): count for file in everything if (count := lines(file)) > FILE_LINES}
    assert not long, f"split these: {long}"


def test_the_median_file_is_short() -> None:
    assert statistics.median(lines(file) for file in files(SOURCE)) <= MEDIAN_LINES


def lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def test_no_function_is_long() -> None:
    long = {}
    for file in files(SOURCE, ROOT / "tests", ROOT / "bench", ROOT / "examples"):
        for function in functions(ast.parse(file.read_text(encoding="utf-8"))):
            if (count := body_lines(function)) > FUNCTION_LINES:
                long[f"{file.relative_to(ROOT)}:{function.lineno} {function.name}"] = count
    assert not long, f"split these: {long}"


def test_the_package_offers_few_names() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            names = ast.literal_eval(node.value)  # type: ignore[attr-defined]
            assert len(names) <= PUBLIC_NAMES
            assert len(set(names)) == len(names)


LOOSE_ENDS = ("TO" + "DO", "FIX" + "ME", "X" * 3 + ":", "raise Not" + "ImplementedError")


def test_no_loose_ends() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{number} {line.strip()}"
        for file in files(SOURCE, ROOT / "tests", ROOT / "bench", ROOT / "examples")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if any(word in line for word in LOOSE_ENDS)
    ]
    assert not found
