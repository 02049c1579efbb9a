"""Pacing: how much (difficulty, length, kept tokens) at which step.

A pace is a callable `step -> amount` that knows in `steps` when it reaches its end and stays there. All are
frozen: they compare, pickle, and print as the code that makes them. Ramps give floats; with `multiple=` whole
numbers, rounded down to that multiple, never outside the range from start to end, and exactly start and
end at either end. A pace may fall; a curriculum takes only those that do not.

Source: the schedules of DeepSpeed Data Efficiency (arXiv 2212.03597), d(t) = floor((t/T)^(1/r) * (max - min)
+ min). Theirs falls below its minimum where that is no multiple, reaches its maximum late where that is none,
and knows whole numbers only; these do not.
"""

import abc
import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import attrs

from dataeff._check import is_real, is_whole, real, whole
from dataeff._repr import qualified


@runtime_checkable
class Pace(Protocol):
    """A callable `step -> amount` with `steps`, the step from which on it stays at its end.

    Examples:
        >>> isinstance(linear(1, 2, steps=10), Pace), isinstance(len, Pace)
        (True, False)
    """

    @property
    def steps(self) -> int:
        """The step from which on the pace stays at its end."""

    def __call__(self, step: int) -> float:
        """The amount at `step`, 0 or more."""


@attrs.frozen
class constant:
    """Always `value`.

    Examples:
        >>> constant(512)(0), constant(512)(10**9)
        (512, 512)
    """

    value: float = attrs.field(validator=is_real())
    steps: int = attrs.field(default=0, init=False, repr=False)

    def __call__(self, step: int) -> float:
        """The amount at `step`."""
        _check_step(step)
        return self.value


@attrs.frozen
class _Ramp(abc.ABC):
    """From `start` at step 0 to `end` at step `steps` along a curve that a final class gives."""

    start: float = attrs.field(validator=is_real())
    end: float = attrs.field(validator=is_real())
    steps: int = attrs.field(kw_only=True, validator=is_whole(1))
    multiple: int | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(is_whole(1))
    )

    def __attrs_post_init__(self) -> None:
        if self.multiple:
            whole("start (with multiple=)", self.start)
            whole("end (with multiple=)", self.end)

    @abc.abstractmethod
    def _at(self, share: float) -> float:
        """The amount when `share` of the steps, in [0, 1), is done."""

    def __call__(self, step: int) -> float:
        """The amount at `step`."""
        share = _check_step(step) / self.steps
        amount = self.end if share >= 1 else self._at(share)
        return _round(amount, self.multiple, self.start, self.end) if self.multiple else float(amount)


@attrs.frozen
class linear(_Ramp):
    """From `start` to `end` in equal increments over `steps` steps.

    Examples:
        >>> pace = linear(80, 2048, steps=100, multiple=8)
        >>> [pace(step) for step in (0, 1, 50, 99, 100, 1000)]
        [80, 96, 1064, 2024, 2048, 2048]
    """

    def _at(self, share: float) -> float:
        return share * (self.end - self.start) + self.start


@attrs.frozen
class root(_Ramp):
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
class exponential(_Ramp):
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
class cosine(_Ramp):
    """Slow, fast, slow: half a cosine from `start` to `end`.

    Examples:
        >>> pace = cosine(0, 100, steps=100)
        >>> round(pace(10), 3), round(pace(50), 3), pace(100)
        (2.447, 50.0, 100.0)
    """

    def _at(self, share: float) -> float:
        return (1 - math.cos(math.pi * share)) / 2 * (self.end - self.start) + self.start


@attrs.frozen
class discrete:
    """Each of `values` in turn: values[i] up to and including step `until[i]`, the last one ever after.

    Examples:
        >>> pace = discrete([128, 512, 2048], until=[99, 199])
        >>> [pace(step) for step in (0, 99, 100, 199, 200)]
        [128, 128, 512, 512, 2048]
    """

    values: tuple[float, ...] = attrs.field(converter=tuple)
    until: tuple[int, ...] = attrs.field(converter=tuple, kw_only=True)

    def __attrs_post_init__(self) -> None:
        for value in self.values:
            real("a value", value)
        _check_rising("until", self.until, count=len(self.values) - 1)

    @property
    def steps(self) -> int:
        """The first step of the last value."""
        return self.until[-1] + 1 if self.until else 0

    def __call__(self, step: int) -> float:
        """The amount at `step`."""
        return self.values[bisect_left(self.until, _check_step(step))]


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

    def __call__(self, step: int) -> float:
        """The amount at `step`."""
        return real(
            f"{qualified(self.function)} at step {step}", self.function(min(_check_step(step), self.steps))
        )


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


@attrs.frozen
class multiple:
    """`pace` in whole numbers: rounded down to a multiple `of`, but within its first and last amount.

    Examples:
        >>> pace = multiple(root(10, 100, steps=100), 8)
        >>> [pace(step) for step in (0, 1, 50, 100)]
        [10, 16, 72, 100]
    """

    pace: Pace = attrs.field(converter=as_pace)
    of: int = attrs.field(validator=is_whole(1))

    def __attrs_post_init__(self) -> None:
        for end in self._ends:
            if end != int(end):
                raise ValueError(f"{self.pace} goes from or to {end}; expected whole numbers at both ends")

    @property
    def _ends(self) -> tuple[float, float]:
        return self.pace(0), self.pace(self.pace.steps)

    @property
    def steps(self) -> int:
        """As the pace's."""
        return self.pace.steps

    def __call__(self, step: int) -> float:
        """The amount at `step`."""
        return _round(self.pace(step), self.of, *self._ends)


@attrs.frozen
class clip:
    """`pace`, but never below `low` or above `high`.

    Examples:
        >>> pace = clip(linear(0, 100, steps=100), low=10, high=60)
        >>> pace(0), pace(50), pace(100)
        (10, 50.0, 60)
    """

    pace: Pace = attrs.field(converter=as_pace)
    low: float = attrs.field(default=-math.inf, kw_only=True)
    high: float = attrs.field(default=math.inf, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"low is {self.low!r} and high is {self.high!r}; expected low <= high")

    @property
    def steps(self) -> int:
        """As the pace's."""
        return self.pace.steps

    def __call__(self, step: int) -> float:
        """The amount at `step`."""
        return min(max(self.pace(step), self.low), self.high)


@attrs.frozen
class scale:
    """`pace` times `by`: half the sequence length as kept tokens, say.

    Examples:
        >>> scale(linear(80, 2048, steps=100, multiple=8), by=0.5)(100)
        1024.0
    """

    pace: Pace = attrs.field(converter=as_pace)
    by: float = attrs.field(kw_only=True, validator=is_real())

    @property
    def steps(self) -> int:
        """As the pace's."""
        return self.pace.steps

    def __call__(self, step: int) -> float:
        """The amount at `step`."""
        return self.pace(step) * self.by


@attrs.frozen
class levels:
    """`pace` in at most `k` amounts: a compiled model sees as many shapes, each for a long time.

    Each amount goes down to the highest level below it. The levels are amounts of the pace, its lowest and
    its end among them, chosen so that what the pace gives and the level does not, summed over steps, is about
    equal at all of them: no choice of k levels has a smaller largest sum.

    Examples:
        >>> pace = levels(linear(128, 2048, steps=1000, multiple=16), k=4)
        >>> sorted(set(table(pace)))
        [128, 768, 1408, 2048]
        >>> pace(0), pace(999), pace(1000)
        (128, 1408, 2048)
    """

    pace: Pace = attrs.field(converter=as_pace)
    k: int = attrs.field(kw_only=True, validator=is_whole(2))
    _levels: list[float] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_levels", _levels(table(self.pace), self.k))

    @property
    def steps(self) -> int:
        """As the pace's."""
        return self.pace.steps

    def __call__(self, step: int) -> float:
        """The amount at `step`."""
        return self._levels[bisect_right(self._levels, self.pace(step)) - 1]


def _levels(amounts: Sequence[float], k: int) -> list[float]:
    """At most `k` of `amounts`, the lowest and the last among them, by the least that a level may miss."""
    values = sorted(set(amounts))
    end = values.index(amounts[-1])
    counts = [0] * len(values)
    places = {value: i for i, value in enumerate(values)}
    for amount in amounts:
        counts[places[amount]] += 1
    steps = [0, *itertools.accumulate(counts)]
    sums = [0.0, *itertools.accumulate(value * count for value, count in zip(values, counts, strict=True))]

    def chosen(most: float) -> list[int]:
        """The fewest levels that miss at most that, as far as one beyond k."""
        found = [0]
        while found[-1] < len(values) and len(found) <= k + 1:
            first = found[-1]
            stop = end + 1 if first < end else len(values) + 1  # the end begins a level of its own

            def missed(after: int, first: int = first) -> float:
                return sums[after] - sums[first] - values[first] * (steps[after] - steps[first])

            found.append(bisect_right(range(stop), most, lo=first + 1, key=missed) - 1)
        return found[:-1]

    if len(values) <= k:
        return values
    low, high = 0.0, sums[-1] - values[0] * steps[-1]
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if len(chosen(middle)) <= k else (middle, high)
    return [values[i] for i in chosen(high)]


def _as_paces(paces: Iterable[Any]) -> tuple[Pace, ...]:
    return tuple(as_pace(pace) for pace in paces)


@attrs.frozen
class join:
    """One pace after another: paces[i + 1] begins, with its own step 0, at step `boundaries[i]`.

    Examples:
        >>> pace = join([constant(80), linear(80, 2048, steps=100)], boundaries=[1000])
        >>> pace(999), pace(1050), pace(1100)
        (80, 1064.0, 2048.0)
    """

    paces: tuple[Pace, ...] = attrs.field(converter=_as_paces)
    boundaries: tuple[int, ...] = attrs.field(converter=tuple, kw_only=True)

    def __attrs_post_init__(self) -> None:
        _check_rising("boundaries", self.boundaries, count=len(self.paces) - 1)

    @property
    def steps(self) -> int:
        """When the last pace ends."""
        return (0, *self.boundaries)[-1] + self.paces[-1].steps

    def __call__(self, step: int) -> float:
        """The amount at `step`."""
        i = bisect_right(self.boundaries, _check_step(step))
        return self.paces[i](step - (0, *self.boundaries)[i])


def table(pace: Pace) -> list[float]:
    """The amounts at steps 0, 1, ..., `pace.steps`.

    Examples:
        >>> table(linear(0, 8, steps=4))
        [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    return [pace(step) for step in range(pace.steps + 1)]


def _round(amount: float, multiple: int, start: float, end: float) -> int:
    if amount in (start, end):
        return int(amount)
    low, high = min(start, end), max(start, end)
    return int(min(max(math.floor(amount) // multiple * multiple, low), high))


def _check_step(step: int) -> int:
    if not step >= 0:
        raise ValueError(f"step is {step!r}; expected 0 or more")
    return step


def _check_rising(name: str, steps: Sequence[int], *, count: int) -> None:
    whole_steps = [whole(f"an entry of {name}", step, low=0) for step in steps]
    if count < 0:
        raise ValueError(
            f"there is nothing to change between at {name} {list(steps)}; expected at least one amount"
        )
    if len(steps) != count or sorted(set(whole_steps)) != whole_steps:
        raise ValueError(
            f"{name} is {list(steps)}; expected {count} steps in rising order, one fewer than amounts"
        )
