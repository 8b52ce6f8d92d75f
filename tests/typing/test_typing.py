"""The public types, as mypy and pyright see them; a wrong call must be an error there too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = sorted(str(file) for file in HERE.glob("*.py") if not file.name.startswith("test_"))

pytestmark = [
    pytest.mark.skipif(not (ROOT / "src").is_dir(), reason="the source is not beside the tests (an installed wheel)"),
    pytest.mark.timeout(300),
]


def run(*command):
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)


def test_mypy(tmp_path):
    pytest.importorskip("mypy")
    options = ["--strict", "--warn-unused-ignores", "--cache-dir", str(tmp_path)]
    told = run("mypy", *options, *FILES)
    assert told.returncode == 0, told.stdout + told.stderr


def test_pyright(tmp_path):
    pytest.importorskip("pyright")
    settings = tmp_path / "pyrightconfig.json"
    where = Path(os.path.relpath(HERE, tmp_path)).as_posix()  # an absolute one is ignored
    settings.write_text(
        f'{{"include": ["{where}"], "exclude": ["**/test_*.py"], "extraPaths": ["{ROOT / "src"}"],'
        ' "pythonVersion": "3.11", "reportUnnecessaryTypeIgnoreComment": false, "enableTypeIgnoreComments": false}'
    )
    told = run("pyright", "--pythonpath", sys.executable, "--project", str(settings))
    assert told.returncode == 0, told.stdout + told.stderr
