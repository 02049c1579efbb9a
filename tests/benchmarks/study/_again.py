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

PATH = _work.TABLES / "again.json"


def again(study: Study, run: Run, out: Path, *, stop: Callable[[], bool]) -> dict[str, Any] | None:
    """Train a run that is in the committed table anew, and write both losses to `PATH`; None if stopped.

    ValueError for a run that is not in the table.
    """
    before = _work.committed(study).get(run)
    if before is None:
        raise ValueError(
            f"{study} has no finished run {run}; see tests/benchmarks/results/study/{study}.json"
        )
    folder = out / "again" / str(study) / f"{run}-{study.digest(run)}"
    folder.mkdir(parents=True, exist_ok=True)
    with _work.claimed(folder) as mine:
        if not mine:
            raise ValueError(f"another process is at {run} already; wait for it")
        result = _work.do(study, run, folder, out / "data", stop=stop)
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
    with _text.alone(out / "again"):
        others = json.loads(PATH.read_text()) if PATH.exists() else []
        record.put(PATH, json.dumps([*others, found], indent=1) + "\n")
    return found


LIMITS = ("ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR")
