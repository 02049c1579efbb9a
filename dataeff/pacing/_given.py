"""Paces that are given step by step."""

from bisect import bisect_left
from collections.abc import Callable, Iterable

import attrs

from dataeff._check import is_whole, real
from dataeff._repr import qualified
from dataeff.clock import Clock
from dataeff.pacing._pace import is_axis, listed, place, rising


def _values(values: Iterable[float]) -> tuple[float, ...]:
    return listed("values", values)


def _until(steps: Iterable[int]) -> tuple[int, ...]:
    return listed("until", steps)


@attrs.frozen
class discrete:
    """Each of `values` in turn: values[i] up to and including step `until[i]`, the last one ever after.

    Examples:
        >>> pace = discrete([128, 512, 2048], until=[99, 199])
        >>> [pace(step) for step in (0, 99, 100, 199, 200)]
        [128, 128, 512, 512, 2048]
    """

    values: tuple[float, ...] = attrs.field(converter=_values)
    until: tuple[int, ...] = attrs.field(converter=_until, kw_only=True)
    on: str = attrs.field(default="steps", kw_only=True, validator=is_axis)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(real("a value", value) for value in self.values))
        object.__setattr__(self, "until", rising("until", self.until, count=len(self.values) - 1))

    @property
    def steps(self) -> int:
        """The first step of the last value."""
        return self.until[-1] + 1 if self.until else 0

    def __call__(self, step: int | Clock) -> float:
        """The amount at `step`."""
        return self.values[bisect_left(self.until, place(step, self.on))]


@attrs.frozen
class custom:
    """Any function of the step, held at its value at `steps` from there on.

    The function must be defined at the top of a module if the pace is to be pickled.

    Examples:
        >>> pace = custom(lambda step: step % 10, steps=25)
        >>> pace(9), pace(25), pace(26)
        (9, 5, 5)
    """

    function: Callable[[int], float] = attrs.field(validator=attrs.validators.is_callable(), repr=qualified)
    steps: int = attrs.field(kw_only=True, validator=is_whole(0))
    on: str = attrs.field(default="steps", kw_only=True, validator=is_axis)

    def __call__(self, step: int | Clock) -> float:
        """The amount at `step`."""
        at = min(place(step, self.on), self.steps)
        return real(f"{qualified(self.function)} at step {at}", self.function(at))
