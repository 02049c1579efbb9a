"""The logs of several runs, by name."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dataeff.clock import read_log

_LOGS = ("log.jsonl", "log.csv")

Runs = dict[str, list[dict[str, Any]]]


def read_runs(paths: Iterable[str | Path]) -> Runs:
    """The moments of each run, by its name, in the order given.

    A run is a log (`.jsonl` or `.csv`, as `dataeff.clock.Log` writes it), or a folder with a `log.jsonl` or
    `log.csv`. Its name is that of the folder, or of the file without its suffix; those whose names clash are
    called by their paths.

    Raises:
        FileNotFoundError: nothing is there, or no log in a folder.
        ValueError: no log, with the line; a log without a moment; the same log twice; no path at all.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "ltd.jsonl").write_text('{"steps": 10, "loss": 3.5}')
        ...     read_runs([f"{folder}/ltd.jsonl"])
        {'ltd': [{'steps': 10, 'loss': 3.5}]}
    """
    given = [Path(path) for path in paths]
    logs = [log_of(path) for path in given]
    if not logs:
        raise ValueError("no run was given; expected at least one log, or a folder that holds one")
    for place, log in enumerate(logs):
        if log.resolve() in [other.resolve() for other in logs[:place]]:
            raise ValueError(f"{given[place]} was given twice; a run is compared with others")
    names = [name_of(log) for log in logs]
    return {
        str(path) if names.count(name) > 1 else name: _moments(log)
        for path, log, name in zip(given, logs, names, strict=True)
    }


def log_of(path: Path) -> Path:
    """The log that `path` is, or that lies in it; FileNotFoundError for none.

    Examples:
        >>> log_of(Path("nowhere"))
        Traceback (most recent call last):
        ...
        FileNotFoundError: no run is at nowhere; expected a log, or a folder with a log.jsonl or log.csv
    """
    if path.is_file():
        return path
    for name in _LOGS:
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(
        f"no {'log' if path.is_dir() else 'run'} is {'in' if path.is_dir() else 'at'} {path}; "
        f"expected a log, or a folder with a {' or '.join(_LOGS)}"
    )


def name_of(log: Path) -> str:
    """What a run is called after its log.

    Examples:
        >>> name_of(Path("runs/ltd/log.jsonl")), name_of(Path("runs/ltd-seed1.jsonl"))
        ('ltd', 'ltd-seed1')
    """
    return log.resolve().parent.name if log.name in _LOGS else log.stem


def _moments(log: Path) -> list[dict[str, Any]]:
    try:
        moments = read_log(log)
    except UnicodeDecodeError:
        raise ValueError(f"{log} is not text in UTF-8; expected a log") from None
    if not moments:
        raise ValueError(f"{log} is empty; expected a line for each moment of training")
    return moments
