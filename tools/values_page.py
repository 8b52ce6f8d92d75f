"""Write the type table of docs/reference/values.md from the tests' table: python tools/values_page.py [--check]

With ``--check`` nothing is written; the exit code is 1 where the page is not what it should be.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "values.md"
TABLE = ROOT / "tests" / "unit" / "test_values_table.py"
BEGIN, END = "<!-- table: begin (tools/values_page.py) -->", "<!-- table: end -->"


def table() -> Any:
    """The module of the tests' table."""
    sys.path.insert(0, str(ROOT / "src"))
    spec = importlib.util.spec_from_file_location("values_table", TABLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def example(value: Any) -> str:
    """A value as it is written in the page; only those that read the same on every machine."""
    if isinstance(value, set | frozenset) and len(value) > 1:
        return ""  # in another order on each run
    text = repr(value)
    return f"`{text}`" if len(text) <= 44 and "|" not in text and "\n" not in text and "`" not in text else ""


def lines() -> list[str]:
    """The generated part."""
    module = table()
    found = ["| Type | What is kept | For example |", "|---|---|---|"]
    for name, says, values in module.TABLE:
        examples = ", ".join(filter(None, map(example, values[:4])))
        found.append(f"| {name} | {says or 'as it is'} | {examples} |")
    refused = dict.fromkeys(name for name, _ in module.REFUSED)
    found += [
        "",
        "Refused, with path and type:",
        "",
        *(f"- {name}" for name in refused),
        "- anything that contains itself",
    ]
    return found


def page() -> str:
    """What the page should be."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    return "\n".join([before + BEGIN, "", *lines(), "", END + rest.split(END)[1]])


def main(words: list[str]) -> int:
    """Write, or check."""
    made = page()
    if words == ["--check"]:
        if made != PAGE.read_text(encoding="utf-8"):
            sys.stderr.write("docs/reference/values.md is not what the tests say: run python tools/values_page.py\n")
            return 1
        return 0
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
