"""Every check and figure that needs a CUDA device, in one go: `python -m tests.benchmarks.gpu`.

Writes JSON into $OUT, or beside the other results, part by part: one that fails, or a limit of time, loses no
other. Without a device it says so and exits 0. dataeff must be
installed, so that the registry finds its entry points; on a machine without a network, install a wheel of it
(`pip wheel --no-deps .`) and one of `entrypoints`. DeepSpeed's kernels are compared if DEEPSPEED_SOURCE names
the folder of its source package that holds `csrc`; nvcc compiles them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dataeff import demo
from tests.benchmarks import ops_gpu, train_step_gpu
from tests.benchmarks.record import RESULTS, write

TESTS = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"]
STUDY = [sys.executable, "-m", "tests.benchmarks.study", "run", "gpt", "--size", "toy", "--device", "cuda"]
MEMORY = ["compute-sanitizer", "--error-exitcode", "9", *TESTS, "-k", "one_row_of_ids or pieces or any_masks"]


def _demo() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        results = demo.run(
            steps=300, seed=0, device="cuda", text=None, index=Path(folder) / "index", config=demo.Config()
        )
    print(demo.table(results))
    return results


FIGURES: dict[str, Callable[[], dict[str, Any]]] = {
    "ops_gpu": ops_gpu.figures,
    "train_step_gpu": lambda: train_step_gpu.figures("cuda", ops_gpu.milliseconds),
    "demo_gpu": _demo,
}


def main() -> int:
    """Run what is due; the exit code is 0 if all of it went well."""
    if not torch.cuda.is_available():
        print("No CUDA device here: nothing was run, and everything that needs one stays due.")
        return 0
    out = Path(os.environ.get("OUT", RESULTS))
    codes = {"tests": subprocess.run(TESTS, check=False).returncode}
    for name, figures in FIGURES.items():
        codes[name] = _write(name, figures, out)
    with tempfile.TemporaryDirectory() as folder:
        codes["toy_study"] = subprocess.run([*STUDY, "--out", folder], check=False).returncode
    if shutil.which(MEMORY[0]):
        codes[MEMORY[0]] = subprocess.run(MEMORY, check=False).returncode
    write("gpu", {"exit_codes": codes}, out)
    return int(any(codes.values()))


def _write(name: str, figures: Callable[[], dict[str, Any]], out: Path) -> int:
    """Make figures and write them; 1, and why on the terminal, where that fails."""
    try:
        write(name, figures(), out)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
