"""Where a figure comes from: what every benchmark writes beside its numbers."""

import datetime
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch

from dataeff import _files

RESULTS = Path(__file__).parent / "results"


def write(
    name: str, figures: dict[str, Any], folder: Path = RESULTS, *, versions: dict[str, str] | None = None
) -> Path:
    """Write `figures` with machine, versions (and those of others) and date to `<folder>/<name>.json`."""
    record = {"benchmark": name, **stamp(versions), "figures": figures}
    path = folder / f"{name}.json"
    put(path, json.dumps(record, indent=1) + "\n")
    print(f"written: {path}")
    return path


def put(path: Path, text: str) -> None:
    """Write a file that is whole or not there; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _files.write(path, lambda file: _files.put(file, text.encode()))


def read(path: Path) -> Any:
    """What a file of JSON says; ValueError that names the file if it is damaged."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise damaged(path, error) from None


def damaged(path: Path, why: object) -> ValueError:
    """The error for a file that is not as it was written."""
    return ValueError(f"{path} is damaged: {why}; restore it, or delete it to have it made anew")


def stamp(versions: dict[str, str] | None = None) -> dict[str, Any]:
    """When, of which code, on what kind of machine and with which versions (and those of others)."""
    return {
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": platform.machine(),
            "model": _model(),
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


def _model() -> str | None:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or None


def _commit() -> str | None:
    """What git has checked out, "-dirty" if there is more; None where there is no git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, cwd=RESULTS, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
