"""The order of draws from a moving pool, as a pure function of (seed, number of the draw).

The pool of a step is a slice of one order of samples. Samples that are always in the pool together form a
cohort, and the time a cohort spends in the pool without a break is a run. Time is measured in pool epochs, in
which every eligible sample is drawn once, and counted in ticks of 2**-32. Draw j of cohort c happens at tick

    T(c, j) = B_r + ceil((j * 2**32 + U_c) / s_c)

where s_c is the cohort's size, U_c in (0, 2**32] is keyed by (seed, c), and B_r belongs to the run: for the
first one it is the tick of the last draw before the cohort entered, and for a later one it is moved by the
time that the cohort was out of the pool, so that its draws go on where they stopped. Draws are ordered by
(tick, cohort, j), and step t takes those numbered t * B to (t + 1) * B. All of it is arithmetic on whole
numbers, so no two machines can disagree.
"""

from bisect import bisect_right
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from dataeff import rng
from dataeff._kernel import kernel
from dataeff.curriculum import Pools

Ints = NDArray[np.int64]

_BITS: int = 32
_FRACTION: int = 2**_BITS - 1
_MOST = 2**31  # samples in a cohort: then a fraction of an epoch times a size stays below 2**63
_EPOCHS = 2**30  # passes over the pool: then ticks do
_MOST_RUNS = 2**22
_START, _SIZE, _PHASE, _KEY = range(4)  # rows of what is known of cohorts
_BASE, _FIRST, _LAST, _POOL = range(4)  # and of runs


@attrs.frozen(eq=False)
class Cohorts:
    """Draws from the pools of an order of samples, `batch_size` a step, as places in that order.

    Args:
        pools: which slice of the order is eligible from which step on.
        batch_size: draws a step.
        key: of the randomness.

    Examples:
        >>> pools = Pools(steps=[0, 3], starts=[0, 0], stops=[4, 10])
        >>> cohorts = Cohorts(pools, batch_size=4, key=rng.key(7))
        >>> [sorted(cohorts.draw(step).tolist()) for step in (0, 1, 2)]
        [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]
    """

    pools: Pools
    batch_size: int
    key: int
    _batch_key: int = attrs.field(init=False)
    _cohorts: Ints = attrs.field(init=False)
    """Where each starts in the order, its size, its phase U and its key, as int64. (4, cohorts)."""
    _steps: list[int] = attrs.field(init=False)
    """The first step of each pool."""
    _found: list[tuple[int, int, int, int, int]] = attrs.field(init=False)
    """Of each pool its first cohort and one past its last, the tick of the last draw before it, how many
    draws its runs had given by then, and its size. In plain numbers, which are faster to read."""
    _first_run: Ints = attrs.field(init=False)
    """The number of each cohort's first run, (cohorts + 1,); runs are by (cohort, first pool)."""
    _runs: Ints = attrs.field(init=False)
    """Their base B, the numbers of their first draw and of that after their last, their pool. (4, runs)."""

    def __attrs_post_init__(self) -> None:
        pools = self.pools
        edges = np.union1d(pools.starts, pools.stops)
        low, high = np.searchsorted(edges, pools.starts), np.searchsorted(edges, pools.stops)
        sizes = np.diff(edges)
        if sizes.max() > _MOST:
            raise ValueError(f"{sizes.max()} samples enter in one step; at most 2**31 can: use a finer pace")
        numbers = pools.steps * self.batch_size
        _check_epochs(float((np.diff(numbers) / (pools.stops - pools.starts)[:-1]).sum()))
        keys = rng.fold(self.key, np.arange(len(sizes)))
        phases = (keys >> np.uint64(64 - _BITS)).astype(np.int64) + 1
        cohorts = np.stack([edges[:-1], sizes, phases, keys.view(np.int64)])
        first_run, runs = _runs(low, high, len(sizes))
        ticks, drawn = np.zeros(len(low), np.int64), np.zeros(len(low), np.int64)
        _schedule(numbers, low, high, cohorts, first_run, runs, ticks, drawn)
        object.__setattr__(self, "_batch_key", rng.key(self.key, "batch"))
        object.__setattr__(self, "_cohorts", cohorts)
        found = (low, high, ticks, drawn, pools.stops - pools.starts)
        object.__setattr__(self, "_steps", pools.steps.tolist())
        object.__setattr__(self, "_found", list(zip(*(part.tolist() for part in found), strict=True)))
        object.__setattr__(self, "_first_run", first_run)
        object.__setattr__(self, "_runs", runs)
        self.draw(0)  # so that no step of the training waits for compiled code

    def draw(self, step: int, start: int = 0, stop: int | None = None) -> Ints:
        """The places drawn at `step` in a keyed random order, of these entries `start` to `stop`. int64."""
        slots = rng.shuffle(self.batch_size, self._batch_key, step, start=start, stop=stop)
        dealt = np.empty((4, len(slots)), np.int64)
        place = self._place(self._pool(step), step * self.batch_size)
        _deal(*place, self.batch_size, self._cohorts, self._first_run, self._runs, slots, dealt)
        starts, sizes, keys, numbers = dealt
        return starts + rng.draw_flat(numbers, sizes, keys.view(np.uint64))

    def exposures(self, start: int, stop: int, places: int) -> Ints:
        """How often each of so many places is drawn from step `start` up to `stop`. (places,) int64."""
        counts = np.zeros(places, np.int64)
        bounds = (self._totals(step) for step in (start, stop))
        for (low, size, _, key), first, last in zip(self._cohorts.T.tolist(), *bounds, strict=True):
            count_draws(int(first), int(last), key % 2**64, counts[low : low + size])
        return counts

    def _pool(self, step: int) -> int:
        return bisect_right(self._steps, step) - 1

    def _place(self, pool: int, number: int) -> tuple[int, int, int, int, int, int]:
        """Where draw `number` of a pool is to be searched: what the kernels begin with."""
        low, high, tick, drawn, size = self._found[pool]
        since = number - self._steps[pool] * self.batch_size
        _check_epochs((tick >> _BITS) + (since + self.batch_size) / size)
        return pool, low, high, tick, drawn, since

    def _totals(self, step: int) -> Ints:
        """How many draws each cohort has given before `step`, in the pool or not."""
        pool = max(0, self._pool(step - 1))
        totals = np.zeros(self._cohorts.shape[1], np.int64)
        place = self._place(pool, step * self.batch_size)
        _total(*place, self._cohorts, self._first_run, self._runs, totals)
        return totals


def count_draws(first: int, last: int, key: int, counts: Ints) -> None:
    """Add to `counts` how often each place is drawn by draws `first` up to `last` under a key.

    Examples:
        >>> counts = np.zeros(4, np.int64)
        >>> count_draws(2, 12, 7, counts)
        >>> int(counts.sum()), sorted(counts.tolist())
        (10, [2, 2, 3, 3])
    """
    size = len(counts)
    whole = range(-(-first // size), last // size)  # epochs in which each is drawn once
    counts += len(whole)
    edges = [(first, whole.start * size), (whole.stop * size, last)] if len(whole) else [(first, last)]
    for low, high in edges:
        counts += np.bincount(rng.draw(np.arange(low, high), size, key), minlength=size)


def _runs(low: Ints, high: Ints, cohorts: int) -> tuple[Ints, Ints]:
    """The number of each cohort's first run, and all runs with the pool that they begin with."""
    before, after = np.concatenate([[0], low[:-1]]), np.concatenate([[0], high[:-1]])
    left, right = (low, np.minimum(high, before)), (np.maximum(low, after), high)  # what is new at either end
    count = int(sum(np.maximum(stop - start, 0).sum() for start, stop in (left, right)))
    if count > _MOST_RUNS:
        raise ValueError(
            f"samples enter the pool in {count} groups; at most 2**22 can: let the window turn less often, "
            "or move in larger steps"
        )
    entering, pools = np.empty(count, np.int64), np.empty(count, np.int64)
    _list_entries(*left, *right, entering, pools)
    order = np.argsort(entering, kind="stable")
    runs = np.zeros((4, count), np.int64)
    runs[_POOL] = pools[order]
    return np.searchsorted(entering[order], np.arange(cohorts + 1)), runs


def _check_epochs(epochs: float) -> None:
    if epochs >= _EPOCHS:
        raise ValueError(
            f"about {epochs:.2g} passes over the pool; at most 2**30 can be: begin with a larger pool"
        )


@kernel
def _list_entries(low: Ints, below: Ints, above: Ints, high: Ints, entering: Ints, pools: Ints) -> None:
    place = 0
    for k in range(len(low)):
        for start, stop in ((low[k], below[k]), (above[k], high[k])):
            for c in range(start, stop):
                entering[place], pools[place] = c, k
                place += 1


@kernel
def _gather(pool: int, low: int, high: int, cohorts: Ints, first_run: Ints, runs: Ints) -> Ints:
    """Base, first draw, size, phase and number of the runs in a pool, by cohort. (5, high - low)."""
    held = np.empty((5, high - low), np.int64)
    for c in range(low, high):
        run = first_run[c + 1] - 1
        while runs[_POOL, run] > pool:
            run -= 1
        held[0, c - low], held[1, c - low] = runs[_BASE, run], runs[_FIRST, run]
        held[2, c - low], held[3, c - low] = cohorts[_SIZE, c], cohorts[_PHASE, c]
        held[4, c - low] = run
    return held


@kernel
def _all_drawn(tick: int, held: Ints) -> int:
    """How many draws the runs have given up to a tick."""
    total = 0
    for r in range(held.shape[1]):
        ticks, size = tick - held[0, r], held[2, r]
        drawn = (ticks >> _BITS) * size + (((ticks & _FRACTION) * size - held[3, r]) >> _BITS) + 1
        total += max(drawn - held[1, r], 0)
    return total


@kernel
def _count(number: int, tick: Any, guess: Any, held: Ints, counts: Ints) -> Any:
    """How many draws each cohort gave when its runs had given `number`; a tick close to that of the last.

    They had given fewer at `tick`, or as many. Exact, whatever way the search takes from its guess.
    """
    many = held.shape[1]
    pool = held[2].sum()
    low, high = np.int64(-1), tick + (((number + many) // pool + 2) << _BITS)
    tick = guess
    drawn = _all_drawn(tick, held)
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
        drawn = _all_drawn(tick, held)
    if drawn == number:
        low = tick
    missing = number
    for r in range(many):
        ticks, size = low - held[0, r], held[2, r]
        drawn = (ticks >> _BITS) * size + (((ticks & _FRACTION) * size - held[3, r]) >> _BITS) + 1
        counts[r] = max(drawn, held[1, r])
        missing -= counts[r] - held[1, r]
    for r in range(many if missing else 0):  # of draws in one tick, those of earlier cohorts come first
        ticks, size = high - held[0, r], held[2, r]
        drawn = (ticks >> _BITS) * size + (((ticks & _FRACTION) * size - held[3, r]) >> _BITS) + 1
        more = min(missing, max(drawn, held[1, r]) - counts[r])
        counts[r] += more
        missing -= more
    return tick


@kernel
def _deal(
    pool: int,
    low: int,
    high: int,
    tick: int,
    drawn: int,
    since: int,
    batch_size: int,
    cohorts: Ints,
    first_run: Ints,
    runs: Ints,
    slots: Ints,
    out: Ints,
) -> None:
    """Of which cohort (its start, size and key), and which of its draws, is in some slots of a batch."""
    held = _gather(pool, low, high, cohorts, first_run, runs)
    first, last = np.empty(high - low, np.int64), np.empty(high - low, np.int64)
    ticks = 2.0**_BITS / held[2].sum()  # from a draw to the next
    begin = _count(drawn + since, tick, tick + np.int64(since * ticks), held, first)
    _count(drawn + since + batch_size, tick, begin + np.int64(batch_size * ticks), held, last)
    of, numbers = np.empty(batch_size, np.int64), np.empty(batch_size, np.int64)
    place = 0
    for r in range(high - low):
        for number in range(first[r], last[r]):
            of[place], numbers[place] = low + r, number
            place += 1
    for i in range(len(slots)):
        c = of[slots[i]]
        out[0, i], out[1, i], out[2, i] = cohorts[_START, c], cohorts[_SIZE, c], cohorts[_KEY, c]
        out[3, i] = numbers[slots[i]]


@kernel
def _total(
    pool: int,
    low: int,
    high: int,
    tick: int,
    drawn: int,
    since: int,
    cohorts: Ints,
    first_run: Ints,
    runs: Ints,
    totals: Ints,
) -> None:
    """How many draws each cohort has given when `since` were given after a pool began."""
    for c in range(len(totals)):
        for run in range(first_run[c], first_run[c + 1]):
            if runs[_POOL, run] <= pool:
                totals[c] = runs[_LAST, run]
    held = _gather(pool, low, high, cohorts, first_run, runs)
    _count(drawn + since, tick, tick + np.int64(since * (2.0**_BITS / held[2].sum())), held, totals[low:high])


@kernel
def _schedule(
    numbers: Ints,
    low: Ints,
    high: Ints,
    cohorts: Ints,
    first_run: Ints,
    runs: Ints,
    ticks: Ints,
    drawn: Ints,
) -> None:
    """Pool after pool: when its runs begin, and with which draw. Fills `runs`, `ticks` and `drawn`."""
    left = np.zeros(runs.shape[1], np.int64)  # the tick at which a run ended
    for k in range(len(low)):
        if k:
            first = low[k - 1]
            held = _gather(k - 1, first, high[k - 1], cohorts, first_run, runs)
            counts = np.empty(held.shape[1], np.int64)
            since, tick = numbers[k] - numbers[k - 1], ticks[k - 1]
            guess = tick + np.int64(since * (2.0**_BITS / held[2].sum()))
            _count(drawn[k - 1] + since, tick, guess, held, counts)
            for r in range(len(counts)):
                if counts[r] > held[1, r]:
                    epoch, place = divmod(counts[r] - 1, held[2, r])
                    after = -((-((place << _BITS) + held[3, r])) // held[2, r])
                    tick = max(tick, held[0, r] + (epoch << _BITS) + after)
            ticks[k] = tick
            for r in range(len(counts)):
                if low[k] <= first + r < high[k]:
                    drawn[k] += counts[r] - held[1, r]
                else:
                    runs[_LAST, held[4, r]], left[held[4, r]] = counts[r], tick
        for c in range(low[k], high[k]):
            run = first_run[c + 1] - 1
            while runs[_POOL, run] > k:
                run -= 1
            if runs[_POOL, run] == k:
                runs[_BASE, run] = ticks[k]
                if run > first_run[c]:  # it was in the pool before
                    runs[_FIRST, run] = runs[_LAST, run - 1]
                    runs[_BASE, run] += runs[_BASE, run - 1] - left[run - 1] + 1
