"""What the finished runs of a study say: intervals over seeds, and comparisons at equal cost."""

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


@attrs.frozen
class Estimate:
    """A mean over seeds and half of its 95% interval (Student's t); `half` is nan for one seed."""

    mean: float
    half: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + ("" if math.isnan(self.half) else f" ± {self.half:.3f}")


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


def consumed(axis: str) -> Value:
    """What a run had consumed on an axis at the end; "seconds" are with those of building its index."""

    def value(result: Result) -> float:
        extra = result.get("index_seconds", 0.0) if axis == "seconds" else 0.0
        return float(result["totals"][axis]) + extra

    return value


def grouped(results: Iterable[Result]) -> dict[tuple[str, float], list[Result]]:
    """The runs by arm and share of the data, in the order in which they come."""
    found = defaultdict(list)
    for result in results:
        found[result["arm"], result["fraction"]].append(result)
    return dict(found)


def against(results: Sequence[Result], axis: str, value: Value = loss) -> dict[tuple[str, float], Estimate]:
    """By arm and share of the data: its value less the baseline's at equal cost, by seed, then over seeds.

    The baseline's value at a cost is read off its own runs of the same seed, which ended at several shares
    of the data, linearly over the logarithm of the cost. Runs that cost less than the least of these or more
    than the greatest (by over 2%) are compared with nothing and left out.
    """
    cost, lines = consumed(axis), _lines(results, consumed(axis), value)
    found = {}
    for key, runs in grouped(results).items():
        differences = [
            value(run) - base
            for run in runs
            if (base := _read(lines.get(run["seed"], []), cost(run))) is not None
        ]
        if differences and key[0] != BASELINE:
            found[key] = estimate(differences)
    return found


def compared(results: Sequence[Result]) -> list[str]:
    """The arms beside the baseline that were trained with all of the data and with half of it."""
    by = grouped(results)
    return [arm for arm, fraction in by if arm != BASELINE and fraction == 1 and (arm, 0.5) in by]


def factor(results: Sequence[Result], arm: str, axis: str, value: Value = loss) -> tuple[Estimate, str]:
    """How many times less an arm needs than the baseline with all data, to be as good; over the arm's seeds.

    Second, which bound it is: "" if it was between the arm's runs; ">=" if its cheapest run was as good
    already, "<" if its dearest was not, "~" if it was so with some seeds.
    """
    found, bounds = factors(results, arm, axis, value)
    return estimate(found), bounds.pop() if len(bounds) == 1 else "~"


def factors(
    results: Sequence[Result], arm: str, axis: str, value: Value = loss
) -> tuple[list[float], set[str]]:
    """The same by seed, and all bounds there are."""
    cost = consumed(axis)
    full = [run for run in results if run["arm"] == BASELINE and run["fraction"] == 1]
    target, paid = np.mean([value(run) for run in full]), np.mean([cost(run) for run in full])
    found, bounds = [], set()
    for line in _lines(results, cost, value, arm).values():
        costs, values = np.log([c for c, _ in line]), np.minimum.accumulate([v for _, v in line])
        bounds.add(">=" if values[0] <= target else "<" if values[-1] > target else "")
        found.append(float(paid / np.exp(np.interp(-target, -values, costs))))
    return found, bounds


def reaches(results: Sequence[Result], arm: str, fraction: float) -> tuple[bool, Estimate, Estimate]:
    """Whether an arm with a share of the data is within the baseline's interval with all, or better."""
    by = grouped(results)
    own, base = (estimate(map(loss, by[key])) for key in ((arm, fraction), (BASELINE, 1.0)))
    return own.mean <= base.mean + base.half, own, base


def slope(x: Sequence[float], y: Sequence[float]) -> Estimate:
    """Of y over the logarithm to base 10 of x, by least squares, with half of its 95% interval."""
    fit = stats.linregress(np.log10(x), y)
    half = math.nan if len(x) < 3 else float(stats.t.ppf(0.975, len(x) - 2) * fit.stderr)
    return Estimate(float(fit.slope), half, len(x))


def _lines(
    results: Iterable[Result], cost: Value, value: Value, arm: str = BASELINE
) -> dict[int, list[tuple[float, float]]]:
    """An arm's runs of each seed as pairs of cost and value, the cheapest first."""
    found: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for run in results:
        if run["arm"] == arm:
            found[run["seed"]].append((cost(run), value(run)))
    return {seed: sorted(pairs) for seed, pairs in found.items()}


def _read(line: list[tuple[float, float]], cost: float) -> float | None:
    if not line or not line[0][0] / 1.02 <= cost <= line[-1][0] * 1.02:
        return None
    return float(np.interp(math.log(cost), np.log([c for c, _ in line]), [v for _, v in line]))
