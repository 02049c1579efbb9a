"""What the finished runs of a study say: intervals over seeds, and comparisons at equal cost."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
import numpy as np
from scipy import stats

Result = dict[str, Any]
Value = Callable[[Result], float]
BASELINE = "baseline"
RATES = ("baseline", "baseline_twice_rate", "baseline_half_rate")
"""The baselines that were tried at all sizes."""


@attrs.frozen
class Estimate:
    """A mean over seeds and half of its 95% interval (Student's t), which is nan for one seed."""

    mean: float
    half: float
    seeds: int

    def shown(self, form: str) -> str:
        """The mean, and half of the interval if there is one, each formatted so; "" if there is no mean.

        A sign is the mean's.
        """
        if math.isnan(self.mean):
            return ""
        half = "" if math.isnan(self.half) else f" ± {self.half:{form.removeprefix('+')}}"
        return f"{self.mean:{form}}{half}"

    def less(self, other: "Estimate") -> "Estimate":
        """The difference, with the intervals of both, whose seeds are not paired."""
        return Estimate(self.mean - other.mean, math.hypot(self.half, other.half), self.seeds)

    def __str__(self) -> str:
        return self.shown(".3f")


def estimate(values: Iterable[float]) -> Estimate:
    """Of values that are one a seed.

    Examples:
        >>> print(estimate([1.0, 2.0, 3.0]), estimate([1.0]))
        2.000 ± 2.484 1.000
    """
    found = np.array(list(values), float)
    half = math.nan
    if len(found) > 1:
        half = float(stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found)))
    return Estimate(float(found.mean()), half, len(found))


def loss(result: Result) -> float:
    """The validation loss at the end, in nats a token."""
    return float(result["final"]["validation_loss"])


def final(name: str) -> Value:
    """A figure at the end; nan for a run that diverged, which has none but its loss."""
    return lambda result: float(result["final"].get(name, math.nan))


def dropped(result: Result) -> float:
    """The share of tokens that bypassed a block, of those of all blocks of a GPT."""
    totals, blocks = result["totals"], result["config"]["settings"]["layers"]
    return 1 - float(totals["layer_tokens"] / totals["tokens"] / blocks)


def consumed(axis: str) -> Value:
    """What a run had consumed on an axis at the end; "seconds" are with those of building its index."""

    def value(result: Result) -> float:
        extra = result.get("index_seconds", 0.0) if axis == "seconds" else 0.0
        return float(result["totals"][axis]) + extra

    return value


def as_run(result: Result) -> float:
    """Seconds as they were taken in the run itself, whatever else the machine did then."""
    totals = result["totals"]
    return float(totals.get("seconds_as_run", totals["seconds"]))


def grouped(results: Iterable[Result]) -> dict[tuple[str, float], list[Result]]:
    """The runs by arm and share of the data, in the order in which they come."""
    found = defaultdict(list)
    for result in results:
        found[result["arm"], result["fraction"]].append(result)
    return dict(found)


def reference(results: Iterable[Result]) -> dict[float, list[Result]]:
    """The best baseline at each share of the data.

    Arms whose names begin with "baseline" differ in their learning rate or batch size alone, and the paper's
    are not always the best.
    """
    return _best(run for run in results if run["arm"].startswith(BASELINE))


def alike(results: Sequence[Result], arm: str) -> list[Result]:
    """An arm at the best of its learning rates at each share of the data."""
    own = {work_of(run["config"]) for run in results if run["arm"] == arm}
    found = _best(run for run in results if work_of(run["config"]) in own)
    return [run for runs in found.values() for run in runs]


def work_of(config: dict[str, Any]) -> str:
    """What steps do: all that the arm and the settings say but the learning rate."""
    return json.dumps([config["arm"] | {"rate": None}, config["settings"] | {"scaled": None}], sort_keys=True)


def _best(results: Iterable[Result]) -> dict[float, list[Result]]:
    """At each share of the data the arm with the least mean loss, of those with three seeds, or the most."""
    shares: dict[float, list[list[Result]]] = defaultdict(list)
    for (_, fraction), runs in grouped(results).items():
        shares[fraction].append(runs)
    return {
        share: min((runs for runs in arms if len(runs) >= min(3, max(map(len, arms)))), key=mean_loss)
        for share, arms in shares.items()
    }


def mean_loss(runs: Iterable[Result]) -> float:
    """To choose by: infinite if one of them diverged."""
    found = estimate(map(loss, runs)).mean
    return math.inf if math.isnan(found) else found


def against(results: Sequence[Result], axis: str, value: Value = loss) -> dict[tuple[str, float], Estimate]:
    """By arm and share of the data: its mean less the best baseline's at equal cost, with their intervals.

    The baseline's value at the arm's mean cost is read off its own runs of each seed, which ended at several
    shares of the data, linearly over the logarithm of the cost. Arms that cost less than the least of these
    do on the mean over seeds, or more than the greatest (by over 2%), are compared with nothing. Seeds are
    not paired: those of an arm and of the baseline go up and down by themselves, and arms with few can be
    compared with those with many.
    """
    cost, base = consumed(axis), reference(results)
    lines = _lines((run for runs in base.values() for run in runs), cost, value)
    spans: dict[int, list[float]] = {seed: [] for seed in lines}
    for runs in base.values():
        middle = estimate(map(cost, runs)).mean
        for run in runs:
            spans[run["seed"]].append(middle)
    found = {}
    for key, runs in grouped(results).items():
        at, own = estimate(map(cost, runs)).mean, estimate(map(value, runs))
        reach = {seed for seed, span in spans.items() if min(span) / 1.02 <= at <= max(span) * 1.02}
        if reach and not key[0].startswith(BASELINE):
            read = [_read(line, at) for seed, line in lines.items() if seed in reach]
            found[key] = own.less(estimate(read))
    return found


@attrs.frozen
class Factor:
    """How many times less is needed, and which bound that is: "", ">=", "<", or "~" with some seeds only."""

    times: Estimate
    bound: str
    values: tuple[float, ...]
    """One a seed."""

    def __str__(self) -> str:
        if self.bound == "" or math.isnan(self.times.mean):  # of time where the arm was not timed
            return self.times.shown(".2f")
        words = {">=": "at least {}", "<": "less than {}", "~": "about {}, beyond the runs with some seeds"}
        return words[self.bound].format(f"{self.times.mean:.2f}")


def factor(results: Sequence[Result], arm: str, axis: str) -> Factor | None:
    """How many times less an arm needs than the baseline with all data, to be as good; over seeds.

    A seed counts if the arm was trained with it at as many shares of the data as with any, and the best
    baseline with all. Both are at the best of their learning rates. Between runs of the arm at several shares
    its value is linear over the logarithm of the cost. The bound is ">=" where its cheapest run was as good
    already, "<" where its dearest was not. None if no seed counts, or where runs at one share alone were not
    as good.
    """
    cost, found, bounds = consumed(axis), list[float](), set[str]()
    full = {run["seed"]: run for run in reference(results).get(1.0, [])}
    lines = _lines(alike(results, arm), cost, loss)
    shares = max((len(line) for seed, line in lines.items() if seed in full), default=0)
    for seed, line in lines.items():
        if seed in full and len(line) == shares:
            costs, values = np.log([c for c, _ in line]), np.minimum.accumulate([v for _, v in line])
            target = loss(full[seed])
            bounds.add(">=" if values[0] <= target else "<" if values[-1] > target else "")
            found.append(float(cost(full[seed]) / np.exp(np.interp(-target, -values, costs))))
    if not found or not (shares > 1 or bounds == {">="}):
        return None
    return Factor(estimate(found), bounds.pop() if len(bounds) == 1 else "~", tuple(found))


def of_two_shares(results: Sequence[Result], arm: str) -> Factor | None:
    """`factor` of data, read off half and all of it alone, beside the rates that all sizes have tried."""
    baselines = [run for run in results if run["arm"] in RATES]
    arms = [run for run in alike(results, arm) if run["fraction"] in (0.5, 1.0)]
    return factor([*baselines, *arms], arm, "tokens")


@attrs.frozen
class Reached:
    """Whether an arm is within the baseline's 95% interval, or better; None if that has under 3 seeds."""

    reached: bool | None
    own: Estimate
    base: Estimate

    @property
    def difference(self) -> Estimate:
        """Of both, the arm's less the baseline's."""
        return self.own.less(self.base)


def reaches(results: Sequence[Result], arm: str, fraction: float) -> Reached | None:
    """An arm with a share of the data against the best baseline with all. None if one of them is missing."""
    own, base = grouped(results).get((arm, fraction)), reference(results).get(1.0)
    if not own or not base:
        return None
    found, goal = estimate(map(loss, own)), estimate(map(loss, base))
    enough = goal.seeds >= 3  # the interval of two is so wide that much is within it
    return Reached(found.mean <= goal.mean + goal.half if enough else None, found, goal)


def spread(results: Sequence[Result], arm: str, fraction: float) -> float:
    """The standard deviation of an arm's loss over seeds; nan for one."""
    found = [loss(run) for run in grouped(results).get((arm, fraction), [])]
    return float(np.std(found, ddof=1)) if len(found) > 1 else math.nan


def slope(x: Sequence[float], y: Sequence[float]) -> Estimate:
    """Of y over the logarithm to base 10 of x, by least squares, with half of its 95% interval."""
    fit = stats.linregress(np.log10(x), y)
    half = math.nan if len(x) < 3 else float(stats.t.ppf(0.975, len(x) - 2) * fit.stderr)
    return Estimate(float(fit.slope), half, len(x))


def _lines(runs: Iterable[Result], cost: Value, value: Value) -> dict[int, list[tuple[float, float]]]:
    """Runs of each seed as pairs of cost and value, the cheapest first."""
    found: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for run in runs:
        found[run["seed"]].append((cost(run), value(run)))
    return {seed: sorted(pairs) for seed, pairs in found.items()}


def _read(line: list[tuple[float, float]], cost: float) -> float:
    return float(np.interp(math.log(cost), np.log([c for c, _ in line]), [v for _, v in line]))
