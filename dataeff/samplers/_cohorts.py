"""The order of draws from a growing pool, as a pure function of (seed, number of the draw).

Samples that enter at the same step form a cohort. Time is measured in pool epochs, in which every eligible
sample is drawn once, and counted in ticks of 2**-32. Draw j of cohort c happens at tick

    T(c, j) = H_c + ceil((j * 2**32 + U_c) / s_c)

where H_c is the tick at which the pool gave out its last draw before the cohort entered, s_c the cohort's
size and U_c in [0, 2**32) keyed by (seed, c). Draws are ordered by (tick, cohort, j), and step t takes those
numbered t * B to (t + 1) * B. All of it is arithmetic on whole numbers, so no two machines can disagree.
"""

from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from dataeff import rng
from dataeff._kernel import kernel

Ints = NDArray[np.int64]

_BITS: int = 32
_FRACTION: int = 2**_BITS - 1
_MOST = 2**31  # samples in a cohort: then a fraction of an epoch times a size stays below 2**63
_EPOCHS = 2**30  # passes over the pool: then ticks do


@attrs.frozen(eq=False)
class Cohorts:
    """Draws from the prefixes of `order`, `batch_size` a step.

    Args:
        order: sample ids, cohort after cohort.
        entry_steps: the step at which each cohort enters, rising from 0.
        ends: where each cohort ends in `order`.
        batch_size: draws a step.
        key: of the randomness.

    Examples:
        >>> entry_steps, ends = np.array([0, 3]), np.array([4, 10])
        >>> cohorts = Cohorts(np.arange(10), entry_steps, ends, batch_size=4, key=rng.key(7))
        >>> [sorted(cohorts.draw(step).tolist()) for step in (0, 1, 2)]
        [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]
    """

    order: NDArray[Any]
    entry_steps: Ints
    ends: Ints
    batch_size: int
    key: int
    _starts: Ints = attrs.field(init=False)
    _sizes: Ints = attrs.field(init=False)
    _keys: NDArray[np.uint64] = attrs.field(init=False)
    _batch_key: int = attrs.field(init=False)
    _phases: Ints = attrs.field(init=False)
    _times: Ints = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        starts = np.concatenate([[0], self.ends[:-1]])
        sizes = self.ends - starts
        if sizes.max() > _MOST:
            raise ValueError(f"{sizes.max()} samples enter in one step; at most 2**31 can: use a finer pace")
        entry_draws = self.entry_steps * self.batch_size
        _check_epochs(float((np.diff(entry_draws) / self.ends[:-1]).sum()))
        keys = rng.fold(self.key, np.arange(len(sizes)))
        phases = (keys >> np.uint64(64 - _BITS)).astype(np.int64)
        object.__setattr__(self, "_starts", starts)
        object.__setattr__(self, "_sizes", sizes)
        object.__setattr__(self, "_keys", keys)
        object.__setattr__(self, "_batch_key", rng.key(self.key, "batch"))
        object.__setattr__(self, "_phases", phases)
        object.__setattr__(self, "_times", _entry_times(entry_draws, sizes, phases))

    def draw(self, step: int, start: int = 0, stop: int | None = None) -> Ints:
        """The sample ids of `step` in a keyed random order, of these those at `start` up to `stop`. int64."""
        cohort, number = self._numbers(step)
        key = rng.key(self._batch_key, step)
        mixed = rng.permute(np.arange(start, stop or self.batch_size), self.batch_size, key)
        cohort, number = cohort[mixed], number[mixed]
        places = self._starts[cohort] + rng.draw(number, self._sizes[cohort], self._keys[cohort])
        ids: Ints = self.order[places].astype(np.int64)
        return ids

    def exposures(self, start: int, stop: int, samples: int) -> Ints:
        """How often each of so many sample ids is drawn from step `start` up to `stop`. (samples,) int64."""
        bounds = (self._first_numbers(step * self.batch_size) for step in (start, stop))
        counts = np.zeros(len(self.order), np.int64)
        for c, (first, last) in enumerate(zip(*bounds, strict=True)):
            low, size = self._starts[c], self._sizes[c]
            whole = range(-(-first // size), last // size)  # epochs in which each is drawn once
            counts[low : low + size] += len(whole)
            edges = (first, whole.start * size, whole.stop * size, last) if len(whole) else (first, last)
            numbers = np.concatenate([np.arange(*edges[i : i + 2]) for i in range(0, len(edges), 2)])
            drawn = low + rng.draw(numbers, size, self._keys[c])
            np.add.at(counts, drawn, 1)
        of_samples = np.zeros(samples, np.int64)
        of_samples[self.order] = counts
        return of_samples

    def _first_numbers(self, number: int) -> Ints:
        """How many of the first `number` draws each cohort gave, 0 for those that have not entered."""
        active = int(np.searchsorted(self.entry_steps * self.batch_size, number, side="right"))
        counts = np.zeros(len(self._sizes), np.int64)
        clock = self._times[:active], self._sizes[:active], self._phases[:active]
        _counts(number, *clock, counts[:active])
        return counts

    def _numbers(self, step: int) -> tuple[Ints, Ints]:
        """The draws of `step`: of which cohort, and the how-manieth of that cohort. Two (batch_size,)."""
        active = int(np.searchsorted(self.entry_steps, step, side="right"))
        _check_epochs((step + 1) * self.batch_size / int(self.ends[active - 1]))
        cohort, number = np.empty(self.batch_size, np.int64), np.empty(self.batch_size, np.int64)
        clock = self._times[:active], self._sizes[:active], self._phases[:active]
        _numbers(step * self.batch_size, *clock, cohort, number)
        return cohort, number


def gathered(entry_steps: Ints, ends: Ints, *, most: int = 4096) -> tuple[Ints, Ints]:
    """Entry steps and ends of at most `most` cohorts, so that a step costs the same at any length of pace.

    Where there are more, samples wait for the next step of an even grid: 110,000 steps of growth, say, are
    gathered every 27. No sample enters early, and all have entered when the last does.

    Examples:
        >>> steps, ends = gathered(np.arange(10), np.arange(100, 110), most=4)
        >>> steps.tolist(), ends.tolist()
        ([0, 3, 6, 9], [100, 103, 106, 109])
    """
    if len(entry_steps) <= most:
        return entry_steps, ends
    every = -(-entry_steps[-1] // (most - 1))
    grid = np.minimum(-(-entry_steps // every) * every, entry_steps[-1])
    last = np.flatnonzero(np.diff(grid, append=-1))
    return grid[last], ends[last]


def _check_epochs(epochs: float) -> None:
    if epochs >= _EPOCHS:
        raise ValueError(
            f"about {epochs:.2g} passes over the pool; at most 2**30 can be: begin with a larger pool"
        )


@kernel
def _drawn(ticks: int, size: int, phase: int) -> int:
    """How many draws a cohort has given `ticks` after it entered."""
    if ticks < 0:
        return 0
    fraction = ticks & _FRACTION
    return (ticks >> _BITS) * size + ((fraction * size - phase) >> _BITS) + 1


@kernel
def _all_drawn(tick: int, times: Ints, sizes: Ints, phases: Ints) -> int:
    total = 0
    for c in range(len(times)):
        total += _drawn(tick - times[c], sizes[c], phases[c])
    return total


@kernel
def _counts(number: int, times: Ints, sizes: Ints, phases: Ints, out: Ints) -> None:
    """How many of the first `number` draws each cohort gave. Exact, whatever way the search takes."""
    pool = sizes.sum()
    low, high = np.int64(-1), times[-1] + (((number + len(times)) // pool + 2) << _BITS)
    tick = times[-1]
    drawn = _all_drawn(tick, times, sizes, phases)
    turn = 0
    while drawn != number and high - low > 1:  # fewer than `number` at low, as many or more at high
        if drawn < number:
            low = tick
        else:
            high = tick
        tick += np.int64((number - drawn) * (2.0**_BITS / pool))
        turn += 1
        if turn % 3 == 0 or not low < tick < high:  # Newton's step is good, but bisection sure to end
            tick = low + (high - low) // 2
        drawn = _all_drawn(tick, times, sizes, phases)
    if drawn == number:
        low = high = tick
    missing = number
    for c in range(len(times)):
        out[c] = _drawn(low - times[c], sizes[c], phases[c])
        missing -= out[c]
    for c in range(len(times)):  # of draws in one tick, those of earlier cohorts come first
        more = min(missing, _drawn(high - times[c], sizes[c], phases[c]) - out[c])
        out[c] += more
        missing -= more


@kernel
def _numbers(number: int, times: Ints, sizes: Ints, phases: Ints, cohort: Ints, of_cohort: Ints) -> None:
    """Draws `number` and on: of which cohort, and the how-manieth of that cohort."""
    first, last = np.empty(len(times), np.int64), np.empty(len(times), np.int64)
    _counts(number, times, sizes, phases, first)
    _counts(number + len(cohort), times, sizes, phases, last)
    place = 0
    for c in range(len(times)):
        for drawn in range(first[c], last[c]):
            cohort[place], of_cohort[place] = c, drawn
            place += 1


@kernel
def _entry_times(numbers: Ints, sizes: Ints, phases: Ints) -> Ints:
    """The tick of the last draw before draw `numbers[c]`, for each cohort c; 0 for the first."""
    times = np.zeros(len(sizes), np.int64)
    drawn = np.empty(len(sizes), np.int64)
    for entering in range(1, len(sizes)):
        _counts(numbers[entering], times[:entering], sizes[:entering], phases[:entering], drawn[:entering])
        for c in range(entering):
            if drawn[c] > 0:
                epoch, place = divmod(drawn[c] - 1, sizes[c])
                ticks = -((-((place << _BITS) + phases[c])) // sizes[c])
                times[entering] = max(times[entering], times[c] + (epoch << _BITS) + ticks)
    return times
