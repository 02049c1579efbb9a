"""What the arms of a study take in time, side by side: runs of other hours shared the machine unequally."""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from tests.benchmarks import record
from tests.benchmarks.study import _train, _work
from tests.benchmarks.study._analysis import Result, work_of
from tests.benchmarks.study._study import Run, Study


def measure(
    study: Study,
    out: Path,
    folder: Path = _work.TABLES,
    *,
    points: int = 6,
    steps: int = 4,
    rounds: int = 3,
    stop: Callable[[], bool] = lambda: False,
) -> Path | None:
    """Time a few steps at points of each arm's longest finished run, in turns; None if stopped.

    Arms whose steps do the same work are timed as one: they differ in the learning rate alone, or, where
    every sample is a full window, in how samples are chosen. Every round goes through all points of all
    arms, each from its middle on and the arms in another order at each, so that what else the machine does
    meets them alike. The first of the steps warms up and is not counted. Runs with no room for this are left
    out. Writes the seconds a TFLOP that each round found, by arm. ValueError if there is no such run.
    """
    torch.set_num_threads(1)
    finished = longest(study, _work.done(study, out))
    runs = {run: took for run, took in finished.items() if took > 2 * points * steps}
    if not runs:
        raise ValueError(
            f"no run of {study} is finished that takes over {2 * points * steps} steps, in {out} or in the "
            "committed table: shorter ones cannot be timed, and others are to be run first"
        )
    setups = {run.arm: (study.setup(run, out / "data"), took) for run, took in runs.items()}
    arms, found = list(setups), {arm: list[float]() for arm in setups}
    with tqdm(total=rounds * points * len(setups), desc=f"timing {study}", unit=" points") as bar:
        for turn in range(rounds):
            spent = dict.fromkeys(setups, (0.0, 0))
            order = random.Random(turn)
            for point, arm in ((p, arm) for p in range(points) for arm in order.sample(arms, len(arms))):
                if stop():
                    return None
                setup, end = setups[arm]
                seconds, flops = _time(setup, int((point + 0.5) / points * end), steps)
                spent[arm] = spent[arm][0] + seconds, spent[arm][1] + flops
                bar.update()
            for arm, (seconds, flops) in spent.items():
                found[arm].append(round(seconds / flops * 1e12, 4))
    path = path_of(study, folder)
    rows = [{"arm": r.arm, "digest": study.digest(r), "seconds_a_tflop": found[r.arm]} for r in runs]
    _work.write_table(
        path, {"study": str(study), **record.stamp(), "points": points, "steps": steps}, "arms", rows
    )
    return path


def path_of(study: Study, folder: Path = _work.TABLES) -> Path:
    """Where it is written."""
    return folder / "timed" / f"{study}.json"


def longest(study: Study, results: dict[Run, Result]) -> dict[Run, int]:
    """Of arms of like work the finished run with the most data, and its steps.

    Those of the importance sampler are left aside: what it leaves out depends on losses, so a run can't be
    entered at any step.
    """
    found: dict[str, Run] = {}
    for run, result in results.items():
        entered, work = result["config"]["arm"]["sampler"] == "shuffled", _work_of(study, run.arm)
        if entered and (work not in found or run.fraction > found[work].fraction):
            found[work] = run
    return {run: results[run]["totals"]["steps"] for run in found.values()}


def _work_of(study: Study, arm: str) -> str:
    config = study.settings_of(Run(arm, 1.0, 1))
    if study.module().PACKED:
        config["arm"]["metric"] = config["settings"]["difficulty_share"] = None
    return work_of(config)


def corrected(results: Iterable[Result], rates: dict[str, list[float]]) -> list[Result]:
    """Results with the seconds that their FLOPs would have taken side by side, by arm; nan for other arms.

    Those of the importance sampler, which no arm of `longest` is, take as long as the baseline's. Without
    rates, results are as they are.
    """
    if not rates:
        return list(results)
    middle = {arm: float(np.median(each)) for arm, each in rates.items()}
    found = []
    for result in results:
        own = {"seconds": _seconds(result, middle), "seconds_as_run": result["totals"]["seconds"]}
        found.append(result | {"totals": result["totals"] | own})
    return found


def _seconds(result: Result, rates: dict[str, float]) -> float:
    arm = "baseline" if result["config"]["arm"]["sampler"] == "importance" else result["arm"]
    return float(result["totals"]["flops"] * rates.get(arm, math.nan))


def rates(study: Study, folder: Path = _work.TABLES) -> dict[str, list[float]]:
    """Seconds a FLOP that each round found for the arms as they are now; none if there is no such file.

    A round is taken by its share of the mean over arms, since all arms of one met the same machine; times the
    median of these means. Of arms of like work it is the mean.
    """
    path = path_of(study, folder)
    rows = record.read(path)["arms"] if path.exists() else []
    if not rows:
        return {}
    took = np.array([row["seconds_a_tflop"] for row in rows]) / 1e12
    shares = took / took.mean(0) * np.median(took.mean(0))
    due = {study.digest(run) for run in study.runs()}
    known = defaultdict(list)
    for row, own in zip(rows, shares, strict=True):
        if row["digest"] in due:
            known[_work_of(study, row["arm"])].append(own)
    works = {arm: _work_of(study, arm) for arm in study.arms}
    return {arm: list(np.mean(known[work], 0)) for arm, work in works.items() if work in known}


def _time(setup: _train.Setup, at: int, steps: int) -> tuple[float, int]:
    """Seconds by the run's clock and FLOPs of some steps, after one at `at`."""
    sampler, clock = (setup.run.parts[part] for part in ("sampler", "clock"))
    sampler.load_state_dict(sampler.state_dict() | {"step": at})
    training = _train.steps(setup)
    next(training)
    flops, began = clock.flops, clock.seconds
    for _ in range(steps):
        next(training)
    return clock.seconds - began, clock.flops - flops
