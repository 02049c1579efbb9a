"""What does not fit about a learning rate."""

from typing import TYPE_CHECKING

from dataeff.lr import constant

if TYPE_CHECKING:
    from dataeff.composition._prediction import Prediction

_NEAR = 0.01


def rate_notes(found: "Prediction") -> list[str]:
    """Sentences about the plan's schedule; none without one.

    Examples:
        >>> from dataeff import lr
        >>> from dataeff.composition import Plan
        >>> plan = Plan(batch_size=8, length=64, until={"steps": 9}, schedule=lr.linear(total=9), on="flops")
        >>> rate_notes(plan.predict())
        ['the learning rate is on flops, which are not counted, so it stays where it begins; give cost=, ...']
    """
    if found.plan.schedule is None or not found.steps:
        return []
    if not found.counts[found.plan.on]:
        return [
            f"the learning rate is on {found.plan.on}, which are not counted, so it stays where it begins; "
            "give cost=, as flops.measured(model, batch), or the table [model]"
        ]
    return [note for note in (_axis(found), _end(found)) if note]


def _axis(found: "Prediction") -> str:
    plan = found.plan
    uneven = len({moment.each["layer_tokens"] for moment in found.moments}) > 1
    if isinstance(plan.schedule, constant) or not uneven or plan.on not in ("steps", "samples"):
        return ""
    better = "layer_tokens" if plan.shortens else "tokens"
    first, last = (found.moments[i].each["layer_tokens"] for i in (0, -1))
    return (
        f"the learning rate is on {plan.on}, and steps consume {first:,} to {last:,} layer tokens: it decays "
        f"before most are consumed; put it on {better!r}"
    )


def _end(found: "Prediction") -> str:
    schedule, on = found.plan.schedule, found.plan.on
    total = getattr(schedule, "total", None)
    if schedule is None or total is None:
        return ""
    reached, before = found.counts[on], found.moment(found.steps - 1).at(found.steps - 1)[on]
    if reached < total * (1 - _NEAR):
        return (
            f"the learning rate is at {schedule(reached):.1%} of its peak when the run ends, after "
            f"{reached:,} {on}; it decays over {total:,}: make total what the run consumes"
        )
    if before > total * (1 + _NEAR):
        return (
            f"the learning rate is at its floor for the last {1 - total / reached:.1%} of the run's "
            f"{reached:,} {on}; make total what the run consumes"
        )
    return ""
