"""A log of a run: what it had consumed, and what it had reached, from time to time."""

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from dataeff import _files
from dataeff.clock._clock import Clock
from dataeff.clock._counts import AXES

_SUFFIXES = (".jsonl", ".csv")


def _as_path(path: Any) -> Path:
    file = Path(path)
    if file.suffix not in _SUFFIXES:
        raise ValueError(f"{file}: expected a file named *.jsonl or *.csv")
    return file


@attrs.frozen
class Log:
    """A file that a run writes its counts and values to, a line a moment; `dataeff report` reads it.

    JSON lines, or CSV by the name of the file; CSV has the columns of its first line. By convention values
    are called `loss`, `validation_loss` (nats a token), `bits_per_byte`, `lr`, `sequence_length`,
    `kept_tokens`, `pool` (share of samples that are eligible) and `exposures` (how many samples were drawn 0,
    1, 2, ... times so far). What is not finite is written as null. Let one rank write.

    Examples:
        >>> import tempfile
        >>> clock = Clock(timer=int)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = Log(f"{folder}/run.jsonl")
        ...     clock.tick(samples=8, tokens=4096)
        ...     log.write(clock, validation_loss=5.25)
        ...     read_log(log.path)[0]["validation_loss"]
        5.25
    """

    path: Path = attrs.field(converter=_as_path)

    def write(self, clock: Clock, **values: Any) -> None:
        """Append a moment: the clock's counts and `values`, which are numbers or lists of them.

        Raises ValueError for a value that is neither, or called as a count, or no column of a CSV file.
        """
        counts = clock.counts()
        if taken := sorted(set(values) & set(counts)):
            raise ValueError(f"the value {taken[0]!r} is called as a count of the clock; rename it")
        moment = counts | {name: _plain(name, value) for name, value in values.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            columns = self._columns(moment) if self.path.suffix == ".csv" and file.tell() else None
            file.write(_text(self.path.suffix, [moment], columns))

    def rewind(self, clock: Clock) -> None:
        """Forget moments after the clock's step, which a run that was resumed there goes through again.

        A line that a kill cut off goes, too. The file is rewritten whole or not at all.
        """
        if self.path.exists():
            kept = [moment for moment in _moments(self.path) if moment["steps"] <= clock.steps]
            content = _text(self.path.suffix, kept).encode()
            _files.write(self.path, lambda file: _files.put(file, content))

    def _columns(self, moment: Mapping[str, Any]) -> list[str]:
        with self.path.open(encoding="utf-8", newline="") as file:
            columns = next(csv.reader(file))
        if strange := [name for name in moment if name not in columns]:
            raise ValueError(
                f"{self.path} has no column {strange[0]!r}; CSV has those of its first line, "
                f"{', '.join(columns)}: write it from the beginning, or use a .jsonl file"
            )
        return columns


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """The moments of a log by their steps, what was written at one step together. Nulls are nan.

    A last line that a kill cut off is left out. Raises ValueError, with the line, for what is no log,
    FileNotFoundError for no file.

    Examples:
        >>> read_log("run.txt")
        Traceback (most recent call last):
        ...
        ValueError: run.txt: expected a file named *.jsonl or *.csv
    """
    moments: dict[int, dict[str, Any]] = {}
    for moment in _moments(_as_path(path)):
        moments.setdefault(moment["steps"], {}).update(moment)
    return [moments[step] for step in sorted(moments)]


def _moments(path: Path) -> list[dict[str, Any]]:
    content = path.read_text(encoding="utf-8")
    content = content[: content.rfind("\n") + 1]
    if path.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(content, newline=""))
        return [_moment(path, rows.line_num, _row(row)) for row in rows]
    lines = enumerate(content.splitlines(), start=1)
    return [_moment(path, number, line) for number, line in lines if line.strip()]


def _moment(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        moment = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}, does not parse: {error}") from None
    if not isinstance(moment, dict) or not isinstance(moment.get("steps"), int):
        raise ValueError(f"{path}, line {number}, is no moment of a log: it has no whole number of steps")
    return {name: math.nan if value is None else value for name, value in moment.items()}


def _plain(name: str, value: Any) -> Any:
    listed = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(listed, list | tuple):
        return [_plain(name, entry) for entry in listed]
    if isinstance(listed, bool) or not isinstance(listed, int | float):
        raise ValueError(f"the value {name!r} is {value!r}; expected a number, or a list of numbers")
    return listed


def _text(suffix: str, moments: list[dict[str, Any]], columns: list[str] | None = None) -> str:
    """Moments as lines; those of CSV with a heading, unless its columns are given."""
    told = [{name: json.dumps(_finite(value)) for name, value in moment.items()} for moment in moments]
    if suffix == ".jsonl":
        pairs = ([f"{json.dumps(name)}: {value}" for name, value in moment.items()] for moment in told)
        return "".join(f"{{{', '.join(pair)}}}\n" for pair in pairs)
    file = io.StringIO()
    all_columns = columns or list(dict.fromkeys(name for moment in told for name in moment)) or list(AXES)
    writer = csv.DictWriter(file, all_columns, lineterminator="\n")
    if columns is None:
        writer.writeheader()
    writer.writerows(told)
    return file.getvalue()


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return value if math.isfinite(value) else None


def _row(row: Mapping[Any, Any]) -> str:
    """A row of CSV, whose cells are JSON, as a line of JSON; what is empty was not there."""
    return "{" + ", ".join(f"{json.dumps(name)}: {cell}" for name, cell in row.items() if cell) + "}"
