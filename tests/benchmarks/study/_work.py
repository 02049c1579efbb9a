"""Going through the runs of a study: each by one process, resumed where it was left, its result kept."""

import contextlib
import fcntl
import fnmatch
import json
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks import record
from tests.benchmarks.study import _train
from tests.benchmarks.study._study import Run, Study

TABLES = record.RESULTS / "study"


def work(
    study: Study,
    out: Path,
    *,
    stop: Callable[[], bool],
    every: float = 60.0,
    only: str = "*",
    anew: bool = False,
) -> tuple[int, int]:
    """Train what is due, until all is done or `stop` says so. Gives how many runs are done, and of how many.

    A run that another process is at is left to it. `only` is a pattern of the names of those to do. With
    `anew` those of the committed table are trained, too.
    """
    runs = due(study, only)
    if not runs:
        raise ValueError(
            f"{study} has no run like {only!r}; they are called as {study.runs()[0]}, and are those of the "
            f"arms, fractions and seeds of the stages of {study.size!r} in its config"
        )
    before = {} if anew else committed(study)
    for place, run in enumerate(runs, 1):
        if stop():
            break
        if run in before:
            continue
        folder = out / str(study) / f"{run}-{study.digest(run)}"
        folder.mkdir(parents=True, exist_ok=True)
        with claimed(folder) as mine:
            if mine and not (folder / "result.json").exists():
                name = f"{run} ({place} of {len(runs)})"
                do(study, run, folder, out / "data", stop=stop, every=every, name=name)
    return len((fresh(study, out).keys() | before.keys()) & set(runs)), len(runs)


def due(study: Study, only: str = "*") -> list[Run]:
    """The runs whose names are like this, in order."""
    return [run for run in study.runs() if fnmatch.fnmatch(str(run), only)]


def done(study: Study, out: Path) -> dict[Run, dict[str, Any]]:
    """The results of the study as it is now: those of the committed table, and those in `out` before them."""
    return _by_run(study, [*committed(study).values(), *fresh(study, out).values()])


def fresh(study: Study, out: Path) -> dict[Run, dict[str, Any]]:
    """Those in `out` alone."""
    paths = sorted((out / str(study)).glob("*/result.json"))
    return _by_run(study, [row for path in paths for row in _results([record.read(path)], path)])


def committed(study: Study) -> dict[Run, dict[str, Any]]:
    """Those of the committed table alone; none if there is no such file."""
    return _by_run(study, _table(TABLES / f"{study}.json"))


def _table(path: Path) -> list[dict[str, Any]]:
    """The results in a table; none if there is no such file."""
    if not path.exists():
        return []
    found = record.read(path)
    return _results(found.get("runs") if isinstance(found, dict) else found, path)


def _results(rows: Any, path: Path) -> list[dict[str, Any]]:
    """What a file has, if these are results; ValueError that names it if not."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= KEYS for row in rows):
        raise record.damaged(path, f"a result has {', '.join(sorted(KEYS))}, and one lacks some of it")
    return rows


KEYS = {"arm", "fraction", "seed", "digest", "config", "totals", "final"}


def _by_run(study: Study, results: Iterable[dict[str, Any]]) -> dict[Run, dict[str, Any]]:
    """In the order of the config's arms, from all of the data down; without those of settings of before."""
    due = {study.digest(run): run for run in study.runs()}
    found = {due[each["digest"]]: each for each in results if each["digest"] in due}
    arms = list(study.arms)
    return {
        run: found[run]
        for run in sorted(found, key=lambda run: (arms.index(run.arm), -run.fraction, run.seed))
    }


def collect(study: Study, out: Path, folder: Path = TABLES) -> Path:
    """Write all results of a study as one table, a run a line.

    ValueError if the table there has runs of settings that the config has no more: they would be lost.
    """
    found, path = done(study, out), folder / f"{study}.json"
    lost = {run["digest"] for run in _table(path)} - {result["digest"] for result in found.values()}
    if lost:
        raise ValueError(
            f"{path} has {len(lost)} runs of settings that {study} no longer has, and they would be lost; "
            "take back what changed them, or delete those lines first"
        )
    head = {"study": study.name, "size": study.size, "task": study.task, "settings": study.settings}
    write_table(path, head, "runs", found.values())
    return path


def write_table(path: Path, head: dict[str, Any], name: str, rows: Iterable[Any]) -> None:
    """JSON of a head and of named rows, a row a line."""
    lines = ",\n".join(json.dumps(row) for row in rows)
    record.put(path, f'{json.dumps(head, indent=1)[:-2]},\n "{name}": [\n{lines}\n ]\n}}\n')


def do(
    study: Study,
    run: Run,
    folder: Path,
    data: Path,
    *,
    stop: Callable[[], bool],
    every: float = 60.0,
    name: str | None = None,
) -> dict[str, Any] | None:
    """Train one run in its folder; gives the result that is then in `result.json`, or None if stopped.

    `name` is what its progress bar is called.
    """
    torch.set_num_threads(1)  # two runs on two cores are faster than one, and sums have one order
    found = _train.train(study.setup(run, data), folder, every=every, stop=stop, name=name or str(run))
    if found is None:
        return None
    own = {"arm": run.arm, "fraction": run.fraction, "seed": run.seed, "digest": study.digest(run)}
    result = own | {"config": study.settings_of(run), **record.stamp(_versions())} | found
    record.put(folder / "result.json", json.dumps(result) + "\n")
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    return result


def _versions() -> dict[str, str]:
    """Of what models and tokens come from, where it is installed."""
    found = {}
    for name in ("dataeff", "transformers", "tokenizers"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether this process, and no other, has the folder; the system lets go of it when the process ends."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
