"""From step to step of a plan: what each consumes."""

from typing import TYPE_CHECKING, NamedTuple

from dataeff._check import count
from dataeff.clock import AXES, Processed
from dataeff.pacing import Pace, axis, constant, next_change

if TYPE_CHECKING:
    from dataeff.composition._plan import Plan


class Moment(NamedTuple):
    """From a step on, until the next moment, every step is alike.

    Examples:
        >>> Moment(0, 512, 512, {"tokens": 0}, {"tokens": 4096}).at(10)
        {'tokens': 40960}
    """

    step: int
    length: int
    """Tokens of a row."""
    keep: int
    """Of which these enter a block that drops tokens."""
    counts: dict[str, int]
    """Before the step, by axis of the clock."""
    each: dict[str, int]
    """What a step consumes, by axis."""

    def at(self, step: int) -> dict[str, int]:
        """The counts before a step that is not after the next moment."""
        more = step - self.step
        return {axis: before + more * self.each[axis] for axis, before in self.counts.items()}


def walk(plan: "Plan") -> tuple[dict[str, int], list[Moment]]:
    """The counts at the end of a plan, and the moments at which its steps change.

    Steps that are alike are one multiplication, so that it takes as long as there are changes.

    Examples:
        >>> from dataeff.composition import Plan
        >>> counts, moments = walk(Plan(batch_size=8, length=512, until={"tokens": 10**6}))
        >>> counts["steps"], len(moments)
        (245, 1)
    """
    seqlen: Pace = plan.seqlen or constant(plan.length)
    keep: Pace = plan.keep or constant(plan.length)
    counts, moments = dict.fromkeys(AXES, 0), list[Moment]()
    while not any(counts[name] >= limit for name, limit in plan.until.items()):
        length = min(_count("the length", seqlen, counts[axis(seqlen)]), plan.length)
        kept = min(_count("keep", keep, counts[axis(keep)]), length)
        if not moments or (length, kept) != moments[-1][1:3]:
            moments.append(Moment(counts["steps"], length, kept, counts, _consumed(plan, length, kept)))
        each = moments[-1].each
        steps = _alike(plan, (seqlen, keep), counts, each)
        counts = {name: before + steps * each[name] for name, before in counts.items()}
    return counts, moments


def _alike(plan: "Plan", paces: tuple[Pace, ...], counts: dict[str, int], each: dict[str, int]) -> int:
    """How many steps there are until a pace may change or the plan ends."""
    changes = [(axis(pace), next_change(pace, counts[axis(pace)])) for pace in paces]
    ends = [*plan.until.items(), *((name, place) for name, place in changes if place is not None)]
    steps = [-(-(place - counts[name]) // each[name]) for name, place in ends if each[name]]
    if not steps:
        raise ValueError(
            f"a step consumes no {' or '.join(plan.until)}, so the plan never ends; give it a cost, for FLOPs"
        )
    return min(steps)


def _consumed(plan: "Plan", length: int, keep: int) -> dict[str, int]:
    """By one step, on every axis."""
    cut = plan.transform == "truncate"
    rows = plan.batch_size * (1 if cut else -(-plan.length // length))
    tokens = plan.batch_size * (length if cut else plan.length)
    short = set(plan.shortened)
    sizes = {name: keep if name in short else length for name in plan.blocks}
    seen = rows * (keep if plan.drops and plan.routed else length)  # by what is outside of blocks
    done = Processed(rows, seen, {name: (rows * size, rows * size**2) for name, size in sizes.items()})
    flops = plan.cost(done) if plan.cost is not None else 0
    return {
        "steps": 1,
        "samples": plan.batch_size,
        "tokens": tokens,
        "loss_tokens": tokens,
        "layer_tokens": done.layer_tokens,
        "flops": flops,
    }


def _count(name: str, pace: Pace, place: int) -> int:
    amount = pace(place)
    return count(f"{name} is {amount!r} at {axis(pace)} {place}", amount)
