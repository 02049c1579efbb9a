"""Paces along a curve."""

import abc
import math

import attrs

from dataeff._check import is_real, is_whole, real, whole
from dataeff.clock import Clock
from dataeff.pacing._pace import is_axis, place, rounded


@attrs.frozen
class Ramp(abc.ABC):
    """From `start` at step 0 to `end` at step `steps` along a curve that a final class gives.

    With `on=` another axis of the clock, `steps` is a count there, as of tokens.

    Examples:
        >>> issubclass(linear, Ramp)
        True
    """

    start: float = attrs.field(validator=is_real())
    end: float = attrs.field(validator=is_real())
    steps: int = attrs.field(kw_only=True, validator=is_whole(1))
    multiple: int | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(is_whole(1))
    )
    on: str = attrs.field(default="steps", kw_only=True, validator=is_axis)

    def __attrs_post_init__(self) -> None:
        if self.multiple:
            whole("start (with multiple=)", self.start)
            whole("end (with multiple=)", self.end)

    @abc.abstractmethod
    def _at(self, share: float) -> float:
        """The amount when `share` of the steps, in [0, 1), is done."""

    def __call__(self, step: int | Clock) -> float:
        """The amount at `step`."""
        share = place(step, self.on) / self.steps
        amount = self.end if share >= 1 else self._at(share)
        return rounded(amount, self.multiple, self.start, self.end) if self.multiple else float(amount)


@attrs.frozen
class linear(Ramp):
    """From `start` to `end` in equal increments over `steps` steps.

    Examples:
        >>> pace = linear(80, 2048, steps=100, multiple=8)
        >>> [pace(step) for step in (0, 1, 50, 99, 100, 1000)]
        [80, 96, 1064, 2024, 2048, 2048]
        >>> linear(80, 2048, steps=10**9, on="tokens")(Clock(steps=7, tokens=5 * 10**8))
        1064.0
    """

    def _at(self, share: float) -> float:
        return share * (self.end - self.start) + self.start


@attrs.frozen
class root(Ramp):
    """Fast first, then slower: start + (end - start) * (step / steps) ** (1 / degree).

    Examples:
        >>> pace = root(0, 100, steps=100, degree=2)
        >>> pace(25), pace(100)
        (50.0, 100.0)
    """

    degree: float = attrs.field(default=2, kw_only=True)

    @degree.validator
    def _check_degree(self, _: object, value: float) -> None:
        if real("degree", value) <= 0:
            raise ValueError(f"degree is {value!r}; expected a number above 0")

    def _at(self, share: float) -> float:
        return float(share ** (1.0 / self.degree)) * (self.end - self.start) + self.start


@attrs.frozen
class exponential(Ramp):
    """By a constant factor each step: start * (end / start) ** (step / steps). Both must be above 0.

    Examples:
        >>> exponential(1, 100, steps=10)(5)
        10.0
    """

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if not (self.start > 0 and self.end > 0):
            raise ValueError(f"start is {self.start!r} and end is {self.end!r}; expected both above 0")

    def _at(self, share: float) -> float:
        return self.start * float((self.end / self.start) ** share)


@attrs.frozen
class cosine(Ramp):
    """Slow, fast, slow: half a cosine from `start` to `end`.

    Examples:
        >>> pace = cosine(0, 100, steps=100)
        >>> round(pace(10), 3), round(pace(50), 3), pace(100)
        (2.447, 50.0, 100.0)
    """

    def _at(self, share: float) -> float:
        return (1 - math.cos(math.pi * share)) / 2 * (self.end - self.start) + self.start
