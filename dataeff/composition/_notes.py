"""What does not fit together in a run, each with what to do about it."""

from itertools import pairwise
from typing import TYPE_CHECKING

from dataeff.composition._rate_notes import rate_notes
from dataeff.curriculum import paced, window
from dataeff.pacing import Pace, axis

if TYPE_CHECKING:
    from dataeff.composition._plan import Plan
    from dataeff.composition._prediction import Prediction

_SLOWED = {
    "the length": ("tokens", "loss_tokens", "layer_tokens", "flops"),
    "keep": ("layer_tokens", "flops"),
}
_PLACES = 1000


def notes_on(found: "Prediction") -> tuple[str, ...]:
    """Sentences, in the order of how much they matter.

    Examples:
        >>> from dataeff import pacing
        >>> from dataeff.composition import Plan
        >>> seqlen = pacing.linear(64, 512, steps=500, multiple=8)
        >>> notes_on(Plan(batch_size=8, length=512, until={"steps": 400}, seqlen=seqlen).predict())
        ('the pace of the length never reaches its end: it is at 416 when the run ends, ...',)
    """
    paces = _paces(found.plan)
    notes = [_by_tokens(found), *(_uncounted(title, pace, found) for title, pace in paces)]
    notes += [_unfinished(title, pace, found) for title, pace in paces]
    notes += [_slowed(title, pace, found) for title, pace in paces]
    notes += [_refused(name, how) for name, how in found.plan.metrics.items()]
    notes += [_long(found.plan), _idle(found), _cut(found), *rate_notes(found)]
    return tuple(note for note in notes if note)


def _paces(plan: "Plan") -> list[tuple[str, Pace]]:
    given: list[tuple[str, Pace | None]] = [("the length", plan.seqlen), ("keep", plan.keep)]
    for name, how in plan.metrics.items():
        given += [(f"{name!r} {end}".strip(), pace) for end, pace in _bounds(how)]
    return [(title, pace) for title, pace in given if pace is not None]


def _bounds(how: paced | window) -> list[tuple[str, Pace | None]]:
    return [("low", how.low), ("high", how.high)] if isinstance(how, window) else [("", how.pace)]


def _by_tokens(found: "Prediction") -> str:
    if not found.plan.by_tokens:
        return ""
    return (
        "batches are cut by tokens (token_budget), so steps have other numbers of samples than the "
        f"{found.plan.batch_size:,} that are planned: the plan is not exact"
    )


def _uncounted(title: str, pace: Pace, found: "Prediction") -> str:
    on = axis(pace)
    if found.counts[on] or not found.steps:
        return ""
    return (
        f"{title} is paced by {on}, which are not counted, so it stays where it begins; give cost=, as "
        "flops.measured(model, batch), or the table [model]"
    )


def _unfinished(title: str, pace: Pace, found: "Prediction") -> str:
    on = axis(pace)
    reached = found.moment(found.steps - 1).at(found.steps - 1)[on]
    now, end = pace(reached), pace(pace.steps)
    if not found.counts[on] or end in (now, pace(found.counts[on])):
        return ""
    return (
        f"the pace of {title} never reaches its end: it is at {now:.6g} when the run ends, after "
        f"{reached:,} {on}, and at {end:.6g} only after {pace.steps:,}; shorten it, or train longer"
    )


def _slowed(title: str, pace: Pace, found: "Prediction") -> str:
    on = axis(pace)
    if on not in _SLOWED.get(title, ()):
        return ""
    whole, first = found.plain[on] / found.steps, found.moments[0].each[on]
    if first >= whole:
        return ""
    return (
        f"{title} is paced by {on}, of which it makes fewer itself: {first:,} in the first step, "
        f"{whole:,.0f} in a plain one, so it rises slower at first; pace it by steps or samples if that is "
        "not meant"
    )


def _refused(name: str, how: paced | window) -> str:
    """What a Curriculum will refuse, as far as a thousand places show."""
    for _, pace in _bounds(how):
        told = [] if pace is None else [pace(pace.steps * i // _PLACES) for i in range(_PLACES + 1)]
        low, high = min(told, default=50), max(told, default=50)
        outside = low < 0 or high > 100 or (low == 0 and isinstance(how, paced))
        if how.by == "percentile" and outside:
            bounds = "(0, 100]" if isinstance(how, paced) else "[0, 100]"
            return (
                f"the pace of {name!r} goes from {low:.6g} to {high:.6g}, and percentiles are in {bounds}: a "
                "Curriculum refuses it; end it there"
            )
        if isinstance(how, paced) and any(b < a for a, b in pairwise(told)):
            return (
                f"the pace of {name!r} falls, so samples would leave the pool: a Curriculum refuses it; take "
                "one that never falls, or window(high=pace)"
            )
    return ""


def _long(plan: "Plan") -> str:
    end = plan.length if plan.seqlen is None else plan.seqlen(plan.seqlen.steps)
    if end <= plan.length:
        return ""
    return (
        f"the pace of the length ends at {end:.6g}, and samples have {plan.length:,} tokens: from where it "
        "passes that it cuts nothing; end it there"
    )


def _idle(found: "Prediction") -> str:
    """Where the route keeps as many tokens as there are, though not yet all of a whole sample."""
    plan = found.plan
    if not plan.shortens:
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
        "of the length: pacing.multiple(pacing.scale(seqlen, by=0.5), 16)"
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
        'lost whole; transform = "reshape" keeps them (windows of S + 1 ids, which give S targets, by '
        "transforms.reshape(batch, length + 1, overlap=1))"
    )
