"""The log of a search: JSON lines, the settings first, then one finished probe a line."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from dataeff import _files
from dataeff.tuning._config import Config
from dataeff.tuning._probe import Probe
from dataeff.tuning._search import Search
from dataeff.tuning._stability import Stability

NAME = "tuning.jsonl"
FORMAT = 1
_NOT_SEARCHED = ("format", "probe", "script", "source")


def read(path: Path) -> tuple[dict[str, Any] | None, list[Probe]]:
    """The settings, None if there are none yet, and the finished probes.

    A last line that a kill cut off is left aside. Raises ValueError, naming the file and the line, for any
    other that is no line of a log.

    Examples:
        >>> read(Path("nowhere.jsonl"))
        (None, [])
    """
    lines = [_parsed(path, number, line) for number, line in enumerate(_whole_lines(path), 1)]
    if not lines:
        return None, []
    if lines[0].get("format") != FORMAT:
        raise ValueError(f"{path} is no log of format {FORMAT}; choose another folder, or delete it")
    return lines[0], [_probe(path, number, line) for number, line in enumerate(lines[1:], 2)]


def begin(path: Path, settings: Mapping[str, Any]) -> None:
    """Write the first line of a log, or cut off the torn last line of one that is there.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     begin(Path(folder) / NAME, {"probe": "probe"})
        ...     read(Path(folder) / NAME)
        ({'format': 1, 'probe': 'probe'}, [])
    """
    whole = sum(len(line) for line in _whole_lines(path))
    if whole:
        os.truncate(path, whole)
    else:
        path.unlink(missing_ok=True)
        _append(path, {"format": FORMAT, **settings})


def append(path: Path, probe: Probe) -> None:
    """Add a finished probe: a whole line, synced.

    Examples:
        >>> import tempfile
        >>> config = Config(start=8, end=256, duration=100, steps=60)
        >>> probe = Probe(config, ((0, 5.0), (20, None)), Stability(20, float("inf")))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     begin(Path(folder) / NAME, {})
        ...     append(Path(folder) / NAME, probe)
        ...     read(Path(folder) / NAME)[1] == [probe]
        True
    """
    _append(path, to_json(probe))


def to_json(probe: Probe) -> dict[str, Any]:
    """A probe in plain numbers and strings; a rise to infinity is None.

    Examples:
        >>> config = Config(start=8, end=256, duration=100, steps=60)
        >>> to_json(Probe(config, ((0, 5.0), (20, 4.0)), Stability(None, 1.0)))["losses"]
        ((0, 5.0), (20, 4.0))
    """
    rise = probe.stability.rise
    return attrs.asdict(probe.config) | {
        "stable": probe.stable,
        "unstable_at": probe.stability.unstable_at,
        "rise": rise if rise != float("inf") else None,
        "losses": probe.losses,
        "seconds": probe.seconds,
    }


def _append(path: Path, line: Mapping[str, Any]) -> None:
    with _files.room_for(path), path.open("ab") as file:
        file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _whole_lines(path: Path) -> list[bytes]:
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1].splitlines(keepends=True)


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise ValueError(f"{path}, line {number}, is damaged: {line[:60]!r}; delete that line, or the file")
    return told


def _probe(path: Path, number: int, line: Mapping[str, Any]) -> Probe:
    try:
        config = Config(**{field.name: line[field.name] for field in attrs.fields(Config)})
        rise = float("inf") if line["rise"] is None else line["rise"]
        losses = tuple((step, loss) for step, loss in line["losses"])
        return Probe(config, losses, Stability(line["unstable_at"], rise), line["seconds"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}, line {number}, is no finished probe: {error!r}; delete that line"
        ) from None


def settings_of(search: Search, probe: Mapping[str, str]) -> dict[str, Any]:
    """What a log is of: a search, and what `source` says of the probe.

    Examples:
        >>> search = Search(starts=[8], durations=[100], end=64, warmup=20)
        >>> settings_of(search, {"probe": "probe"})["starts"]
        [8]
    """
    return {**probe} | attrs.asdict(search, value_serializer=lambda _, __, value: _plain(value))


def search_of(path: Path, settings: Mapping[str, Any]) -> Search:
    """The search that a log is of. ValueError if its settings are none.

    Examples:
        >>> search = Search(starts=[8], durations=[100], end=64, warmup=20)
        >>> search_of(Path("t.jsonl"), settings_of(search, {"probe": "probe"})) == search
        True
    """
    told = {name: value for name, value in settings.items() if name not in _NOT_SEARCHED}
    try:
        return Search(**told)
    except TypeError as error:
        raise ValueError(f"{path} is the log of no search: {error}") from None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def check_same(path: Path, found: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise ValueError, naming what differs, unless a log is of these settings.

    Examples:
        >>> check_same(Path("t.jsonl"), {"end": 64, "seed": 0}, {"end": 128, "seed": 0})
        Traceback (most recent call last):
        ...
        ValueError: t.jsonl is of another search: end is 64 there and 128 here; choose another folder...
    """
    for name, value in asked.items():
        if name != "script" and (there := found.get(name)) != value:
            raise ValueError(
                f"{path} is of another search: {_named(name, asked)} is {_short(there)} there and "
                f"{_short(value)} here; choose another folder (--out), or delete it"
            )


def _named(name: str, asked: Mapping[str, Any]) -> str:
    return f"the probe's source, {asked['script']}," if name == "source" else name


def _short(value: Any) -> str:
    """A hash by its beginning, anything else as it is."""
    return value[:15] if isinstance(value, str) and value.startswith("sha256:") else repr(value)
