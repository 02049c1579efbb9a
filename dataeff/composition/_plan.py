"""A run on paper: everything that decides what each of its steps consumes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from dataeff._check import is_whole, whole
from dataeff.clock import AXES
from dataeff.composition._config import arguments
from dataeff.composition._notes import notes_on
from dataeff.composition._prediction import Prediction
from dataeff.composition._walk import walk
from dataeff.curriculum import paced, window
from dataeff.flops import Cost
from dataeff.pacing import Pace, as_pace


def _pace_or_none(pace: Any) -> Pace | None:
    return None if pace is None else as_pace(pace)


def _names(blocks: int | Sequence[str]) -> tuple[str, ...]:
    if isinstance(blocks, str):
        raise ValueError(f"blocks is {blocks!r}; expected names, or how many there are")
    return tuple(map(str, range(whole("blocks", blocks, low=0)) if isinstance(blocks, int) else blocks))


def _as_limits(until: Any) -> dict[str, int]:
    if not isinstance(until, Mapping) or not until or not set(until) <= set(AXES):
        raise ValueError(f"until is {until!r}; expected limits on axes of the clock, as {{'tokens': 10**9}}")
    return {axis: whole(f"until {axis}", limit, low=1) for axis, limit in until.items()}


@attrs.frozen
class Plan:
    """A run on paper: what each step consumes, and what does not fit together, without a model or data.

    Args:
        batch_size: samples of a step, over all ranks.
        length: tokens of a sample as it comes; packed, or padded to that.
        until: where the run ends, by axis of the clock: at the first limit that is reached.
        seqlen: a pace: to how many tokens samples are cut.
        transform: what cuts them, "truncate" or "reshape" of `dataeff.transforms`.
        packed: whether samples hold several documents each.
        blocks: the names of the model's blocks, or how many it has.
        routed: the names of those that drop tokens.
        keep: a pace: how many tokens enter them.
        metrics: as of a Curriculum, to see whether their paces reach their ends.
        schedule: of the learning rate, as in `dataeff.lr`.
        on: what the schedule is on.
        peak: of the learning rate.
        cost: what blocks cost, for FLOPs.

    Examples:
        >>> from dataeff import flops, pacing
        >>> plan = Plan(
        ...     batch_size=8, length=512, until={"steps": 1000}, cost=flops.transformer(width=64),
        ...     seqlen=pacing.linear(64, 512, steps=500, multiple=8),
        ...     blocks=12, routed=[str(i) for i in range(1, 11)],
        ...     keep=pacing.linear(32, 512, steps=800, multiple=16),
        ... )
        >>> found = plan.predict()
        >>> found.counts["tokens"], found.counts["layer_tokens"], round(found.saving("flops"), 3)
        (3182336, 31439872, 0.436)
    """

    batch_size: int = attrs.field(kw_only=True, validator=is_whole(1))
    length: int = attrs.field(kw_only=True, validator=is_whole(1))
    until: dict[str, int] = attrs.field(kw_only=True, converter=_as_limits)
    seqlen: Pace | None = attrs.field(default=None, kw_only=True, converter=_pace_or_none)
    transform: str = attrs.field(default="truncate", kw_only=True)
    packed: bool = attrs.field(default=False, kw_only=True)
    blocks: tuple[str, ...] = attrs.field(default=1, kw_only=True, converter=_names)
    routed: tuple[str, ...] = attrs.field(default=(), kw_only=True, converter=_names)
    keep: Pace | None = attrs.field(default=None, kw_only=True, converter=_pace_or_none)
    metrics: Mapping[str, paced | window] = attrs.field(factory=dict, kw_only=True)
    schedule: Callable[[int], float] | None = attrs.field(default=None, kw_only=True)
    on: str = attrs.field(default="tokens", kw_only=True)
    peak: float | None = attrs.field(default=None, kw_only=True)
    cost: Cost | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.transform not in ("truncate", "reshape"):
            raise ValueError(f"transform is {self.transform!r}; expected 'truncate' or 'reshape'")
        if self.on not in AXES:
            raise ValueError(f"on is {self.on!r}; expected one of {', '.join(AXES)}")
        if strange := sorted(set(self.routed) - set(self.blocks)):
            raise ValueError(
                f"block {strange[0]!r} is to drop tokens, and there are only {', '.join(self.blocks)}"
            )
        if (self.keep is None) != (not self.routed):
            raise ValueError(
                f"keep is {self.keep!r} and routed {list(self.routed)}; expected both, or neither"
            )

    @classmethod
    def from_config(cls, config: Any) -> "Plan":
        """The plan that a TOML or JSON file, or a mapping like one, says.

        Its tables: `run` (batch_size, sequence_length, and one or more of steps, samples, tokens,
        layer_tokens and flops where it ends; layers, packed), `model` (arguments of `flops.transformer`),
        `curriculum`, `length`, `routing` and `lr`. Raises ValueError for what is missing, or not known.

        Examples:
            >>> Plan.from_config({"run": {"batch_size": 8, "sequence_length": 512, "steps": 100}}).until
            {'steps': 100}
        """
        return cls(**arguments(config))

    def predict(self) -> Prediction:
        """What the run consumes, step by step, exactly, if all samples have their full length.

        Raises ValueError for a pace that is not a whole number of at least 1 at some step, or an end that
        is never reached.
        """
        return Prediction(self, *walk(self))

    def notes(self) -> tuple[str, ...]:
        """What does not fit together, each with what to do about it."""
        return notes_on(self.predict())
