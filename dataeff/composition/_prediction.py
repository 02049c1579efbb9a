"""What a run is to consume."""

import functools
from bisect import bisect_right
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import attrs

from dataeff._units import amount
from dataeff.composition._walk import Moment

if TYPE_CHECKING:
    from dataeff.composition._plan import Plan

_ROWS = 9
_AXES = {"tokens": "tokens", "layer_tokens": "layer tokens", "flops": "FLOPs"}


def effective_length(length: int, keep: int, *, layers: int, routed: int) -> float:
    """Tokens of a sample as the mean over layers: (length * (layers - routed) + keep * routed) / layers.

    Source: the accounting of DeepSpeed Data Efficiency (arXiv 2212.03597), which rounds it down.

    Examples:
        >>> effective_length(2048, 128, layers=24, routed=22)
        288.0
    """
    return (length * (layers - routed) + min(keep, length) * routed) / layers


@attrs.frozen(eq=False, slots=False)
class Prediction:
    """What a plan consumes; it prints as a table over time and the totals.

    Examples:
        >>> from dataeff import pacing
        >>> from dataeff.composition import Plan
        >>> seqlen = pacing.linear(64, 512, steps=500, multiple=8)
        >>> found = Plan(batch_size=8, length=512, until={"steps": 1000}, seqlen=seqlen).predict()
        >>> found.effective_length(0), found.effective_length(999), f"{found.saving('tokens'):.1%}"
        (64.0, 512.0, '22.3%')
    """

    plan: "Plan"
    counts: dict[str, int]
    """At the end, by axis of the clock."""
    moments: list[Moment]
    """From which steps on length or kept tokens are others."""

    @property
    def steps(self) -> int:
        """How many the run has."""
        return self.counts["steps"]

    @functools.cached_property
    def plain(self) -> dict[str, int]:
        """What as many steps consume with all tokens of all samples in all blocks."""
        whole = attrs.evolve(self.plan, seqlen=None, keep=None, routed=(), until={"steps": self.steps})
        return whole.predict().counts

    def saving(self, axis: str) -> float:
        """The share of the plain run's count on an axis that is saved, at as many samples."""
        plain = self.plain[axis]
        return 1 - self.counts[axis] / plain if plain else 0.0

    def moment(self, step: int) -> Moment:
        """Length, kept tokens and what is consumed at a step."""
        return self.moments[bisect_right(self.moments, step, key=lambda moment: moment.step) - 1]

    def effective_length(self, step: int) -> float:
        """Tokens of a row at a step, as the mean over blocks."""
        now, plan = self.moment(step), self.plan
        return effective_length(now.length, now.keep, layers=len(plan.blocks), routed=len(plan.shortened))

    def rate(self, step: int) -> float:
        """The learning rate at a step, or its share of the peak where no peak is known; nan without one."""
        if self.plan.schedule is None:
            return float("nan")
        peak = 1.0 if self.plan.peak is None else self.plan.peak
        return peak * self.plan.schedule(self.moment(step).at(step)[self.plan.on])

    def to_json(self) -> dict[str, Any]:
        """Everything in plain numbers, lists and strings."""
        return {
            "steps": self.steps,
            "counts": self.counts,
            "plain": self.plain,
            "saving": {axis: self.saving(axis) for axis in _AXES},
            "moments": [moment._asdict() for moment in self.moments],
        }

    def __str__(self) -> str:
        plan = self.plan
        head = f"{self.steps:,} steps of {plan.batch_size:,} samples of {plan.length:,} tokens"
        if plan.shortens:
            head += f", {len(plan.shortened)} of {len(plan.blocks)} blocks drop tokens"
        elif len(plan.blocks) == 1:
            head += ", in one block"
        return "\n".join([head, "", *_over_time(self), "", *_totals(self)])


def _over_time(found: Prediction) -> list[str]:
    titles = ["step", "length", "kept", "effective", "tokens", "layer tokens", "FLOPs", "learning rate"]
    last = max(found.steps - 1, 0)
    rows = [titles]
    for step in sorted({round(Fraction(i * last, _ROWS - 1)) for i in range(_ROWS)}):
        now = found.moment(step)
        counts = now.at(step)
        rows.append(
            [
                f"{step:,}",
                f"{now.length:,}",
                f"{now.keep:,}",
                f"{found.effective_length(step):,.0f}",
                *(amount(axis, counts[axis]) for axis in _AXES),
                f"{found.rate(step):.3g}",
            ]
        )
    shown = [True, True, found.plan.shortens, found.plan.shortens, True, True]
    shown += [found.plan.cost is not None, found.plan.schedule is not None]
    kept = [[cell for cell, show in zip(row, shown, strict=True) if show] for row in rows]
    widths = [max(map(len, column)) for column in zip(*kept, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in kept]


def _totals(found: Prediction) -> list[str]:
    plain, lines = found.plain, []
    for axis, title in _AXES.items():
        if plain[axis]:
            own, whole = (
                amount(axis, c[axis]) if axis == "flops" else f"{c[axis]:,}" for c in (found.counts, plain)
            )
            lines.append(
                f"{title:<14}{own} against {whole} of as many plain steps: {found.saving(axis):.1%} saved"
            )
    return lines
