"""Every check and figure that needs a CUDA device, in one go: `python -m tests.benchmarks.gpu --help`.

Writes JSON into $OUT, or beside the other results. Each part is a process of its own, so that one that fails,
or leaves the device in an error, loses no other; `gpu.json` says how each ended, and is written anew after
each. Without a device it says so and exits 0.
"""

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks import ops_gpu
from tests.benchmarks.record import RESULTS, read, write

ROOT = Path(__file__).parents[2]
HELP = """\
On a machine that is lent for minutes, run what is most needed first, and the rest by further commands:

  export OUT=results DEEPSPEED_SOURCE=deepspeed-0.19.8
  python -m tests.benchmarks.gpu ops_gpu
  python -m tests.benchmarks.gpu tests memory
  python -m tests.benchmarks.gpu train_step_gpu toy_study demo_gpu
  DATAEFF_STUDY=study python -m tests.benchmarks.gpu study_m

ops_gpu writes its figures after every shape, and goes on where another run with the same code, on the same
kind of device, left off. gpu.json says how each part ended: its exit code, "due" if it was not reached, or
"absent" if its program is not on this machine.

study_m trains runs of size M of the evidence study for eight minutes, or as many as STUDY_MINUTES says, in
the folder that DATAEFF_STUDY names, whose `data` any run of `python -m tests.benchmarks.study run gpt` with a
network has made; the same command goes on. Results are copied to $OUT/study/gpt_m, which
`python -m tests.benchmarks.study table gpt --size m --out $OUT/study` gathers.

dataeff must be installed, so that the registry finds its entry points; on a machine without a network,
install a wheel of it (`pip wheel --no-deps .`) and one of `entrypoints`. DeepSpeed's kernels are compared if
DEEPSPEED_SOURCE names the folder of its source package that holds `csrc`; nvcc compiles them.
"""
TESTED = ["tests/test_ops.py", "tests/test_meter.py"]
"""The files with tests that need a device; the others may import what is not there."""

TESTS = [sys.executable, "-m", "pytest", "-q", "-W", "default", "-m", "gpu", *TESTED]
AT_ONCE = ["-n", "8"] if importlib.util.find_spec("xdist") else []  # kernels take long to compile
LOOKED_AT = [
    "moves_what_indexing_moves and (bfloat16 or complex64 or bool)",
    "one_row_of_ids",
    "tokens_first_is_rows_first",
    "any_masks",
    "row_in_pieces",
    "folds_a_tensor",
]
"""Which of them run with every access to memory looked at, which takes long."""


def _here(name: str) -> list[str]:
    return [sys.executable, "-c", f"from tests.benchmarks import gpu; raise SystemExit(gpu.{name}())"]


PARTS = {
    "ops_gpu": _here("moves"),
    "tests": [*TESTS, *AT_ONCE],
    "memory": ["compute-sanitizer", "--error-exitcode", "9", *TESTS, "-k", " or ".join(LOOKED_AT)],
    "train_step_gpu": _here("train_step"),
    "toy_study": _here("toy_study"),
    "demo_gpu": _here("trial"),
    "study_m": _here("study_m"),
}
"""What runs each part, in the order of what is most needed."""

ENVIRONMENT = {"memory": {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}}  # else all lies within torch's own blocks


def main(argv: list[str] | None = None) -> int:
    """Run what is asked for; the exit code is 0 if all of it went well."""
    wanted = _parser().parse_args(argv).parts
    if not torch.cuda.is_available():
        print("No CUDA device here: nothing was run, and everything that needs one stays due.")
        return 0
    ended: dict[str, Any] = {name: {"exit_code": "due"} for name in PARTS} | _known("gpu").get("parts", {})
    names = [name for name in PARTS if name in wanted] if wanted else list(PARTS)
    ended |= {name: {"exit_code": "due"} for name in names}
    for name in names:
        print(f"part: {name}", flush=True)
        ended[name] = _ended(name)
        _put("gpu", {"parts": ended})
    return int(any(ended[name]["exit_code"] != 0 for name in names))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.gpu",
        description="Run every check and figure that needs a CUDA device, or the parts that are named.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", type=_part, help=f"of: {', '.join(PARTS)} (default: all)"
    )
    return parser


def _part(name: str) -> str:
    if name not in PARTS:
        raise argparse.ArgumentTypeError(f"{name!r} is no part; expected one of {', '.join(PARTS)}")
    return name


def _ended(name: str) -> dict[str, Any]:
    """How a part ended, and after how long."""
    command = PARTS[name]
    if shutil.which(command[0]) is None:
        print(f"{command[0]} is not on this machine")
        return {"exit_code": "absent"}
    start = time.monotonic()
    environment = os.environ | ENVIRONMENT.get(name, {})
    code = subprocess.run(command, env=environment, check=False).returncode
    return {"exit_code": code, "seconds": round(time.monotonic() - start, 1)}


def out() -> Path:
    """Where results are put."""
    return Path(os.environ.get("OUT", RESULTS))


def _known(name: str) -> dict[str, Any]:
    """The figures that the same code left on the same device; none is an empty dict."""
    path = out() / f"{name}.json"
    if not path.exists():
        return {}
    record = read(path)
    figures: dict[str, Any] = record["figures"]
    same = figures.get("code") == _code() and record["machine"]["gpu"] == torch.cuda.get_device_name()
    return figures if same else {}


def _put(name: str, figures: dict[str, Any]) -> None:
    write(name, {"code": _code(), **figures}, out())


def _code() -> str:
    """What all sources are, on a machine that may have no git."""
    sources = [path for folder in ("dataeff", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


# The parts that are Python's


def moves() -> int:
    """ops_gpu: 1 if a shape could not be measured, or a bar is missed."""
    figures = ops_gpu.figures(known=_known("ops_gpu"), put=lambda own: _put("ops_gpu", own))
    return _judged("ops_gpu", figures, ops_gpu.missed(figures)) or int(ops_gpu.failed(figures))


def train_step() -> int:
    """Steps of compiled models; 1 if a bar is missed."""
    from tests.benchmarks import train_step_gpu

    figures = train_step_gpu.figures("cuda", ops_gpu.milliseconds)
    return _judged("train_step_gpu", figures, train_step_gpu.missed(figures))


def _judged(name: str, figures: dict[str, Any], missed: list[str]) -> int:
    """Put figures, and the bars that they miss, which is an error."""
    _put(name, figures | {"missed": missed})
    for each in missed:
        print(f"bar missed: {each}")
    return int(bool(missed))


def toy_study() -> int:
    """A study that is as small as can be, from its first run to its last."""
    from tests.benchmarks.study import __main__ as study

    with tempfile.TemporaryDirectory() as folder:
        return study.main(["run", "gpt", "--size", "toy", "--device", "cuda", "--out", folder])


def trial() -> int:
    """`dataeff demo` on the device."""
    from dataeff import demo

    with tempfile.TemporaryDirectory() as folder:
        results = demo.run(
            steps=300, seed=0, device="cuda", text=None, index=Path(folder) / "index", config=demo.Config()
        )
    print(demo.table(results))
    _put("demo_gpu", results)
    return 0


def study_m() -> int:
    """As many runs of the study at size M as there is time for, which go on where they were left."""
    from tests.benchmarks.study import __main__ as study

    if (given := os.environ.get("DATAEFF_STUDY")) is None:
        print("DATAEFF_STUDY names no folder with the study's data, so it was not run")
        return 1
    minutes = os.environ.get("STUDY_MINUTES", "8")
    code = study.main(["run", "gpt", "--size", "m", "--minutes", minutes, "--out", given])
    kept = out() / "study"
    if Path(given).resolve() != kept.resolve():  # else they are there
        for result in Path(given).glob("gpt_m/*/result.json"):
            folder = kept / result.parent.relative_to(given)
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(result, folder)
    return code


if __name__ == "__main__":
    sys.exit(main())
