"""`stateroom docs`: the guide and the reference, as they came with this version."""

import pydoc
import sys
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from ..errors import NotFound
from .safe import safe_lines
from .session import session

SHELVES = ("guide", "operate", "reference")


def docs(
    context: typer.Context,
    topic: Annotated[str | None, typer.Argument(help="A page, such as feed or operate/retention.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the pages.")] = False,
) -> None:
    """Show a page of the documentation; without a topic list the pages."""
    output = session(context).output
    pages = all_pages()
    if topic is None or listed:
        if output.as_json:
            output.json(sorted(pages))
        else:
            for name, path in sorted(pages.items()):
                output.say(f"{name:<28}  {title(path)}")
        return
    text = find_page(pages, topic).read_text(encoding="utf-8")
    if output.as_json:
        output.json({"topic": topic, "text": text})
    elif sys.stdout.isatty():
        pydoc.pager(safe_lines(text))
    else:
        sys.stdout.write(safe_lines(text))


def all_pages() -> dict[str, Path]:
    """The pages by name, `guide/feed`: those of the wheel, or of the checkout that this is."""
    packaged = Path(str(resources.files("stateroom"))) / "docs"
    root = packaged if packaged.is_dir() else Path(__file__).parents[3] / "docs"
    return {f"{shelf}/{path.stem}": path for shelf in SHELVES for path in sorted((root / shelf).glob("*.md"))}


def find_page(pages: dict[str, Path], topic: str) -> Path:
    """The page of a topic: its name, or the end of it where only one ends so. `NotFound` names those there are."""
    wanted = topic.removeprefix("docs/").removesuffix(".md")
    matching = [name for name in pages if name == wanted or name.partition("/")[2] == wanted]
    if not matching:
        raise NotFound(f"no page {topic!r}; there are: {', '.join(sorted(pages))}", kind="docs", id=topic)
    return pages[matching[0]]


def title(path: Path) -> str:
    """The first heading of a page."""
    with path.open(encoding="utf-8") as lines:
        return next((line.lstrip("# ").strip() for line in lines if line.startswith("#")), "")
