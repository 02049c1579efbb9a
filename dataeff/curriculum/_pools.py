"""Which slice of one order of samples is eligible at which step."""

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]


def _ints(array: ArrayLike) -> Ints:
    return np.asarray(array, np.int64)


@attrs.frozen(eq=False)
class Pools:
    """Slices of an order, each from a step on until the next: [starts[k], stops[k]) from steps[k] on.

    Three arrays, (pools,) int64; the steps rise from 0, and no slice is empty.

    Examples:
        >>> pools = Pools(steps=[0, 3, 4], starts=[0, 0, 2], stops=[4, 10, 12])
        >>> pools.at(2), pools.at(1000), len(pools)
        (slice(0, 4, None), slice(2, 12, None), 3)
    """

    steps: Ints = attrs.field(converter=_ints)
    starts: Ints = attrs.field(converter=_ints)
    stops: Ints = attrs.field(converter=_ints)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.steps)

    def at(self, step: int) -> slice:
        """The slice that is eligible at `step`."""
        k = int(np.searchsorted(self.steps, step, side="right")) - 1
        return slice(int(self.starts[k]), int(self.stops[k]))

    def ever(self) -> int:
        """How many places are in the pool at some step."""
        edges = np.union1d(self.starts, self.stops)
        open_at = np.zeros(len(edges), np.int64)
        np.add.at(open_at, np.searchsorted(edges, self.starts), 1)
        np.add.at(open_at, np.searchsorted(edges, self.stops), -1)
        return int(np.diff(edges)[np.cumsum(open_at)[:-1] > 0].sum())

    def gathered(self, most: int) -> "Pools":
        """At most so many pools, in which only samples are that are eligible here too.

        Where there are more, the pool changes on an even grid of steps only: 110,000 steps of growth, say,
        are gathered every 27. A sample enters a little late and leaves a little early, never the other way
        round, and the last pool is exact. Raises ValueError for a window that moves out of itself between two
        steps of the grid.

        Examples:
            >>> some = Pools(np.arange(10), np.zeros(10), np.arange(100, 110)).gathered(4)
            >>> some.steps.tolist(), some.stops.tolist()
            ([0, 3, 6, 9], [100, 103, 106, 109])
        """
        if len(self) <= most:
            return self
        last = int(self.steps[-1])
        every = -(-last // (most - 1))
        grid = np.append(np.arange(0, last, every), last)
        first = np.searchsorted(self.steps, grid, side="right") - 1
        until = np.append(np.searchsorted(self.steps, grid[1:], side="left"), len(self))
        bounds = np.stack([first, until], 1).reshape(-1)[:-1]
        starts, stops = (
            np.maximum.reduceat(self.starts, bounds)[::2],
            np.minimum.reduceat(self.stops, bounds)[::2],
        )
        if (empty := np.flatnonzero(starts >= stops)).size:
            raise ValueError(
                f"from step {grid[empty[0]]} to {grid[empty[0] + 1]} the window moves farther than it is "
                f"wide, and only {most} different ones can be kept; use a wider one, or paces of fewer steps"
            )
        return Pools(*_changes(grid, starts, stops))


def by_step(starts: Ints, stops: Ints) -> Pools:
    """From the slice of every step, 0, 1, ..., the last of which stays.

    Examples:
        >>> by_step(np.array([0, 0, 0, 1]), np.array([2, 2, 3, 3])).steps.tolist()
        [0, 2, 3]
    """
    return Pools(*_changes(np.arange(len(starts)), starts, stops))


def _changes(steps: Ints, starts: Ints, stops: Ints) -> tuple[Ints, Ints, Ints]:
    new = np.flatnonzero(np.append(True, (np.diff(starts) != 0) | (np.diff(stops) != 0)))
    return steps[new], starts[new], stops[new]
