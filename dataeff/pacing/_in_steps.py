"""A pace on another axis, in steps."""

from bisect import bisect_left

import attrs

from dataeff.clock import Clock
from dataeff.pacing._pace import Pace, as_pace, by_steps, place

_MOST = 10**8


def _as_consumption(pace: object) -> Pace:
    return by_steps(as_pace(pace), "per_step")


@attrs.frozen
class in_steps:
    """`pace`, on another axis of the clock, as one on steps: `per_step(step)` is what each step consumes.

    For what must know the amount of any step alone, as a curriculum. What a step consumes is known ahead
    where batch size and length are.

    Raises ValueError if the pace's end is not reached, since nothing is consumed or within 10**8 steps.

    Examples:
        >>> from dataeff.pacing import linear
        >>> by_tokens = linear(0, 100, steps=8 * 512 * 100, on="tokens")
        >>> pace = in_steps(by_tokens, per_step=8 * 512)
        >>> pace(50), pace.steps
        (50.0, 100)
    """

    pace: Pace = attrs.field(converter=as_pace)
    per_step: Pace = attrs.field(converter=_as_consumption)
    _consumed: list[float] = attrs.field(init=False, repr=False, eq=False)
    """Before each step, as far as the consumption changes or the pace does."""

    def __attrs_post_init__(self) -> None:
        consumed, last = [0.0], self.per_step(self.per_step.steps)
        while consumed[-1] < self.pace.steps and len(consumed) <= self.per_step.steps:
            consumed.append(consumed[-1] + self.per_step(len(consumed) - 1))
        if self.pace.steps - consumed[-1] > max(last, 0) * _MOST:
            raise ValueError(
                f"{self.per_step} consumes {last} a step at its end, so {self.pace} never reaches its own; "
                "expected more a step, or a shorter pace"
            )
        object.__setattr__(self, "_consumed", consumed)

    @property
    def steps(self) -> int:
        """The first step before which the pace's end is consumed."""
        known, last = self._consumed, self.per_step(self.per_step.steps)
        if known[-1] >= self.pace.steps:
            return bisect_left(known, self.pace.steps)
        return len(known) - 1 + int(-((known[-1] - self.pace.steps) // last))

    def __call__(self, step: int | Clock) -> float:
        """The amount at `step`."""
        beyond = (at := place(step, "steps")) - (len(self._consumed) - 1)
        if beyond <= 0:
            return self.pace(self._consumed[at])
        last = self.per_step(self.per_step.steps)
        return self.pace(min(self._consumed[-1] + beyond * last, self.pace.steps))
