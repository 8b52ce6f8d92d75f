"""The input: Python's own source files, and what is counted in one. As a program: the plain count, without a store."""

import ast
import functools
import json
import os
import sys
import sysconfig
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

LEFT_OUT = frozenset({"test", "tests", "idle_test", "lib2to3", "site-packages", "dist-packages", "__pycache__"})
"""Folders without the library's own modules: tests (absent on some systems), their bad input, what users installed."""

_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class Counts(NamedTuple):
    """The numbers that the demo finds in files."""

    files: int
    lines: int
    definitions: int


@functools.cache
def library() -> Path:
    """The folder of the standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def sources(limit: int | None = None) -> list[str]:
    """The library's files, relative to its folder, sorted; evenly thinned out to `limit`."""
    paths: list[str] = []
    for folder, folders, names in os.walk(library()):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        package = Path(folder).relative_to(library())
        paths += [(package / name).as_posix() for name in names if name.endswith(".py")]
    paths.sort()
    if limit is None or limit >= len(paths):
        return paths
    return [paths[number * len(paths) // limit] for number in range(limit)]


def measure(path: Path) -> Counts:
    """Lines and definitions (functions, methods, classes) of one file; a file that is not valid Python has none."""
    text = path.read_bytes()
    lines = text.count(b"\n") + (not text.endswith(b"\n") and bool(text))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return Counts(1, lines, 0)
    return Counts(1, lines, _definitions(tree))


def _definitions(tree: ast.AST) -> int:
    """Definitions stand in blocks only, so expressions, most of the tree, are not visited."""
    total = 0
    pending = [tree]
    while pending:
        node = pending.pop()
        total += isinstance(node, _DEFINITIONS)
        for name in _BLOCKS:
            pending += getattr(node, name, ())
    return total


def add(counts: Iterable[Counts]) -> Counts:
    """The sum."""
    files = lines = definitions = 0
    for item in counts:
        files, lines, definitions = files + item.files, lines + item.lines, definitions + item.definitions
    return Counts(files, lines, definitions)


def main() -> None:
    """The plain count: paths on stdin, a JSON list on stdout."""
    json.dump(add(measure(library() / path) for path in json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    main()
