"""A DAG over three node processes, one of which is killed in the middle; see README.md beside this file.

Run ``python examples/dag/run.py``. It is what ``stateroom demo --nodes 3`` runs: the functions are in
``stateroom.cli.demo.dag.plan``, what a worker does with its node in ``stateroom.cli.demo.dag.worker``.
"""

import sys

from stateroom.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", "--nodes", "3", *sys.argv[1:]]))
