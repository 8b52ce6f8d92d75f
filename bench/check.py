"""What `check` costs: records, seconds and memory, for a file of as many executions as are asked for."""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import stateroom
from stateroom import Execution


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    records = parser.parse_args().records
    with (
        tempfile.TemporaryDirectory() as folder,
        stateroom.open(Path(folder) / "check.db", durability="normal") as store,
    ):
        for start in range(0, records, 1000):
            store.executions.create_many(
                [Execution(f"e{number}", f"job{number % 100}") for number in range(start, min(start + 1000, records))]
            )
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        problems = store.check()
        seconds = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(
            f"{records} records: {seconds:.1f} s, {seconds / records * 1e6:.0f} us each, {len(problems)} problems,"
            f" peak {after // 1024} MiB ({before // 1024} MiB before)"
        )


if __name__ == "__main__":
    main()
