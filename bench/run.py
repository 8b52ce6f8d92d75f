"""Run every measurement in this folder, one process each, and print their tables: python bench/run.py [NAME ...]

A measurement is a file that runs by itself (`python bench/engine.py`) and prints a table; names select by substring.
"""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def scripts(words: list[str]) -> list[Path]:
    """The measurements here: files that have a main, without this one and helpers."""
    found = (file for file in sorted(HERE.glob("*.py")) if file.name not in {"run.py", "common.py"})
    return [
        file for file in found if not file.name.startswith("_") and (not words or any(w in file.stem for w in words))
    ]


def machine() -> str:
    """What the figures below were measured on, as far as Python knows."""
    return f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {platform.system()} {platform.machine()}"


def main(words: list[str]) -> int:
    """Run what was asked for; 1 when one of them failed, 2 when there is nothing of that name."""
    chosen = scripts(words)
    if not chosen:
        print(f"no measurement matches {' '.join(words)}; there are: {' '.join(f.stem for f in scripts([]))}")
        return 2
    print(machine(), flush=True)
    failed = []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))}
    for file in chosen:
        print(f"\n== {file.stem}", flush=True)
        started = time.perf_counter()
        if subprocess.run([sys.executable, str(file)], env=environment, check=False).returncode:
            failed.append(file.stem)
        print(f"   ({time.perf_counter() - started:.0f} s)", flush=True)
    if failed:
        print(f"\nfailed: {' '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
