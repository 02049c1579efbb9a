"""What does not fit between the parts of a run, beyond what its plan shows."""

from typing import TYPE_CHECKING, Any

import attrs

from dataeff.composition._parts import by_clocks, most_steps
from dataeff.composition._rate_notes import rate_notes
from dataeff.lr import by_clock
from dataeff.samplers import token_budget

if TYPE_CHECKING:
    from dataeff.clock import Clock
    from dataeff.composition._plan import Plan
    from dataeff.routing import Route

_FEW = 1000


def scalers(sampler: Any, schedulers: list[Any]) -> list[str]:
    """What scales the learning rate twice, or not at all.

    Examples:
        >>> scalers(None, [])
        []
    """
    notes, optimizers = [], [id(getattr(scheduler, "optimizer", scheduler)) for scheduler in schedulers]
    if len(set(optimizers)) < len(optimizers):
        kinds = " and ".join(type(scheduler).__name__ for scheduler in schedulers)
        notes.append(
            f"{kinds} set the learning rate of one optimizer, each over the other; keep one, or chain them "
            "(torch.optim.lr_scheduler.SequentialLR)"
        )
    if isinstance(sampler, token_budget) and sampler.lr_scaling != "none" and not by_clocks(schedulers):
        notes.append(
            f"the sampler scales the learning rate of each batch ({sampler.lr_scaling}), and no scheduler "
            "here takes that; use lr.by_clock and its scale(batch.lr_scale), or lr_scaling='none'"
        )
    return notes


def other_clocks(clock: "Clock", route: "Route | None", schedulers: list[Any]) -> list[str]:
    """What reads another clock than the run's.

    Examples:
        >>> from dataeff.clock import Clock
        >>> other_clocks(Clock(), None, [])
        []
    """
    readers = [("route", getattr(route, "clock", None))]
    readers += [(type(scheduler).__name__, scheduler.clock) for scheduler in by_clocks(schedulers)]
    return [
        f"the {name} reads another clock than the one that is composed, so what it is paced by may stand "
        "still; give it this one"
        for name, read in readers
        if read is not None and read is not clock
    ]


def rates(plan: "Plan", schedulers: list[Any]) -> list[str]:
    """What does not fit about other schedulers that read a clock than the plan's, and those in a chain.

    Examples:
        >>> from dataeff.composition import Plan
        >>> rates(Plan(batch_size=8, length=64, until={"steps": 9}), [])
        []
    """
    found, notes = plan.predict(), list[str]()
    for i, rate in enumerate(by_clocks(schedulers)[1:], 2):
        other = attrs.evolve(plan, schedule=rate.schedule, on=rate.on)
        notes += [f"by_clock {i}: {note}" for note in rate_notes(attrs.evolve(found, plan=other))]
    chains = [one for one in schedulers if not isinstance(one, by_clock) and by_clocks([one])]
    if chains:
        notes.append(
            f"the learning rate that is planned is that of by_clock alone, not of the "
            f"{type(chains[0]).__name__} that it is in"
        )
    return notes


def one_block(plan: "Plan") -> list[str]:
    """That the number of blocks is not known, where something depends on it.

    Examples:
        >>> from dataeff.composition import Plan
        >>> one_block(Plan(batch_size=8, length=64, until={"layer_tokens": 512}))
        ['there is no route to tell how many blocks the model has, so layer tokens and FLOPs are of one; ...']
    """
    on = {*plan.until, plan.on if plan.schedule is not None else "", getattr(plan.seqlen, "on", "")}
    if plan.cost is None and not on & {"layer_tokens", "flops"}:
        return []
    return [
        "there is no route to tell how many blocks the model has, so layer tokens and FLOPs are of one; say "
        "blocks=, a number or names"
    ]


def short(plan: "Plan", sampler: Any) -> list[str]:
    """That a sampler ends before its run, and what one that cuts by tokens really has.

    Examples:
        >>> from dataeff.composition import Plan
        >>> short(Plan(batch_size=8, length=64, until={"steps": 9}), None)
        []
    """
    if sampler is None:
        return []
    notes, steps, held = [], plan.predict().steps, most_steps(sampler)
    if isinstance(sampler, token_budget) and 0 < held <= _FEW:
        batches: list[Any] = [sampler.global_batch(step) for step in range(held)]
        samples, tokens = sum(batch.samples for batch in batches), sum(batch.tokens for batch in batches)
        mean = max(round(samples / held), 1)
        cure = f"; give batch_size={mean} for a plan of about as many" if plan.batch_size != mean else ""
        notes.append(
            f"the sampler's {held:,} batches have {samples:,} samples and {tokens:,} tokens in all, "
            f"{samples / held:.1f} samples each{cure}"
        )
    if held < steps:
        notes.append(
            f"the sampler has {held:,} steps, and the run needs {steps:,} to {plan.until}; make it with "
            f"steps={steps}"
        )
    return notes
