"""The parts of a run: whether each is what it should be, and what they say about a plan."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from dataeff._check import whole
from dataeff.clock import Clock
from dataeff.flops import Cost
from dataeff.lr import by_clock
from dataeff.routing import Route
from dataeff.samplers import curriculum, importance, token_budget

_SHOWN = 60
_STATE = ("state_dict", "load_state_dict")


def check(*, clock: Any, sampler: Any, route: Any, cost: Any) -> None:
    """Raise ValueError for what is no clock, sampler, route or cost, with what to give instead.

    Examples:
        >>> check(clock=Clock(), sampler=None, route=None, cost=5)
        Traceback (most recent call last):
        ...
        ValueError: cost is 5; expected one, as flops.measured(model, batch)
    """
    if not isinstance(clock, Clock):
        raise ValueError(f"clock is {_told(clock)}; expected one, as dataeff.Clock()")
    if sampler is not None and not _has(sampler, "__len__", *_STATE):
        raise ValueError(
            f"sampler is {_told(sampler)}, which has no state to go on from; expected one of "
            "dataeff.samplers, as shuffled(samples, batch_size=8, seed=1)"
        )
    if sampler is not None and not _takes_step(sampler.state_dict):
        raise ValueError(
            f"sampler is {_told(sampler)}, whose state_dict() takes no step; expected state_dict(step=None), "
            "the state that goes on with that step, as those of dataeff.samplers have it"
        )
    if route is not None and not isinstance(route, Route):
        raise ValueError(f"route is {_told(route)}; expected what routing.attach(model, keep=...) gives")
    if cost is not None and (not callable(cost) or isinstance(cost, type)):
        raise ValueError(f"cost is {_told(cost)}; expected one, as flops.measured(model, batch)")


def _takes_step(state_dict: Any) -> bool:
    try:
        told = inspect.signature(state_dict)
    except ValueError:  # of one that does not say
        return True
    try:
        told.bind()
        told.bind(0)
    except TypeError:
        return False
    return True


def schedulers(lr: Any) -> list[Any]:
    """The scheduler, or several, as a list. ValueError for an optimizer, a schedule, or anything else.

    Examples:
        >>> schedulers(3)
        Traceback (most recent call last):
        ...
        ValueError: lr is 3; expected a scheduler, as lr.by_clock(optimizer, lr.cosine(total=10**9), clock)
    """
    given = [] if lr is None else list(lr) if isinstance(lr, Iterable) and not isinstance(lr, str) else [lr]
    for one in given:
        if isinstance(one, type | Optimizer) or not _has(one, "step", *_STATE):
            raise ValueError(
                f"lr is {_told(one)}; expected a scheduler, as lr.by_clock(optimizer, "
                "lr.cosine(total=10**9), clock)"
            )
    return given


def by_clocks(given: Iterable[Any]) -> list[by_clock]:
    """All schedulers that read a clock, those within SequentialLR and ChainedScheduler, too.

    Examples:
        >>> by_clocks([])
        []
    """
    found: list[by_clock] = []
    for one in given:
        found += [one] if isinstance(one, by_clock) else by_clocks(getattr(one, "_schedulers", ()))
    return found


def samples_of(sampler: Any, told: int | None) -> int:
    """How many samples a step has over all ranks. ValueError for two answers, or none.

    Examples:
        >>> samples_of(None, 8)
        8
    """
    own = getattr(sampler, "batch_size", None)
    if isinstance(sampler, token_budget):
        own = sampler.sampler.batch_size if told is None else None
    if own is None and told is None:
        raise ValueError("neither a sampler says how many samples a step has, nor batch_size=; give one")
    if own is not None and told not in (None, own):
        raise ValueError(f"batch_size is {told!r}, and the sampler's {own}; leave batch_size= out")
    return whole("batch_size", own if told is None else told, low=1)


def blocks_of(route: Route | None, cost: Cost | None, told: int | Sequence[str] | None) -> Any:
    """The model's blocks: the route's, those told, or those that were measured; None if nothing says.

    Examples:
        >>> blocks_of(None, Cost({"h.0": (8, 1), "h.1": (8, 1)}), None), blocks_of(None, None, 12)
        (['h.0', 'h.1'], 12)
    """
    if route is not None:
        if told is not None and told not in (route.depth, list(route.blocks), tuple(route.blocks)):
            raise ValueError(f"blocks is {told!r}, and the route has {route.blocks}; leave blocks= out")
        return route.blocks
    measured = list(getattr(cost, "layers", ()))
    return told if told is not None else measured if measured and "*" not in measured else None


def growing_of(sampler: Any) -> Any:
    """The curriculum that a sampler draws from, or None.

    Examples:
        >>> growing_of(None)
    """
    stream = sampler.sampler if isinstance(sampler, token_budget) else sampler
    return stream.curriculum if isinstance(stream, curriculum) else None


def is_packed(growing: Any) -> bool:
    """Whether all samples of a curriculum are as long, by its index.

    Examples:
        >>> is_packed(None)
        False
    """
    if growing is None or "length" not in growing.index.metrics:
        return False
    lengths = growing.index.values("length")
    return len(lengths) > 1 and bool(lengths.min() == lengths.max())


def steps_of(state: Mapping[str, Any]) -> dict[str, int]:
    """At which step the states of clock and sampler are.

    Examples:
        >>> steps_of({"clock": {"steps": 30}, "sampler": {"step": 12}, "route": {"step": 29}})
        {'clock': 30, 'sampler': 12}
    """
    asked = {"clock": "steps", "sampler": "step"}
    tables = {name: state[name] for name in asked if isinstance(state.get(name), Mapping)}
    return {name: table[asked[name]] for name, table in tables.items() if asked[name] in table}


def most_steps(sampler: Any) -> int:
    """How many steps a sampler has; of one that chooses epoch by epoch, if it leaves out nothing.

    Examples:
        >>> most_steps(importance(100, batch_size=8, seed=1, epochs=4))
        52
    """
    if isinstance(sampler, importance):
        return sampler.epochs * -(-sampler.samples // sampler.batch_size)
    return len(sampler)


def reached(clock: Clock, sampler: Any) -> int:
    """The step of a sampler that goes on where a clock stands, one step of it a batch.

    Raises ValueError where the clock counted more samples than so many batches have.

    Examples:
        >>> reached(Clock(steps=5, samples=40), importance(100, batch_size=8, seed=1, epochs=4))
        5
    """
    drawn = _drawn(sampler, clock.steps)
    if drawn is not None and clock.samples > drawn:
        raise ValueError(
            f"the clock has counted {clock.samples:,} samples in {clock.steps:,} steps, and as many batches "
            f"of the sampler have {drawn:,}, so it is further: with gradient accumulation, say "
            "state_dict(step=batch.step + 1) of the last batch that was trained on"
        )
    return clock.steps


def _drawn(sampler: Any, steps: int) -> int | None:
    """The samples of the first `steps` batches of a sampler; None if it does not say."""
    if isinstance(sampler, token_budget):
        return sampler.drawn(steps)
    size = getattr(sampler, "batch_size", None)
    return None if size is None else int(steps * size)


def are_of_one_moment(state: Mapping[str, Any], sampler: Any) -> bool:
    """Whether the states of clock and sampler fit: as many steps, or as many samples, in several a step.

    Examples:
        >>> state = {"clock": {"steps": 5, "samples": 160}, "sampler": {"step": 20}}
        >>> sampler = importance(800, batch_size=8, seed=1, epochs=4)
        >>> are_of_one_moment(state, sampler), are_of_one_moment(state | {"sampler": {"step": 9}}, sampler)
        (True, False)
    """
    steps = steps_of(state)
    if len(set(steps.values())) < 2:
        return True
    samples, size = state["clock"].get("samples"), getattr(sampler, "batch_size", None)
    return steps["sampler"] > steps["clock"] and (size is None or samples == steps["sampler"] * size)


def _has(value: Any, *names: str) -> bool:
    return all(callable(getattr(value, name, None)) for name in names)


def _told(value: Any) -> str:
    text = repr(value)
    short = len(text) <= _SHOWN and "\n" not in text and " at 0x" not in text
    return text if short else f"a {type(value).__name__}"
