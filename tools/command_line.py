"""Write docs/reference/command-line.md from the commands themselves: python tools/command_line.py"""

from pathlib import Path
from typing import Any

import typer

from stateroom.cli.app import app

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "command-line.md"

HEAD = """# The command line

`pip install "stateroom[cli]"` gives `stateroom [OPTIONS] NOUN VERB`. Options of the whole command may stand anywhere.
This page is written from the commands by `tools/command_line.py`; `stateroom NOUN VERB -h` says the same.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | refused, not found, unavailable; `check` and `doctor` found something wrong |
| 2 | usage: what was typed, and nothing else |
| 130 | interrupted by Ctrl-C, or somebody said no |

An error is one line on stderr, `code: message`, or `{"error": {...}}` with `--json`. Lists are ordered by id, show
100 records, and take `--limit N` (`-n N`) and `--all`. Where a terminal is narrow, ids are folded and other columns are
left out. Control characters in stored text are shown escaped. Times are in UTC, or with `--local` in this machine's
zone.

Verbs that destroy ask on a terminal; elsewhere they need `--yes`. With `--dry-run` they show what would go:

```console
$ stateroom instance delete --status failed --older-than 30d --dry-run
```

A value whose type is not registered in this process is shown as `order{n: 4}`; `--import MODULE` (or
`$STATEROOM_IMPORT`, modules separated by commas) imports what registers the types. A record that cannot be opened at
all is left out of lists and counted on stderr. `--read-only` opens files and roles that may only be read.
`$STATEROOM_KEY_RING` names the key ring.
"""


def page() -> str:
    """The page as the commands say it."""
    root: Any = typer.main.get_command(app)
    lines = [HEAD, "## Options of the whole command", "", *_options(root), ""]
    for name, command in root.commands.items():
        verbs = getattr(command, "commands", None)
        if verbs is None:
            lines += _command(name, command)
            continue
        lines += [f"## stateroom {name}", "", command.help or "", ""]
        for verb, inner in verbs.items():
            if not inner.hidden:
                lines += _command(f"{name} {verb}", inner, "###")
    return "\n".join(lines).rstrip() + "\n"


def _command(name: str, command: Any, level: str = "##") -> list[str]:
    arguments = " ".join(_argument(each) for each in command.params if each.param_type_name == "argument")
    options = _options(command)
    text = " ".join((command.help or "").split())
    return [
        f"{level} stateroom {name}",
        "",
        f"`stateroom {f'{name} {arguments}'.strip()}`",
        "",
        text,
        "",
        *options,
        *([""] if options else []),
    ]


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required or name.startswith("[") else f"[{name}]"


def _options(command: Any) -> list[str]:
    rows = [
        f"| `{', '.join([*each.opts, *each.secondary_opts])}` | {(each.help or '').replace('|', chr(92) + '|')} |"
        for each in command.params
        if each.param_type_name == "option" and "--help" not in each.opts
    ]
    return ["| option | meaning |", "| --- | --- |", *rows] if rows else []


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
