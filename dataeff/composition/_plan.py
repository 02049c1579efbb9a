"""A run on paper: everything that decides what each of its steps consumes."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
from attrs.converters import optional

from dataeff._check import is_flag, is_real, is_whole, whole
from dataeff.clock import AXES
from dataeff.composition._config import arguments
from dataeff.composition._notes import notes_on
from dataeff.composition._prediction import Prediction
from dataeff.composition._walk import walk
from dataeff.curriculum import paced, window
from dataeff.flops import Cost
from dataeff.pacing import Pace, as_pace, constant


def _as_pace(name: str, pace: Any) -> Pace:
    try:
        return as_pace(pace)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _as_seqlen(pace: Any) -> Pace:
    return _as_pace("seqlen", pace)


def _as_keep(pace: Any) -> Pace:
    return _as_pace("keep", pace)


def _names(blocks: int | Sequence[str]) -> tuple[str, ...]:
    if isinstance(blocks, str):
        raise ValueError(f"blocks is {blocks!r}; expected names, or how many there are")
    return tuple(map(str, blocks if isinstance(blocks, Iterable) else range(whole("blocks", blocks, low=0))))


def _as_limits(until: Any) -> dict[str, int]:
    if not isinstance(until, Mapping) or not until or not set(until) <= set(AXES):
        raise ValueError(f"until is {until!r}; expected limits on axes of the clock, as {{'tokens': 10**9}}")
    return {axis: whole(f"until {axis}", limit, low=1) for axis, limit in until.items()}


def _check_function(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
    if value is not None and (not callable(value) or isinstance(value, type)):
        cure = "lr.cosine(total=10**9)" if field.name == "schedule" else "flops.transformer(width=2048)"
        raise ValueError(f"{field.name} is {value!r}; expected one, as {cure}")


def _check_metrics(_: object, __: object, metrics: Any) -> None:
    known = isinstance(metrics, Mapping) and all(isinstance(how, paced | window) for how in metrics.values())
    if not known:
        raise ValueError(f"metrics is {metrics!r}; expected a mapping, as {{'length': paced(pace)}}")


@attrs.frozen(kw_only=True, eq=True, unsafe_hash=True, slots=False)
class Plan:
    """A run on paper: what each step consumes, and what does not fit together, without a model or data.

    Plans are equal by value, and can be keys of a dict.

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
        drops: whether tokens that do not enter the first of them are gone for good, from later blocks and the
            head, too, as with `patch_dropout`.
        by_tokens: whether batches are cut by tokens (`samplers.token_budget`), so that `batch_size` is none.
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

    batch_size: int = attrs.field(validator=is_whole(1))
    length: int = attrs.field(validator=is_whole(1))
    until: dict[str, int] = attrs.field(converter=_as_limits, hash=False)
    seqlen: Pace | None = attrs.field(default=None, converter=optional(_as_seqlen), hash=False)
    transform: str = "truncate"
    packed: bool = attrs.field(default=False, validator=is_flag())
    blocks: tuple[str, ...] = attrs.field(default=1, converter=_names)
    routed: tuple[str, ...] = attrs.field(default=(), converter=_names)
    keep: Pace | None = attrs.field(default=None, converter=optional(_as_keep), hash=False)
    drops: bool = attrs.field(default=False, validator=is_flag())
    by_tokens: bool = attrs.field(default=False, validator=is_flag())
    metrics: Mapping[str, paced | window] = attrs.field(factory=dict, hash=False, validator=_check_metrics)
    schedule: Callable[[int], float] | None = attrs.field(default=None, hash=False, validator=_check_function)
    on: str = "tokens"
    peak: float | None = attrs.field(default=None, validator=attrs.validators.optional(is_real(0)))
    cost: Cost | None = attrs.field(default=None, hash=False, validator=_check_function)

    def __attrs_post_init__(self) -> None:
        if self.transform not in ("truncate", "reshape"):
            raise ValueError(f"transform is {self.transform!r}; expected 'truncate' or 'reshape'")
        if self.on not in AXES:
            raise ValueError(f"on is {self.on!r}; expected one of {', '.join(AXES)}")
        if not self.blocks:
            raise ValueError("blocks are none; expected their names, or how many there are, at least 1")
        if strange := sorted(set(self.routed) - set(self.blocks)):
            raise ValueError(
                f"block {strange[0]!r} is to drop tokens, and there are only {', '.join(self.blocks)}"
            )
        if twice := [name for name in self.routed if self.routed.count(name) > 1]:
            raise ValueError(f"routed has {twice[0]!r} more than once; give each block once")
        if (self.keep is None) != (not self.routed):
            raise ValueError(
                f"keep is {self.keep!r} and routed {list(self.routed)}; expected both, or neither"
            )

    @classmethod
    def from_config(cls, config: Any) -> "Plan":
        """The plan that a TOML or JSON file, or a mapping like one, says.

        Its tables: `run` (batch_size, sequence_length, and one or more of steps, samples, tokens,
        layer_tokens and flops where it ends; layers, packed), `model` (arguments of `flops.transformer`),
        `curriculum`, `length`, `routing`, `lr` (whose `floor` is a learning rate, where `lr.cosine` takes a
        share of the peak) and `token_budget`. Raises ValueError for what is missing, or not known.

        Examples:
            >>> Plan.from_config({"run": {"batch_size": 8, "sequence_length": 512, "steps": 100}}).until
            {'steps': 100}
        """
        return cls(**arguments(config))

    @property
    def shortened(self) -> tuple[str, ...]:
        """The names of the blocks that are given the kept tokens alone."""
        if not self.drops or not self.routed:
            return self.routed
        return self.blocks[min(self.blocks.index(name) for name in self.routed) :]

    @property
    def shortens(self) -> bool:
        """Whether `keep` is meant to drop tokens; one that is always the whole length only counts them."""
        keep = self.keep
        return keep is not None and not (isinstance(keep, constant) and keep.value >= self.length)

    def predict(self) -> Prediction:
        """What the run consumes, step by step, exactly, if all samples have their full length.

        Raises ValueError for a pace that is not a whole number of at least 1 at some step, or an end that
        is never reached.
        """
        return self._prediction

    @functools.cached_property
    def _prediction(self) -> Prediction:
        return Prediction(self, *walk(self))

    def notes(self) -> tuple[str, ...]:
        """What does not fit together, each with what to do about it."""
        return notes_on(self.predict())
