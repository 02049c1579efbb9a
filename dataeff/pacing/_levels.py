"""A pace in few amounts."""

import itertools
from bisect import bisect_right
from collections.abc import Sequence

import attrs

from dataeff._check import is_whole
from dataeff.clock import Clock
from dataeff.pacing._derived import Derived
from dataeff.pacing._pace import amounts


@attrs.frozen
class levels(Derived):
    """`pace` in at most `k` amounts: a compiled model sees as many shapes, each for a long time.

    Each amount goes down to the highest level below it. The levels are amounts of the pace, its lowest and
    its end among them, chosen so that what the pace gives and the level does not, summed over steps, is about
    equal at all of them: no choice of k levels has a smaller largest sum. Of a pace longer than 2**20 as many
    places are looked at; where it dips below all of them in between, it is given the lowest level.

    Examples:
        >>> from dataeff.pacing import linear, table
        >>> pace = levels(linear(128, 2048, steps=1000, multiple=16), k=4)
        >>> sorted(set(table(pace)))
        [128, 768, 1408, 2048]
        >>> pace(0), pace(999), pace(1000)
        (128, 1408, 2048)
    """

    k: int = attrs.field(kw_only=True, validator=is_whole(2))
    _levels: list[float] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_levels", _levels(amounts(self.pace), self.k))

    def __call__(self, step: int | Clock) -> float:
        """The amount at `step`."""
        return self._levels[max(bisect_right(self._levels, self.pace(step)) - 1, 0)]


def _levels(given: Sequence[float], k: int) -> list[float]:
    """At most `k` of those given, the lowest and the last among them, by the least that a level may miss."""
    values = sorted(set(given))
    end = values.index(given[-1])
    counts = [0] * len(values)
    places = {value: i for i, value in enumerate(values)}
    for amount in given:
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
