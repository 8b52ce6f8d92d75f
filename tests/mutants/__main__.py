"""``python -m mutants [WORDS]``: try every defect, or those whose file or title contains a word."""

import sys
import tempfile
from pathlib import Path

from mutants import MUTANTS
from mutants.runner import main

with tempfile.TemporaryDirectory() as folder:
    sys.exit(main(MUTANTS, sys.argv[1:], Path(folder)))
