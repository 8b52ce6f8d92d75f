"""The command line: `stateroom [--url URL] [--namespace N] [--json] NOUN VERB`. Needs the extra `cli`."""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code: 0 done, 1 refused, not found or unavailable, 2 usage, 130 interrupted."""
    try:
        from .app import run

        return run(sys.argv[1:] if arguments is None else arguments)
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in {"typer", "rich"}:
            raise
        print("unavailable: the command line needs typer and rich: pip install 'stateroom[cli]'", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
