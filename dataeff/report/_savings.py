"""What runs saved against a baseline: at equal quality, and at equal compute."""

from collections.abc import Mapping

import attrs
import numpy as np

from dataeff.registry import unknown
from dataeff.report._columns import AXES, Curve, Moments, column, curve, logs
from dataeff.report._words import text, verdict

METRICS = ("validation_loss", "bits_per_byte", "loss")
"""Values by convention that say how good a model is, the one to compare by first. Lower is better."""

_SLACK = 0.01  # of what the baseline consumed: the last step of a run rarely ends on the same FLOP


@attrs.frozen
class Saving:
    """One run on one axis. None stands for what there is not; amounts are in the axis' own unit.

    Attributes:
        baseline: what the baseline had consumed when it was at its best.
        consumed: what the run had consumed when it was first as good; None if it never was.
        ended: what the run had consumed at the end; None if it did not count on this axis.
        share: of what the baseline consumed, where both are compared: 1, or less if the run ended before.
        quality: of the run there; None if it, or the baseline, had not logged any yet.
        difference: of `quality` from the baseline's there; positive is better.

    Examples:
        >>> Saving("ltd", "steps", 90, consumed=60, ended=90, share=1, quality=3, difference=0.1).ratio
        1.5
    """

    run: str
    axis: str
    baseline: float
    consumed: float | None
    ended: float | None
    share: float | None
    quality: float | None
    difference: float | None

    @property
    def ratio(self) -> float | None:
        """How many times less it consumed for the same quality; below 1 it consumed more, inf is nothing."""
        if self.consumed is None or self.baseline == self.consumed:
            return None if self.consumed is None else 1.0
        return self.baseline / self.consumed if self.consumed else float("inf")


@attrs.frozen
class Savings:
    """Every run on every axis against the baseline; prints as a table. `savings` makes it.

    Attributes:
        best: the baseline's best quality, which is what "equal quality" means.
        bests: name of each run to its own best quality.
        rows: run by run, axis by axis, the baseline's first.

    Examples:
        >>> print(savings({"usual": [{"steps": s, "loss": 5 - s} for s in (1, 2, 3)]}))
        training loss, lower is better; 'usual' got to 2.000
        <BLANKLINE>
                  equal quality   equal compute
        usual
          Steps   2.000 at 3      2.000 at 3
    """

    baseline: str
    metric: str
    higher_is_better: bool
    best: float
    bests: dict[str, float]
    axes: tuple[str, ...]
    rows: tuple[Saving, ...]

    def of(self, run: str, axis: str) -> Saving:
        """One row. ValueError, with the known ones, for another run or axis."""
        if run not in self.bests or axis not in self.axes:
            known, name = (self.axes, axis) if run in self.bests else (self.bests, run)
            raise ValueError(unknown(name, list(known), of="these savings"))
        return next(row for row in self.rows if (row.run, row.axis) == (run, axis))

    @property
    def verdict(self) -> str:
        """What they show, in one sentence."""
        return verdict(self)

    def __str__(self) -> str:
        return text(self)


def savings(
    runs: Mapping[str, Moments],
    *,
    baseline: str | None = None,
    metric: str | None = None,
    higher_is_better: bool = False,
) -> Savings:
    """What each run saved against the baseline on each axis that the baseline counted.

    At equal quality: what a run had consumed when it was first as good as the baseline at its best. At equal
    compute: how good it was where the baseline ended, or where the run did if that was over 1% sooner. Both
    between moments by a straight line.

    Args:
        runs: name of a run to its moments, as `read_runs` gives them.
        baseline: a name; the first by default.
        metric: a value that every run logs; by default the first of `validation_loss`, `bits_per_byte` and
            `loss` that all do.
        higher_is_better: of the metric, as accuracies are.

    Raises:
        ValueError: no run, an unknown baseline, a metric that a run does not log, an axis that falls.

    Examples:
        >>> usual = [{"steps": s, "loss": 5 - s} for s in (1, 2, 3)]
        >>> faster = [{"steps": s, "loss": 5 - 2 * s} for s in (1, 2)]
        >>> found = savings({"usual": usual, "faster": faster})
        >>> found.of("faster", "steps").ratio
        2.0
    """
    first = chosen_baseline(runs, baseline)
    key = metric_of(runs, metric)
    sign = 1 if higher_is_better else -1
    axes = axes_of(runs[first], key, run=first)
    order = [first, *(name for name in runs if name != first)]
    rows = []
    for axis in axes:
        own = curve(runs[first], axis, key, run=first)
        rows += [_saving(name, axis, own, curve(runs[name], axis, key, run=name), sign) for name in order]
    bests = {name: _best(runs[name], key, name, sign) for name in order}
    return Savings(
        baseline=first,
        metric=key,
        higher_is_better=higher_is_better,
        best=bests[first],
        bests=bests,
        axes=axes,
        rows=tuple(sorted(rows, key=lambda row: order.index(row.run))),
    )


def reached(of: Curve, target: float, *, sign: int = -1) -> float | None:
    """Where a curve first is as good as `target`: as low, or as high with `sign` 1. None if it never is.

    Examples:
        >>> reached(Curve(np.array([10.0, 20]), np.array([4.0, 3])), 3.25)
        17.5
    """
    gain = sign * (of.y - target)
    if not (good := np.flatnonzero(gain >= 0)).size:
        return None
    i = int(good[0])
    if i == 0 or gain[i] == gain[i - 1]:
        return float(of.x[i])
    return float(of.x[i] - (of.x[i] - of.x[i - 1]) * gain[i] / (gain[i] - gain[i - 1]))


def meeting(own: Curve, baseline: Curve) -> float:
    """Where to compare two curves: at the baseline's end, or at the other's if that is over 1% before.

    Examples:
        >>> long, short = (Curve(np.array([1, x]), np.array([4, 3])) for x in (200, 100))
        >>> meeting(long, short), meeting(short, long)
        (100.0, 100.0)
    """
    return baseline.end if own.end >= baseline.end * (1 - _SLACK) else own.end


def chosen_baseline(runs: Mapping[str, Moments], baseline: str | None) -> str:
    """The name of the baseline; ValueError for an unknown one, with the nearest, and for no run.

    Examples:
        >>> chosen_baseline({"usual": [], "ltd": []}, "usal")
        Traceback (most recent call last):
        ...
        ValueError: unknown name 'usal' in runs; did you mean 'usual'? Known: 'ltd', 'usual'
    """
    if not runs:
        raise ValueError("there are no runs; expected at least one, with the moments of its log")
    if baseline is not None and baseline not in runs:
        raise ValueError(unknown(baseline, list(runs), of="runs"))
    return next(iter(runs)) if baseline is None else baseline


def metric_of(runs: Mapping[str, Moments], metric: str | None) -> str:
    """What to compare by; ValueError, with what the runs log, where one of them does not log it.

    Examples:
        >>> metric_of({"a": [{"loss": 3}], "b": [{"loss": 3, "bits_per_byte": 2}]}, None)
        'loss'
    """
    for key in METRICS if metric is None else (metric,):
        lacking = [name for name, moments in runs.items() if not logs(moments, key)]
        if not lacking:
            return key
    if metric is None:
        told = "; ".join(f"{name!r} logs {', '.join(_values(moments))}" for name, moments in runs.items())
        raise ValueError(f"no metric of {', '.join(METRICS)} is logged by all runs: {told}; name another")
    raise ValueError(f"run {lacking[0]!r}: {unknown(metric, _values(runs[lacking[0]]), of='its log')}")


def _values(moments: Moments) -> list[str]:
    keys = dict.fromkeys(key for moment in moments for key in moment if key not in (*AXES, "loss_tokens"))
    return [key for key in keys if logs(moments, key)] or ["none"]


def axes_of(moments: Moments, key: str, *, run: str) -> tuple[str, ...]:
    """The axes that a run counted, and has `key` against.

    Examples:
        >>> axes_of([{"steps": 1, "tokens": 8, "flops": 0, "loss": 3}], "loss", run="usual")
        ('steps', 'tokens')
    """
    return tuple(axis for axis in AXES if curve(moments, axis, key, run=run).end > 0)


def _best(moments: Moments, key: str, run: str, sign: int) -> float:
    values = column(moments, key, run=run)
    return float(sign * (sign * values[np.isfinite(values)]).max())


def _saving(run: str, axis: str, baseline: Curve, own: Curve, sign: int) -> Saving:
    nothing = Saving(run, axis, float("nan"), None, None, None, None, None)
    if not len(baseline.x) or not len(own.x):
        return nothing
    best = float(sign * (sign * baseline.y).max())
    at_best = reached(baseline, best, sign=sign)
    where = meeting(own, baseline)
    quality, reference = _at(own, where), _at(baseline, where)
    difference = None if quality is None or reference is None else sign * (quality - reference)
    return Saving(
        run=run,
        axis=axis,
        baseline=float("nan") if at_best is None else at_best,
        consumed=reached(own, best, sign=sign),
        ended=own.end,
        share=where / baseline.end,
        quality=None if difference is None else quality,
        difference=difference,
    )


def _at(of: Curve, where: float) -> float | None:
    """A curve's value, between moments by a straight line, and after the last its own; None before the first.

    Examples:
        >>> curve = Curve(np.array([10.0, 20]), np.array([4.0, 3]))
        >>> _at(curve, 15), _at(curve, 9)
        (3.5, None)
    """
    return None if where < of.x[0] else float(np.interp(where, of.x, of.y))
