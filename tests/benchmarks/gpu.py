"""Every check and figure that needs a CUDA device, in one go: `python -m tests.benchmarks.gpu`.

Writes JSON into $OUT, or beside the other results. Without a device it says so and exits 0. dataeff must be
installed, so that the registry finds its entry points; on a machine without a network, install a wheel of it
(`pip wheel --no-deps .`) and one of `entrypoints`.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from dataeff import demo
from tests.benchmarks.record import RESULTS, write


def main() -> int:
    """Run what is due; the exit code is that of the tests."""
    if not torch.cuda.is_available():
        print("No CUDA device here: nothing was run, and everything that needs one stays due.")
        return 0
    out = Path(os.environ.get("OUT", RESULTS))
    tests = subprocess.run([sys.executable, "-m", "pytest", "-m", "gpu", "tests"], check=False)
    with tempfile.TemporaryDirectory() as folder:
        results = demo.run(
            steps=300, seed=0, device="cuda", text=None, index=Path(folder) / "index", config=demo.Config()
        )
    print(demo.table(results))
    write("gpu", {"tests_exit_code": tests.returncode, "demo": results}, out)
    return tests.returncode


if __name__ == "__main__":
    sys.exit(main())
