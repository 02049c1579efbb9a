"""Where a figure comes from: what every benchmark writes beside its numbers."""

import datetime
import json
import os
import platform
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch

RESULTS = Path(__file__).parent / "results"


def write(
    name: str, figures: dict[str, Any], folder: Path = RESULTS, *, versions: dict[str, str] | None = None
) -> Path:
    """Write `figures` with machine, versions (and those of others) and date to `<folder>/<name>.json`."""
    record = {"benchmark": name, **stamp(versions), "figures": figures}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written: {path}")
    return path


def stamp(versions: dict[str, str] | None = None) -> dict[str, Any]:
    """When, on what kind of machine and with which versions (and those of others)."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "numba": numba.__version__,
            **(versions or {}),
        },
    }
