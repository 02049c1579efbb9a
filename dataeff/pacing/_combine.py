"""Paces made of others."""

import math
from bisect import bisect_right
from collections.abc import Iterable
from numbers import Real
from typing import Any, cast

import attrs

from dataeff._check import is_real, is_whole
from dataeff._repr import number
from dataeff.clock import Clock
from dataeff.pacing._derived import Derived
from dataeff.pacing._monotone import is_monotone
from dataeff.pacing._pace import Pace, as_pace, common_axis, listed, place, rising, rounded


@attrs.frozen
class multiple(Derived):
    """`pace` in whole numbers: rounded down to a multiple `of`, and exactly its first and last amount.

    Where the pace is within its first and last amount, so is the multiple: it is raised to the lower of them.
    A pace that turns may leave them, as one that returns to its start does, and is then rounded down alone.

    Examples:
        >>> from dataeff.pacing import linear, root
        >>> pace = multiple(root(10, 100, steps=100), 8)
        >>> [pace(step) for step in (0, 1, 50, 100)]
        [10, 16, 72, 100]
        >>> up, down = linear(10, 100, steps=50), linear(100, 10, steps=50)
        >>> pace = multiple(join([up, down], boundaries=[50]), 8)
        >>> [pace(step) for step in (0, 1, 25, 50, 75, 100)]
        [10, 10, 48, 96, 48, 10]
    """

    of: int = attrs.field(validator=is_whole(1))

    def __attrs_post_init__(self) -> None:
        for end in self._ends:
            if end != int(end):
                raise ValueError(f"{self.pace} goes from or to {end}; expected whole numbers at both ends")

    @property
    def _ends(self) -> tuple[float, float]:
        return self.pace(0), self.pace(self.pace.steps)

    def __call__(self, step: int | Clock) -> float:
        """The amount at `step`."""
        amount, (start, end) = self.pace(step), self._ends
        if amount in (start, end) or is_monotone(self.pace):
            return rounded(amount, self.of, start, end)
        down = math.floor(amount) // self.of * self.of
        low = int(min(start, end))
        return max(down, low) if amount > low else down


@attrs.frozen
class clip(Derived):
    """`pace`, but never below `low` or above `high`.

    Examples:
        >>> from dataeff.pacing import linear
        >>> pace = clip(linear(0, 100, steps=100), low=10, high=60)
        >>> pace(0), pace(50), pace(100)
        (10, 50.0, 60)
    """

    low: float = attrs.field(default=-math.inf, kw_only=True, repr=number)
    high: float = attrs.field(default=math.inf, kw_only=True, repr=number)

    def __attrs_post_init__(self) -> None:
        for name, bound in (("low", self.low), ("high", self.high)):
            if not isinstance(cast(Any, bound), Real):
                raise ValueError(f"{name} is {bound!r}; expected a number, or no {name}= for no bound")
        if not self.low <= self.high:
            raise ValueError(f"low is {self.low!r} and high is {self.high!r}; expected low <= high")

    def __call__(self, step: int | Clock) -> float:
        """The amount at `step`."""
        return min(max(self.pace(step), self.low), self.high)


@attrs.frozen
class scale(Derived):
    """`pace` times `by`: half the sequence length as kept tokens, say.

    Examples:
        >>> from dataeff.pacing import linear
        >>> scale(linear(80, 2048, steps=100, multiple=8), by=0.5)(100)
        1024.0
    """

    by: float = attrs.field(kw_only=True, validator=is_real())

    def __call__(self, step: int | Clock) -> float:
        """The amount at `step`."""
        return self.pace(step) * self.by


def _as_paces(paces: Iterable[Any]) -> tuple[Pace, ...]:
    return tuple(as_pace(pace) for pace in listed("paces", paces))


def _as_boundaries(steps: Iterable[int]) -> tuple[int, ...]:
    return listed("boundaries", steps)


@attrs.frozen
class join:
    """One pace after another: paces[i + 1] begins, with its own step 0, at step `boundaries[i]`.

    Examples:
        >>> from dataeff.pacing import constant, linear
        >>> pace = join([constant(80), linear(80, 2048, steps=100)], boundaries=[1000])
        >>> pace(999), pace(1050), pace(1100)
        (80, 1064.0, 2048.0)
    """

    paces: tuple[Pace, ...] = attrs.field(converter=_as_paces)
    boundaries: tuple[int, ...] = attrs.field(converter=_as_boundaries, kw_only=True)

    def __attrs_post_init__(self) -> None:
        boundaries = rising("boundaries", self.boundaries, count=len(self.paces) - 1)
        object.__setattr__(self, "boundaries", boundaries)
        common_axis(self.paces)

    @property
    def on(self) -> str:
        """That of all of them."""
        return common_axis(self.paces)

    @property
    def steps(self) -> int:
        """When the last pace ends."""
        return (0, *self.boundaries)[-1] + self.paces[-1].steps

    def __call__(self, step: int | Clock) -> float:
        """The amount at `step`."""
        at = place(step, self.on)
        i = bisect_right(self.boundaries, at)
        return self.paces[i](at - (0, *self.boundaries)[i])
