"""The parts of a run as one: checked together, and with one state."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from dataeff.clock import Clock
from dataeff.composition import _fits as fits
from dataeff.composition import _parts as parts_of
from dataeff.composition._plan import Plan
from dataeff.composition._prediction import Prediction
from dataeff.flops import Cost
from dataeff.routing import Route
from dataeff.samplers import importance, token_budget


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
            step: the sampler's to go on with, one more than the `.step` of the last batch trained on. By
                default the clock's, which counts what was trained on, and not the sampler's own, which a
                loader asks ahead. With gradient accumulation a step of the clock is several of the sampler's,
                so it is to be said.

        Raises ValueError where no step is said and the clock has counted more samples than as many batches of
        the sampler have.
        """
        clock, sampler = self.parts["clock"], self.parts.get("sampler")
        reached = parts_of.reached(clock, sampler) if step is None else step
        return {
            name: part.state_dict(reached) if name == "sampler" else part.state_dict()
            for name, part in self.parts.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same parts, on any number of ranks: all of them, or on an error none.

        Raises ValueError for a state of other parts, or one whose clock and sampler are at other steps.
        """
        if not isinstance(state, Mapping) or set(state) != set(self.parts):
            found = list(state) if isinstance(state, Mapping) else state
            raise ValueError(f"the state is of {found}; expected {list(self.parts)}")
        steps = parts_of.steps_of(state)
        if not parts_of.are_of_one_moment(state, self.parts.get("sampler")):
            told = " and ".join(f"the {name} is at step {step}" for name, step in steps.items())
            raise ValueError(f"{told}; expected states of one moment, as state_dict() gives them")
        before = {name: part.state_dict() for name, part in self.parts.items()}
        touched = []
        try:
            for name, part in self.parts.items():
                touched.append(name)
                part.load_state_dict(state[name])
        except BaseException:
            for name in touched:
                self.parts[name].load_state_dict(before[name])
            raise

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
    blocks: int | Sequence[str] | None = None,
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
        lr: the scheduler, or several: `by_clock`, alone or in a SequentialLR, or any other of torch.
        cost: what blocks cost, as `flops.measured(model, batch)`, for FLOPs.
        until: where the run ends, by axis of the clock; by default after the sampler's steps.
        batch_size: samples of a step over all ranks; by default the sampler's.
        blocks: the names of the model's blocks, or how many it has; by default the route's, or those that
            `flops.measured` found. Layer tokens and FLOPs are of one block if nothing says.

    Raises:
        ValueError: neither a sampler nor a batch size, or no end; a part that is none, as an optimizer for
            `lr`; and what `Plan` refuses.

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
    parts_of.check(clock=clock, sampler=sampler, route=route, cost=cost)
    schedulers = parts_of.schedulers(lr)
    ours = next(iter(parts_of.by_clocks(schedulers)), None)
    if until is None and sampler is None:
        raise ValueError("there is no sampler to end the run; say until={'steps': 1000}, or tokens, ...")
    if until is None and isinstance(sampler, importance):
        most = parts_of.most_steps(sampler)
        raise ValueError(
            f"how many steps importance has depends on losses to come; say until={{'steps': {most}}}, as "
            "many as it has if it leaves out nothing, or fewer"
        )
    growing = parts_of.growing_of(sampler)
    known = parts_of.blocks_of(route, cost, blocks)
    plan = Plan(
        batch_size=parts_of.samples_of(sampler, batch_size),
        length=length,
        until={"steps": len(sampler)} if until is None else until,
        seqlen=seqlen,
        transform=transform,
        packed=parts_of.is_packed(growing) if packed is None else packed,
        blocks=1 if known is None else known,
        routed=list(route.layers) if route else (),
        keep=route.keep if route else None,
        drops=route is not None and getattr(route.router, "scope", "layer") == "input",
        by_tokens=isinstance(sampler, token_budget),
        metrics=growing.metrics if growing is not None else {},
        schedule=ours.schedule if ours else None,
        on=ours.on if ours else "tokens",
        peak=float(ours.base_lrs[0]) if ours else None,
        cost=cost,
    )
    found = {"clock": clock, "sampler": sampler, "route": route}
    titles = ["lr", *(f"lr{i}" for i in range(2, len(schedulers) + 1))]
    parts = found | dict(zip(titles, schedulers, strict=False))
    return Composed(
        plan=plan,
        parts={name: part for name, part in parts.items() if part is not None},
        notes=(
            *fits.scalers(sampler, schedulers),
            *fits.other_clocks(clock, route, schedulers),
            *(fits.one_block(plan) if known is None else []),
            *plan.notes(),
            *fits.rates(plan, schedulers),
            *fits.short(plan, sampler),
        ),
    )
