"""What a pace is, and on which axis."""

import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import attrs

from dataeff._check import is_real, whole
from dataeff.clock import AXES, Clock

_MOST = 2**20
_MOST_STEPS = 2**24  # half a gigabyte as a table


@runtime_checkable
class Pace(Protocol):
    """A callable `step -> amount` with `steps`, the step from which on it stays at its end.

    Examples:
        >>> from dataeff.pacing import linear
        >>> isinstance(linear(1, 2, steps=10), Pace), isinstance(len, Pace)
        (True, False)
    """

    @property
    def steps(self) -> int:
        """The step, or the count on the pace's axis, from which on it stays at its end."""

    def __call__(self, step: Any) -> float:
        """The amount at `step`, 0 or more, or at a clock's count on the pace's axis."""


@attrs.frozen
class constant:
    """Always `value`.

    Examples:
        >>> constant(512)(0), constant(512)(10**9)
        (512, 512)
    """

    value: float = attrs.field(validator=is_real())
    steps: int = attrs.field(default=0, init=False, repr=False)

    def __call__(self, step: int | Clock) -> float:
        """The amount at `step`."""
        place(step, "steps")
        return self.value


def as_pace(pace: Any) -> Pace:
    """`pace`, or a number as a constant one. Raises ValueError for anything else.

    Examples:
        >>> as_pace(512)
        constant(value=512)
    """
    if isinstance(pace, type):
        raise ValueError(
            f"{pace.__name__} is a class; expected a pace made with it, as linear(80, 2048, steps=100)"
        )
    if isinstance(pace, Pace):
        return pace
    if callable(pace):
        raise ValueError(
            f"{pace!r} does not say when it ends; wrap it: dataeff.pacing.custom(function, steps=...)"
        )
    return constant(pace)


def axis(pace: Any) -> str:
    """What a pace is paced by: one of `dataeff.clock.AXES`; "steps" where it does not say.

    Examples:
        >>> from dataeff.pacing import linear
        >>> axis(linear(80, 2048, steps=10**9, on="tokens")), axis(constant(8))
        ('tokens', 'steps')
    """
    on: str = getattr(pace, "on", "steps")
    return on


def common_axis(paces: Sequence[Pace]) -> str:
    """The axis that all paces are on, but for constants, which are on any. ValueError if there is none.

    Examples:
        >>> from dataeff.pacing import linear
        >>> common_axis([constant(8), linear(8, 9, steps=10**9, on="tokens")])
        'tokens'
    """
    axes = sorted({axis(pace) for pace in paces if not isinstance(pace, constant)})
    if len(axes) > 1:
        raise ValueError(f"the paces are on {' and '.join(axes)}; expected one axis for all of them")
    return axes[0] if axes else "steps"


def is_axis(_: object, field: "attrs.Attribute[Any]", value: Any) -> None:
    """One of the axes of a clock, as an attrs validator.

    Examples:
        >>> from dataeff.pacing import linear
        >>> linear(80, 2048, steps=10**9, on="epochs")
        Traceback (most recent call last):
        ...
        ValueError: on is 'epochs'; expected one of steps, samples, tokens, loss_tokens, layer_tokens, flops
    """
    if value not in AXES:
        raise ValueError(f"{field.name} is {value!r}; expected one of {', '.join(AXES)}")


def by_steps(pace: Pace, name: str) -> Pace:
    """`pace`, if it is on steps. Raises ValueError otherwise: what has to know any step alone needs one.

    Also for one that ends after step 2**24: as many steps are tokens nearly always, and a table of them all
    would not fit the memory.

    Examples:
        >>> from dataeff.pacing import linear
        >>> by_steps(linear(80, 2048, steps=10**9, on="tokens"), "the length")
        Traceback (most recent call last):
        ...
        ValueError: the length is paced by tokens; expected steps, so that any step can be told alone: ...
    """
    if axis(pace) != "steps":
        raise ValueError(
            f"{name} is paced by {axis(pace)}; expected steps, so that any step can be told alone: say how "
            "much a step consumes, pacing.in_steps(pace, per_step)"
        )
    if pace.steps > _MOST_STEPS:
        raise ValueError(
            f"{name} is paced over {pace.steps:,} steps; expected {_MOST_STEPS:,} at most: if they are "
            'tokens, make the pace with on="tokens", and say how much a step consumes, '
            "pacing.in_steps(pace, per_step)"
        )
    return pace


def table(pace: Pace) -> list[float]:
    """The amounts at steps 0, 1, ..., `pace.steps`.

    Examples:
        >>> from dataeff.pacing import linear
        >>> table(linear(0, 8, steps=4))
        [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    return [pace(step) for step in range(pace.steps + 1)]


def amounts(pace: Pace) -> list[float]:
    """The amounts of a pace in order: its table, or, of one longer than 2**20, as many places of it.

    Examples:
        >>> from dataeff.pacing import linear
        >>> len(amounts(linear(0, 8, steps=10**9, on="tokens")))
        1048577
    """
    if pace.steps <= _MOST:
        return table(pace)
    return [pace(pace.steps * i // _MOST) for i in range(_MOST + 1)]


def place(step: Any, on: str) -> int:
    """Where on its axis a pace is asked: at a number of 0 or more, or at a clock's count.

    Examples:
        >>> place(7, "tokens"), place(Clock(steps=7, tokens=512), "tokens")
        (7, 512)
    """
    at: int = step.at(on) if isinstance(step, Clock) else step
    if not at >= 0:
        raise ValueError(f"step is {step!r}; expected 0 or more, or a clock")
    return at


def rounded(amount: float, multiple: int, start: float, end: float) -> int:
    """`amount` down to a multiple, but within start and end, and exactly those at either end.

    Examples:
        >>> rounded(33.5, 8, 10, 100)
        32
    """
    if amount in (start, end):
        return int(amount)
    low, high = min(start, end), max(start, end)
    return int(min(max(math.floor(amount) // multiple * multiple, low), high))


def listed(name: str, values: Any) -> tuple[Any, ...]:
    """`values` as a tuple. Raises ValueError for a single one.

    Examples:
        >>> listed("until", [10, 20])
        (10, 20)
    """
    try:
        return tuple(values)
    except TypeError:
        raise ValueError(f"{name} is {values!r}; expected a list, as [{values!r}]") from None


def rising(name: str, steps: Sequence[int], *, count: int) -> tuple[int, ...]:
    """`steps` as plain ints. Raises ValueError unless they are `count` whole numbers that rise.

    Examples:
        >>> rising("until", [10, 20], count=2)
        (10, 20)
    """
    whole_steps = [whole(f"an entry of {name}", step, low=0) for step in steps]
    if count < 0:
        raise ValueError(
            f"there is nothing to change between at {name} {list(steps)}; expected at least one amount"
        )
    if len(steps) != count or sorted(set(whole_steps)) != whole_steps:
        raise ValueError(
            f"{name} is {list(steps)}; expected {count} steps in rising order, one fewer than amounts"
        )
    return tuple(whole_steps)
