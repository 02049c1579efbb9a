"""What does not fit together in a run, each with what to do about it."""

from typing import TYPE_CHECKING

from dataeff.curriculum import window
from dataeff.pacing import Pace, axis

if TYPE_CHECKING:
    from dataeff.composition._plan import Plan
    from dataeff.composition._prediction import Prediction

_SLOWED = {
    "the length": ("tokens", "loss_tokens", "layer_tokens", "flops"),
    "keep": ("layer_tokens", "flops"),
}
_NEAR = 0.01


def notes_on(found: "Prediction") -> tuple[str, ...]:
    """Sentences, in the order of how much they matter.

    Examples:
        >>> from dataeff import pacing
        >>> from dataeff.composition import Plan
        >>> seqlen = pacing.linear(64, 512, steps=500, multiple=8)
        >>> notes_on(Plan(batch_size=8, length=512, until={"steps": 400}, seqlen=seqlen).predict())
        ('the pace of the length never reaches its end: it is at 416 when the run ends, ...',)
    """
    plan = found.plan
    notes = [_unfinished(title, pace, found) for title, pace in _paces(plan)]
    notes += [_slowed(title, pace, found) for title, pace in _paces(plan)]
    notes += [_idle(found), _cut(found), _rate_axis(found), _rate_end(found)]
    return tuple(note for note in notes if note)


def _paces(plan: "Plan") -> list[tuple[str, Pace]]:
    given: list[tuple[str, Pace | None]] = [("the length", plan.seqlen), ("keep", plan.keep)]
    for name, how in plan.metrics.items():
        ends = [("low", how.low), ("high", how.high)] if isinstance(how, window) else [("", how.pace)]
        given += [(f"{name!r} {end}".strip(), pace) for end, pace in ends]
    return [(title, pace) for title, pace in given if pace is not None]


def _unfinished(title: str, pace: Pace, found: "Prediction") -> str:
    reached = found.moment(found.steps - 1).at(found.steps - 1)[axis(pace)] if found.steps else 0
    now, end = pace(reached), pace(pace.steps)
    if now == end:
        return ""
    return (
        f"the pace of {title} never reaches its end: it is at {now:.6g} when the run ends, after "
        f"{reached:,} {axis(pace)}, and at {end:.6g} only after {pace.steps:,}; shorten it, or train longer"
    )


def _slowed(title: str, pace: Pace, found: "Prediction") -> str:
    on = axis(pace)
    if on not in _SLOWED.get(title, ()):
        return ""
    whole = found.plain[on] / max(found.steps, 1)
    first = found.moments[0].each[on]
    return (
        f"{title} is paced by {on}, of which it makes fewer itself: {first:,} in the first step, "
        f"{whole:,.0f} in a plain one, so it rises slower at first; pace it by steps or samples if that is "
        "not meant"
    )


def _idle(found: "Prediction") -> str:
    """Where the route keeps as many tokens as there are, though not yet all of a whole sample."""
    plan = found.plan
    if plan.keep is None:
        return ""
    ends = [*(moment.step for moment in found.moments[1:]), found.steps]
    alike = list(zip(found.moments, ends, strict=True))
    dropping = sum(end - now.step for now, end in alike if now.keep < now.length)
    idle = [(now, end) for now, end in alike if now.keep == now.length < plan.length]
    if not dropping:
        return "the route drops no token at any step: it keeps as many as the length has; keep fewer"
    if not idle:
        return ""
    steps, now = sum(end - moment.step for moment, end in idle), idle[0][0]
    return (
        f"the route drops nothing at {steps:,} of {found.steps:,} steps, where it may keep as many tokens as "
        f"the curriculum's length has, {now.length:,} at step {now.step:,}; start it lower, or keep a share "
        "of the length: pacing.scale(seqlen, by=0.5)"
    )


def _cut(found: "Prediction") -> str:
    plan = found.plan
    if not plan.packed or plan.transform != "truncate" or plan.seqlen is None:
        return ""
    given = found.counts["samples"] * plan.length
    share = 1 - found.counts["tokens"] / given
    if share <= 0:
        return ""
    return (
        f"samples are packed, and truncation drops {share:.1%} of their tokens, many of documents that are "
        'lost whole; transform = "reshape" keeps them'
    )


def _rate_axis(found: "Prediction") -> str:
    plan = found.plan
    uneven = len({moment.each["layer_tokens"] for moment in found.moments}) > 1
    if plan.schedule is None or not uneven or plan.on not in ("steps", "samples"):
        return ""
    better = "layer_tokens" if plan.routed else "tokens"
    first, last = (found.moments[i].each["layer_tokens"] for i in (0, -1))
    return (
        f"the learning rate is on {plan.on}, and steps consume {first:,} to {last:,} layer tokens: it decays "
        f"before most are consumed; put it on {better!r}"
    )


def _rate_end(found: "Prediction") -> str:
    schedule, on = found.plan.schedule, found.plan.on
    total = getattr(schedule, "total", None)
    if schedule is None or total is None:
        return ""
    reached = found.counts[on]
    if reached < total * (1 - _NEAR):
        return (
            f"the learning rate is at {schedule(reached):.1%} of its peak when the run ends, after "
            f"{reached:,} {on}; it decays over {total:,}: make total what the run consumes"
        )
    if reached > total * (1 + _NEAR):
        return (
            f"the learning rate is at its floor for the last {1 - total / reached:.1%} of the run's "
            f"{reached:,} {on}; make total what the run consumes"
        )
    return ""
