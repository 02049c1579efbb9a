"""How far along a metric the pool reaches at each step."""

from typing import Any

import attrs
import numpy as np
from attrs.converters import optional
from numpy.typing import ArrayLike, NDArray

from dataeff.index import Index
from dataeff.pacing import Pace, as_pace, by_steps, table

Ints = NDArray[np.int64]


def _check_by(_: object, __: object, value: str) -> None:
    if value not in ("value", "percentile"):
        raise ValueError(f"by is {value!r}; expected 'value' or 'percentile'")


def _as_pace(pace: Any) -> Pace:
    return by_steps(as_pace(pace), "a curriculum")


@attrs.frozen
class paced:
    """How far along a metric the pool reaches: up to `pace(step)`, by "value" or by "percentile".

    By value, a sample is within the pace if its difficulty is at most the amount. By percentile, in (0, 100],
    the easiest ceil(amount / 100 * samples) samples are, in the order of the index. The pace must not fall.

    Examples:
        >>> from dataeff import pacing
        >>> paced(pacing.root(1, 100, steps=1000), by="percentile").by
        'percentile'
    """

    pace: Pace = attrs.field(converter=_as_pace)
    by: str = attrs.field(default="value", kw_only=True, validator=_check_by)

    @property
    def steps(self) -> int:
        """The step from which on it stays."""
        return self.pace.steps


@attrs.frozen
class window:
    """A band of a metric: from `low(step)` up to `high(step)`, by "value" or by "percentile", in [0, 100].

    Both may rise and fall: a falling `low` alone trains on the hard samples first (anti-curriculum), one that
    falls and rises again is a V, and two that rise together move a band along. Samples that have left the
    pool come back in the order in which they were due.

    Args:
        low: a pace or a number; None for no lower bound.
        high: likewise the upper bound. A sample at either bound is inside.
        by: "value", or "percentile" of the samples in the order of the index.

    Examples:
        >>> from dataeff import pacing
        >>> hard_first = window(pacing.linear(80, 0, steps=1000), by="percentile")
        >>> hard_first.low(0), hard_first.high, hard_first.steps
        (80.0, None, 1000)
    """

    low: Pace | None = attrs.field(default=None, converter=optional(_as_pace))
    high: Pace | None = attrs.field(default=None, converter=optional(_as_pace))
    by: str = attrs.field(default="value", kw_only=True, validator=_check_by)

    @property
    def steps(self) -> int:
        """The step from which on it stays."""
        return max((pace.steps for pace in (self.low, self.high) if pace is not None), default=0)


def reach(index: Index, name: str, how: paced) -> Ints:
    """How many samples, from the easiest, are within one metric's pace at each of its steps.

    Examples:
        >>> import tempfile
        >>> from dataeff import index, pacing
        >>> with tempfile.TemporaryDirectory() as out:
        ...     reach(index.from_values({"m": [3, 1, 2]}, out=out), "m", paced(pacing.linear(1, 3, steps=2)))
        array([1, 2, 3])
    """
    amounts = _numbers(name, table(how.pace))
    falls = np.flatnonzero(np.diff(amounts) < 0)
    if falls.size:
        step = int(falls[0])
        raise ValueError(
            f"the pace of {name!r} falls from {amounts[step]} at step {step} to {amounts[step + 1]} at step "
            f"{step + 1}: samples would leave the pool; expected one that never falls or ends below its "
            "start, or window(high=pace)"
        )
    if how.by == "percentile" and not 0 < amounts[0] <= amounts[-1] <= 100:
        raise ValueError(
            f"the pace of {name!r} goes from {amounts[0]} to {amounts[-1]}; percentiles are in (0, 100]"
        )
    return _ranks(index, name, how.by, amounts, "right")


def slices(index: Index, name: str, how: window) -> tuple[Ints, Ints]:
    """Where in the order of one metric its window begins and ends at each step.

    Examples:
        >>> import tempfile
        >>> from dataeff import index, pacing
        >>> falling = window(low=pacing.linear(3, 2, steps=1))
        >>> with tempfile.TemporaryDirectory() as out:
        ...     slices(index.from_values({"m": [3, 1, 2]}, out=out), "m", falling)
        (array([2, 1]), array([3, 3]))
    """
    size = how.steps + 1
    starts, stops = np.zeros(size, np.int64), np.full(size, len(index))
    for pace, bound, side in ((how.low, starts, "left"), (how.high, stops, "right")):
        if pace is not None:
            amounts = _numbers(name, [pace(step) for step in range(size)])
            if how.by == "percentile" and not 0 <= amounts.min() <= amounts.max() <= 100:
                raise ValueError(
                    f"the window of {name!r} goes from {amounts.min()} to {amounts.max()}; percentiles are "
                    "in [0, 100]"
                )
            bound[:] = _ranks(index, name, how.by, amounts, side)
    if (empty := np.flatnonzero(starts >= stops)).size:
        step = int(empty[0])
        low, high = (None if pace is None else pace(step) for pace in (how.low, how.high))
        raise ValueError(
            f"no sample is eligible at step {step}: the window of {name!r} goes from {how.by} {low} to "
            f"{high}; make it wider"
        )
    return starts, stops


def _numbers(name: str, amounts: ArrayLike) -> NDArray[Any]:
    """What a pace gives, step by step. ValueError for nan."""
    found = np.array(amounts)
    if (bad := np.flatnonzero(np.isnan(found))).size:
        raise ValueError(f"the pace of {name!r} is nan at step {bad[0]}; expected a number at every step")
    return found


def _ranks(index: Index, name: str, by: str, amounts: NDArray[Any], side: Any) -> Ints:
    order = index.order(name)
    if by == "percentile":
        whole = np.ceil if side == "right" else np.floor
        return np.asarray(whole(len(order) * amounts / 100), np.int64)
    sorter = order.view(np.int64) if order.dtype == np.uint64 else order  # all that searchsorted takes
    return np.searchsorted(index.values(name), amounts, side=side, sorter=sorter)
