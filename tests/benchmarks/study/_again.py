"""Whether a run comes out the same elsewhere: once more from its config, on another machine."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks import record
from tests.benchmarks.study import _text, _work
from tests.benchmarks.study._analysis import loss
from tests.benchmarks.study._study import Run, Study


def again(
    study: Study, run: Run, out: Path, folder: Path = _work.TABLES, *, stop: Callable[[], bool]
) -> dict[str, Any] | None:
    """Train a finished run anew, and add both losses to those that are noted; None if stopped.

    ValueError for a run that is neither in the committed table nor in `out`.
    """
    before = _work.done(study, out).get(run)
    if before is None:
        raise ValueError(
            f"{study} has no finished run {run}, in {out} or in tests/benchmarks/results/study/{study}.json; "
            f"`run {study.name} --size {study.size} --only {run}` trains it first"
        )
    own = out / "again" / str(study) / f"{run}-{study.digest(run)}"
    own.mkdir(parents=True, exist_ok=True)
    with _work.claimed(own) as mine:
        if not mine:
            raise ValueError(f"another process is at {run} already; wait for it")
        result = _work.do(study, run, own, out / "data", stop=stop)
    if result is None:
        return None
    found = {
        "study": str(study),
        "run": str(run),
        "digest": study.digest(run),
        **record.stamp(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "limits": {name: os.environ[name] for name in LIMITS if name in os.environ},
        "before": {"date": before["date"], "machine": before["machine"], "loss": loss(before)},
        "loss": loss(result),
    }
    path = path_of(folder)
    with _text.alone(folder):
        others = record.read(path) if path.exists() else []
        record.put(path, json.dumps([*others, found], indent=1) + "\n")
    return found


def path_of(folder: Path = _work.TABLES) -> Path:
    """Where losses are noted."""
    return folder / "again.json"


LIMITS = ("ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR")
