"""A log of a run: what it had consumed, and what it had reached, from time to time."""

import csv
import errno
import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from dataeff import _files
from dataeff.clock._clock import Clock

_SUFFIXES = (".jsonl", ".csv")
_TAIL = 2**16  # bytes
_OPEN = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)


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

        Raises ValueError for a value that is neither, or called as a count, or no column of a CSV file, and
        where the log has gone further than the clock: a run that begins again, or is resumed, rewinds first.
        A write that fails, as on a full disk, leaves the log as it was.
        """
        counts = clock.counts()
        if taken := sorted(set(values) & set(counts)):
            raise ValueError(f"the value {taken[0]!r} is called as a count of the clock; rename it")
        moment = counts | {name: _plain(name, value) for name, value in values.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, _OPEN, 0o666)
        try:
            last = _last_line(descriptor, self.path)
            columns = self._columns() if last and self.path.suffix == ".csv" else None
            self._check_order(_steps_in(last, columns), clock.steps)
            self._check_columns(moment, columns)
            _append(descriptor, _text(self.path.suffix, [moment], columns).encode())
        finally:
            os.close(descriptor)

    def rewind(self, clock: Clock) -> None:
        """Forget moments after the clock's step, which a run that was resumed there goes through again.

        A line that a kill cut off goes, too. The file is rewritten whole or not at all.
        """
        if self.path.exists():
            kept = [moment for moment in _moments(self.path) if moment["steps"] <= clock.steps]
            content = _text(self.path.suffix, kept).encode()
            _files.write(self.path, lambda file: _files.put(file, content))

    def _check_order(self, told: int, steps: int) -> None:
        if told > steps:
            raise ValueError(
                f"{self.path} goes on to step {told}, and the clock is at {steps}; call log.rewind(clock) "
                "first, also where a run begins anew, or use another file"
            )

    def _columns(self) -> list[str]:
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file))

    def _check_columns(self, moment: Mapping[str, Any], columns: list[str] | None) -> None:
        if columns and (strange := [name for name in moment if name not in columns]):
            raise ValueError(
                f"{self.path} has no column {strange[0]!r}; CSV has those of its first line, "
                f"{', '.join(columns)}: write it from the beginning, or use a .jsonl file"
            )


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


def _last_line(descriptor: int, path: Path) -> str:
    """The last line of a file, after what a kill cut off was taken away; "" of an empty one."""
    size = os.fstat(descriptor).st_size
    if size and _read_at(descriptor, 1, size - 1) != b"\n":
        whole = _whole_lines(path).encode()
        os.ftruncate(descriptor, min(len(whole), size))
        os.write(descriptor, whole[size:])
        size = len(whole)
    tail, start = b"", size
    while start > 0 and tail.count(b"\n") < 2:
        start = max(0, start - _TAIL)
        tail = _read_at(descriptor, size - start, start)
    return tail[tail.rfind(b"\n", 0, -1) + 1 : -1].decode(errors="replace")


def _read_at(descriptor: int, size: int, start: int) -> bytes:
    os.lseek(descriptor, start, os.SEEK_SET)  # Windows has no os.pread; writes append wherever this is
    return os.read(descriptor, size)


def _steps_in(line: str, columns: list[str] | None) -> int:
    """The steps of a line, 0 of one that is no moment, as a heading."""
    try:
        cells = next(csv.reader([line])) if columns else []
        moment = json.loads(_row(dict(zip(columns, cells, strict=False))) if columns else line)
    except (ValueError, csv.Error, StopIteration):
        return 0
    steps = moment.get("steps") if isinstance(moment, dict) else None
    return steps if isinstance(steps, int) else 0


def _whole_lines(path: Path) -> str:
    """A file's text without a last line that a kill cut off; one that only lacks its end gets it."""
    content = path.read_text(encoding="utf-8")
    lines, end, last = content.rpartition("\n")
    if path.suffix == ".csv":
        cells, columns = next(csv.reader([last]), []), next(csv.reader(lines.splitlines()), [])
        whole = len(cells) == len(columns)
    else:
        whole = _parses(last)
    return content + "\n" if last and whole else lines + end


def _parses(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _append(descriptor: int, content: bytes) -> None:
    """Append all of it in one call, or nothing."""
    size = os.fstat(descriptor).st_size
    try:
        if os.write(descriptor, content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _moments(path: Path) -> list[dict[str, Any]]:
    content = _whole_lines(path).removeprefix("\ufeff")  # which spreadsheets write
    if path.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(content, newline=""))
        try:
            return [_moment(path, rows.line_num, _row(row)) for row in rows]
        except csv.Error as error:
            raise ValueError(f"{path}, line {rows.line_num + 1}, does not parse: {error}") from None
    lines = enumerate(content.splitlines(), start=1)
    return [_moment(path, number, line) for number, line in lines if line.strip()]


def _moment(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        moment = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}, does not parse: {error}") from None
    if not isinstance(moment, dict) or not isinstance(moment.get("steps"), int):
        raise ValueError(f"{path}, line {number}, is no moment of a log: it has no whole number of steps")
    return {name: _with_nan(value) for name, value in moment.items()}


def _with_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_nan(entry) for entry in value]
    return math.nan if value is None else value


def _plain(name: str, value: Any) -> Any:
    listed = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(listed, list | tuple):
        return [_plain(name, entry) for entry in listed]
    if listed is None:
        return math.nan
    if isinstance(listed, bool) or not isinstance(listed, int | float):
        raise ValueError(f"the value {name!r} is {value!r}; expected a number, or a list of numbers")
    return listed


def _text(suffix: str, moments: list[dict[str, Any]], columns: list[str] | None = None) -> str:
    """Moments as lines; those of CSV with a heading, unless its columns are given."""
    if not moments:
        return ""
    told = [{name: json.dumps(_finite(value)) for name, value in moment.items()} for moment in moments]
    if suffix == ".jsonl":
        pairs = ([f"{json.dumps(name)}: {value}" for name, value in moment.items()] for moment in told)
        return "".join(f"{{{', '.join(pair)}}}\n" for pair in pairs)
    file = io.StringIO()
    all_columns = columns or list(dict.fromkeys(name for moment in told for name in moment))
    writer = csv.DictWriter(file, all_columns, lineterminator="\n")
    if columns is None:
        writer.writeheader()
    writer.writerows(told)
    return file.getvalue()


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return value if isinstance(value, int) or math.isfinite(value) else None


def _row(row: Mapping[Any, Any]) -> str:
    """A row of CSV, whose cells are JSON, as a line of JSON; what is empty was not there."""
    cells = {name: _NOT_FINITE.get(str(cell).lower(), cell) for name, cell in row.items() if cell}
    return "{" + ", ".join(f"{json.dumps(name)}: {cell}" for name, cell in cells.items()) + "}"


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
"""As NumPy and pandas write them, and as JSON has them."""
