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


VAGUE = frozenset(
    [
        "again",
        "asked",
        "back",
        "beside",
        "came",
        "done",
        "each",
        "every",
        "found",
        "given",
        "going",
        "gone",
        "held",
        "here",
        "it",
        "kept",
        "known",
        "left",
        "living",
        "looked",
        "made",
        "meant",
        "more",
        "needed",
        "one",
        "other",
        "others",
        "own",
        "rest",
        "said",
        "seen",
        "shown",
        "some",
        "spare",
        "spot",
        "stuff",
        "taken",
        "that",
        "there",
        "thing",
        "things",
        "this",
        "told",
        "tried",
        "wanted",
        "went",
        "whole",
    ]
)
"""Participles and pronouns, which do not say what a binding holds. Use a noun of the field."""
VAGUE_SHARE = 0.01
OPENINGS = ("What", "Whether", "Where", "Of", "Those", "Up")
"""First words of docstrings that begin neither with an imperative verb nor with a noun."""
OPENINGS_SHARE = 0.01


def bindings(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that is bound in a module: assignments, parameters, targets of loops, caught errors."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name, node.lineno


def vague(source: str) -> tuple[list[tuple[str, int]], int]:
    """The vague bindings of a module with their lines, and how many bindings it has in all."""
    names = list(bindings(ast.parse(source)))
    return [(name, line) for name, line in names if name.strip("_") in VAGUE], len(names)


def test_bindings_are_nouns() -> None:
    places, total = [], 0
    for file in files(SOURCE):
        names, count = vague(file.read_text(encoding="utf-8"))
        places += [f"{file.relative_to(ROOT)}:{line} {name}" for name, line in names]
        total += count
    assert total > 10_000
    assert len(places) / total < VAGUE_SHARE, f"{len(places)} of {total} bindings, name what they hold: {places}"


def test_a_vague_binding_is_seen_wherever_it_is_bound() -> None:
    source = """
def one(wanted, *rest, found=1, **more):
    for _each in wanted: pass
    with open(rest) as held: pass
    try: given = 1
    except ValueError as told: pass
    return [seen for seen in rest if (kept := seen)] + (lambda other: other)
"""
    names = {name for name, _ in vague(source)[0]}
    assert names == {"wanted", "rest", "found", "more", "_each", "held", "given", "told", "seen", "kept", "other"}


def docstrings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    texts = [text for file in files(SOURCE) for text in docstrings(ast.parse(file.read_text(encoding="utf-8")))]
    assert len(texts) > 1000
    places = [text.splitlines()[0] for text in texts if text.split()[0].rstrip(",:") in OPENINGS]
    assert len(places) / len(texts) < OPENINGS_SHARE, f"{len(places)} of {len(texts)} docstrings: {places}"
