"""The parts of a run as one: checked together, and with one state."""

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from dataeff.clock import Clock
from dataeff.composition._plan import Plan
from dataeff.composition._prediction import Prediction
from dataeff.flops import Cost
from dataeff.lr import by_clock
from dataeff.routing import Route
from dataeff.samplers import curriculum, token_budget


@attrs.frozen(eq=False)
class Composed:
    """What `compose` gives: the plan, what does not fit, and one state. It prints as both.

    Examples:
        >>> from dataeff import pacing
        >>> clock = Clock()
        >>> seqlen = pacing.linear(64, 512, steps=80, multiple=8)
        >>> run = compose(clock=clock, batch_size=8, length=512, seqlen=seqlen, until={"steps": 100})
        >>> run.effective_length(40), run.notes
        (288.0, ())
        >>> run.state_dict()["clock"]["steps"]
        0
    """

    plan: Plan
    parts: dict[str, Any]
    """What has a state, by name, in the order in which states are loaded."""
    notes: tuple[str, ...]
    """What does not fit together, each with what to do about it."""

    def predict(self) -> Prediction:
        """What the run consumes, step by step."""
        return self.plan.predict()

    def effective_length(self, step: int) -> float:
        """Tokens of a row at a step, as the mean over blocks."""
        return self.predict().effective_length(step)

    def state_dict(self, step: int | None = None) -> dict[str, Any]:
        """The states of all parts, for `torch.load(weights_only=True)`.

        Args:
            step: the step to go on with; by default the clock's, which counts what was trained on, and not
                the sampler's, which a loader asks ahead.
        """
        reached = self.parts["clock"].steps if step is None else step
        return {
            name: part.state_dict(reached) if name == "sampler" else part.state_dict()
            for name, part in self.parts.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same parts, on any number of ranks; ValueError for one of others."""
        if not isinstance(state, Mapping) or set(state) != set(self.parts):
            found = list(state) if isinstance(state, Mapping) else state
            raise ValueError(f"the state is of {found}; expected {list(self.parts)}")
        for name, part in self.parts.items():
            part.load_state_dict(state[name])

    def __str__(self) -> str:
        notes = [f"note: {note}" for note in self.notes]
        return "\n".join([str(self.predict()), *([""] if notes else []), *notes])


def compose(
    *,
    clock: Clock,
    length: int,
    sampler: Any = None,
    seqlen: Any = None,
    transform: str = "truncate",
    packed: bool | None = None,
    route: Route | None = None,
    lr: Any = None,
    cost: Cost | None = None,
    until: Mapping[str, int] | None = None,
    batch_size: int | None = None,
) -> Composed:
    """Take the parts of a run together, see whether they fit, and what they will consume.

    A convenience over the primitives: your loop uses them as ever, and nothing here runs in it.

    Args:
        clock: that the loop ticks.
        length: tokens of a sample as it comes; packed, or padded to that.
        sampler: any of `dataeff.samplers`.
        seqlen: the pace that batches are cut by.
        transform: what cuts them, "truncate" or "reshape".
        packed: whether samples hold several documents; by default, whether all of them are as long in the
            index of the sampler's curriculum.
        route: token routing on the model.
        lr: the scheduler, or several: `by_clock`, or any other of torch.
        cost: what blocks cost, as `flops.measured(model, batch)`, for FLOPs.
        until: where the run ends, by axis of the clock; by default after the sampler's steps.
        batch_size: samples of a step over all ranks; by default the sampler's.

    Raises:
        ValueError: neither a sampler nor a batch size, or no end; and what `Plan` refuses.

    Examples:
        >>> import tempfile, torch
        >>> import dataeff as de
        >>> block = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        >>> model = torch.nn.TransformerEncoder(block, num_layers=4, enable_nested_tensor=False)
        >>> sampler = de.samplers.shuffled(1000, batch_size=8, seed=1, steps=100)
        >>> keep = de.pacing.linear(16, 128, steps=80, multiple=16)
        >>> clock, route = Clock(), de.routing.attach(model, keep=keep, seed=1)
        >>> run = compose(clock=clock, sampler=sampler, length=128, route=route)
        >>> f"{run.predict().saving('layer_tokens'):.1%}"
        '20.2%'
        >>> sorted(run.state_dict())
        ['clock', 'route', 'sampler']
    """
    schedulers = [] if lr is None else list(lr) if isinstance(lr, Iterable) else [lr]
    ours = next((scheduler for scheduler in schedulers if isinstance(scheduler, by_clock)), None)
    samples = batch_size if batch_size is not None else _batch_size(sampler)
    if until is None:
        if sampler is None:
            raise ValueError("there is no sampler to end the run; say until={'steps': 1000}, or tokens, ...")
        until = {"steps": len(sampler)}
    growing = _curriculum(sampler)
    plan = Plan(
        batch_size=samples,
        length=length,
        until=until,
        seqlen=seqlen,
        transform=transform,
        packed=_is_packed(growing) if packed is None else packed,
        blocks=route.blocks if route else 1,
        routed=list(route.layers) if route else (),
        keep=route.keep if route else None,
        metrics=growing.metrics if growing is not None else {},
        schedule=ours.schedule if ours else None,
        on=ours.on if ours else "tokens",
        peak=float(ours.base_lrs[0]) if ours else None,
        cost=cost,
    )
    found = {"clock": clock, "sampler": sampler, "route": route}
    titles = ["lr", *(f"lr{i}" for i in range(2, len(schedulers) + 1))]
    parts = found | dict(zip(titles, schedulers, strict=False))
    notes = [*_scalers(sampler, schedulers), *_other_clocks(clock, route, schedulers)]
    return Composed(
        plan=plan,
        parts={name: part for name, part in parts.items() if part is not None},
        notes=(*notes, *plan.notes(), *_short(plan, sampler)),
    )


def _batch_size(sampler: Any) -> int:
    size = getattr(sampler, "batch_size", None)
    if size is None and isinstance(sampler, token_budget):
        size = sampler.sampler.batch_size
    if size is None:
        raise ValueError("neither a sampler says how many samples a step has, nor batch_size=; give one")
    return int(size)


def _curriculum(sampler: Any) -> Any:
    stream = sampler.sampler if isinstance(sampler, token_budget) else sampler
    return stream.curriculum if isinstance(stream, curriculum) else None


def _is_packed(growing: Any) -> bool:
    if growing is None or "length" not in growing.index.metrics:
        return False
    lengths = growing.index.values("length")
    return len(lengths) > 1 and bool(lengths.min() == lengths.max())


def _scalers(sampler: Any, schedulers: list[Any]) -> list[str]:
    """What scales the learning rate twice, or not at all."""
    notes, optimizers = [], [id(getattr(scheduler, "optimizer", scheduler)) for scheduler in schedulers]
    if len(set(optimizers)) < len(optimizers):
        kinds = " and ".join(type(scheduler).__name__ for scheduler in schedulers)
        notes.append(
            f"{kinds} set the learning rate of one optimizer, each over the other; keep one, or chain them "
            "(torch.optim.lr_scheduler.SequentialLR)"
        )
    if isinstance(sampler, token_budget) and sampler.lr_scaling != "none":
        scaling = f"the sampler scales the learning rate of each batch ({sampler.lr_scaling})"
        if not any(isinstance(scheduler, by_clock) for scheduler in schedulers):
            notes.append(
                f"{scaling}, and no scheduler here takes that; use lr.by_clock and its "
                "scale(batch.lr_scale), or lr_scaling='none'"
            )
    return notes


def _other_clocks(clock: Clock, route: Route | None, schedulers: list[Any]) -> list[str]:
    readers = {"route": getattr(route, "clock", None)}
    readers |= {type(s).__name__: s.clock for s in schedulers if isinstance(s, by_clock)}
    return [
        f"the {name} reads another clock than the one that is composed, so what it is paced by may stand "
        "still; give it this one"
        for name, read in readers.items()
        if read is not None and read is not clock
    ]


def _short(plan: Plan, sampler: Any) -> list[str]:
    steps = plan.predict().steps
    if sampler is None or len(sampler) >= steps:
        return []
    return [
        f"the sampler has {len(sampler):,} steps, and the run needs {steps:,} to {plan.until}; make it with "
        f"steps={steps}"
    ]
