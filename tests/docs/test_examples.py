"""Every Python example in the documentation runs, in the order of its page, in a folder of its own.

The blocks of a page share their names, as a reader would type them one after the other. A block that cannot run is
marked in the line before it, with the reason: ``<!-- not run: needs a server -->``.
"""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from stateroom.cli import main

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(?:^<!-- not run: (?P<reason>[^\n]+?) -->\n)?^```python\n(?P<code>.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    line: int
    code: str
    reason: str | None


def pages() -> list[Path]:
    if not (ROOT / "README.md").exists():
        return []
    others = [page for page in (ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md") if page.exists()]
    return [ROOT / "README.md", *others, *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(text: str) -> list[Block]:
    return [
        Block(text.count("\n", 0, found.start("code")), found["code"], found["reason"])
        for found in BLOCK.finditer(text)
    ]


PAGES = [page for page in pages() if blocks(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STATEROOM_URL", raising=False)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.reason is None:
            # The line numbers of the page, so that a failure points into it.
            code = compile("\n" * block.line + block.code, str(page), "exec")
            exec(code, names)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}, which is not there"


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    if not index.exists():
        pytest.skip("the documentation is not beside the tests")
    named = {
        (index.parent / target).resolve()
        for target in re.findall(r"\]\(([^)#:]+)\)", index.read_text(encoding="utf-8"))
    }
    missing = {page.resolve() for page in index.parent.rglob("*.md")} - named - {index.resolve()}
    assert not missing, f"docs/README.md does not name {sorted(page.name for page in missing)}"


def test_anchors_lead_to_a_heading() -> None:
    for page in pages():
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text):
            headings = re.findall(r"^#+ (.+)$", (page.parent / target if target else page).read_text("utf-8"), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page.relative_to(ROOT)} links to #{anchor} of {target or 'itself'}"


def commands() -> list[str]:
    """Every `stateroom ...` line of the shell blocks."""
    shells = (re.findall(r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S) for page in pages())
    lines = (line for found in shells for block in found for line in block.splitlines())
    return sorted({line for line in lines if line.startswith("stateroom ")})


@pytest.mark.parametrize("line", commands())
def test_every_documented_command_exists_with_its_options(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(line, comments=True)[1:]
    while words and words[0].startswith("--"):
        del words[: 1 if words[0] in {"--json", "--help"} else 2]
    if not words:
        return
    nouns = 2 if main([words[0], "--help"]) == 0 and "COMMAND [ARGS]" in capsys.readouterr().out else 1
    assert main([*words[:nouns], "--help"]) == 0, line
    told = capsys.readouterr().out
    for option in (word.partition("=")[0] for word in words[nouns:] if word.startswith("-")):
        assert option in told or option in {"--json", "--url", "--namespace"}, f"{line}: {option}"


def test_the_harness_finds_blocks_and_reasons() -> None:
    text = "a\n```python\nx = 1\n```\n<!-- not run: needs a server -->\n```python\ny = 2\n```\n```sh\nls\n```\n"
    assert blocks(text) == [Block(2, "x = 1\n", None), Block(6, "y = 2\n", "needs a server")]
