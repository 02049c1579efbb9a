"""What `import dataeff` adds to the import of torch: the median over pairs of fresh processes."""

import statistics
import subprocess
import sys

from tests.benchmarks.record import write

RUNS = 15


def seconds(statement: str) -> float:
    """The time that a fresh interpreter takes for `statement`, without its own start."""
    code = f"import time; began = time.perf_counter(); {statement}; print(time.perf_counter() - began)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(shown.stdout)


def main() -> None:
    """Measure, print, write."""
    seconds("import torch, dataeff")  # so that all files are in memory and compiled
    pairs = [(seconds("import torch"), seconds("import torch, dataeff")) for _ in range(RUNS)]
    figures = {
        "runs": RUNS,
        "torch_s": round(statistics.median(alone for alone, _ in pairs), 3),
        "added_s": round(statistics.median(both - alone for alone, both in pairs), 3),
    }
    print(f"torch {figures['torch_s']} s; dataeff adds {figures['added_s']} s (median of {RUNS} pairs)")
    write("import_time", figures)


if __name__ == "__main__":
    main()
