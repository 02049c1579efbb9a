"""Every check and figure that needs a CUDA device, in one go: `python -m tests.benchmarks.gpu`.

Writes JSON into $OUT, or beside the other results. Without a device it says so and exits 0. dataeff must be
installed, so that the registry finds its entry points; on a machine without a network, install a wheel of it
(`pip wheel --no-deps .`) and one of `entrypoints`. DeepSpeed's kernels are compared if DEEPSPEED_SOURCE names
the folder of its source package that holds `csrc`; nvcc compiles them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from dataeff import demo
from tests.benchmarks import ops_gpu, train_step_gpu
from tests.benchmarks.record import RESULTS, write

TESTS = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"]
STUDY = [sys.executable, "-m", "tests.benchmarks.study", "run", "gpt", "--size", "toy", "--device", "cuda"]
MEMORY = ["compute-sanitizer", "--error-exitcode", "9", *TESTS, "-k", "one_row_of_ids or pieces or any_masks"]


def main() -> int:
    """Run what is due; the exit code is that of the tests."""
    if not torch.cuda.is_available():
        print("No CUDA device here: nothing was run, and everything that needs one stays due.")
        return 0
    out = Path(os.environ.get("OUT", RESULTS))
    tests = subprocess.run(TESTS, check=False).returncode
    write("ops_gpu", {"tests_exit_code": tests, **ops_gpu.figures()}, out)
    write("train_step_gpu", train_step_gpu.figures("cuda", ops_gpu.milliseconds), out)
    with tempfile.TemporaryDirectory() as folder:
        results = demo.run(
            steps=300, seed=0, device="cuda", text=None, index=Path(folder) / "index", config=demo.Config()
        )
        study = subprocess.run([*STUDY, "--out", folder], check=False).returncode
    print(demo.table(results))
    memory = subprocess.run(MEMORY, check=False).returncode if shutil.which(MEMORY[0]) else None
    codes = {
        "tests_exit_code": tests,
        "toy_study_exit_code": study,
        "compute_sanitizer_exit_code": memory,
    }
    write("gpu", {**codes, "demo": results}, out)
    return tests or study or memory or 0


if __name__ == "__main__":
    sys.exit(main())
