"""The project has one name; nothing of the former one is left, for `pip install` of that is another project."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORMER = "hold" + "fast"


def test_nothing_has_the_former_name() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode or not listed.stdout:
        pytest.skip("no git checkout: an installed wheel, or an archive")
    names = [name for name in listed.stdout.decode().split("\0") if name]
    assert not [name for name in names if FORMER in name.lower()]
    mentions = [
        name for name in names if (ROOT / name).is_file() and FORMER.encode() in (ROOT / name).read_bytes().lower()
    ]
    assert not mentions
