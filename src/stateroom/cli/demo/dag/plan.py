"""The DAG: the words of the standard library's documentation strings, by file; its functions know no store."""

import ast
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..sources import library, sources

_WORD = re.compile(r"[a-z]{6,}")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
TOP = 8

Index = dict[str, list[str]]
"""Word to the files whose documentation strings have it, sorted."""


class Function(NamedTuple):
    """One function of the DAG: `inputs` are the ids of others' values, `arguments` are its own."""

    id: str
    name: str
    inputs: tuple[str, ...]
    arguments: tuple[Any, ...] = ()


def functions(limit: int | None, shards: int) -> list[Function]:
    """Read the files of each shard, index each, merge the indexes two by two, and sum up."""
    files = sources(limit)
    planned: list[Function] = []
    level: list[str] = []
    for number in range(shards):
        planned.append(Function(f"read-{number}", "read", (), (files[number::shards],)))
        planned.append(Function(f"index-{number}", "index", (f"read-{number}",)))
        level.append(f"index-{number}")
    depth = 0
    while len(level) > 1:
        depth += 1
        pairs = [tuple(level[at : at + 2]) for at in range(0, len(level), 2)]
        level = [f"merge-{depth}-{number}" for number in range(len(pairs))]
        planned += [Function(id, "merge", pair) for id, pair in zip(level, pairs, strict=True)]
    planned.append(Function("total", "total", (level[0],)))
    return planned


def read(files: list[str]) -> dict[str, str]:
    """The documentation strings of some files, joined for each file that has any."""
    texts = {}
    for file in files:
        text = documentation(library() / file)
        if text:
            texts[file] = text
    return texts


def documentation(path: Path) -> str:
    """The documentation strings of one file; a file that is not valid Python has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return ""
    return "\n".join(ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, _DOCUMENTED)).strip()


def index(texts: Mapping[str, str]) -> Index:
    """The files of each word."""
    result: Index = {}
    for file, text in sorted(texts.items()):
        for word in sorted(set(_WORD.findall(text.lower()))):
            result.setdefault(word, []).append(file)
    return result


def merge(*indexes: Index) -> Index:
    """Several indexes as one."""
    words = sorted({word for index in indexes for word in index})
    return {word: sorted(file for index in indexes for file in index.get(word, ())) for word in words}


def total(index: Index) -> dict[str, Any]:
    """The numbers that are printed."""
    most = sorted(index.items(), key=lambda item: (-len(item[1]), item[0]))[:TOP]
    return {
        "files": len({file for files in index.values() for file in files}),
        "words": len(index),
        "most": [[word, len(files)] for word, files in most],
    }


_COMPUTED: dict[str, Callable[..., Any]] = {"read": read, "index": index, "merge": merge, "total": total}


def compute(name: str, *arguments: Any) -> Any:
    """Call a function of the DAG by its name."""
    return _COMPUTED[name](*arguments)


def alone(planned: list[Function]) -> Any:
    """The last value of the DAG, computed here, without a store."""
    values: dict[str, Any] = {}
    for function in planned:
        inputs = [values[id] for id in function.inputs]
        values[function.id] = compute(function.name, *function.arguments, *inputs)
    return values[planned[-1].id]
