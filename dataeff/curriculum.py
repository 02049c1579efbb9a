"""Curriculum: at which step each sample becomes eligible for training."""

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from dataeff._check import whole
from dataeff._kernel import kernel
from dataeff.index import Index
from dataeff.pacing import Pace, as_pace, table

Ints = NDArray[np.int64]


@attrs.frozen
class paced:
    """How far along a metric the pool reaches: up to `pace(step)`, by "value" or by "percentile".

    By value, a sample is within the pace if its difficulty is at most the amount. By percentile, in (0, 100],
    the easiest ceil(amount / 100 * samples) samples are, in the order of the index.

    Examples:
        >>> from dataeff import pacing
        >>> paced(pacing.root(1, 100, steps=1000), by="percentile").by
        'percentile'
    """

    pace: Pace = attrs.field(converter=as_pace)
    by: str = attrs.field(default="value", kw_only=True, validator=attrs.validators.instance_of(str))

    @by.validator
    def _check_by(self, _: object, value: str) -> None:
        if value not in ("value", "percentile"):
            raise ValueError(f"by is {value!r}; expected 'value' or 'percentile'")


def _as_dict(metrics: Mapping[str, paced]) -> dict[str, paced]:
    for name, how in metrics.items():
        if not isinstance(how, paced):
            raise ValueError(f"{name!r} has {how!r}; expected paced(pace), or paced(pace, by='percentile')")
    return dict(metrics)


@attrs.frozen
class Curriculum:
    """Which samples of an index are eligible at each step: those within the pace of every metric.

    Paces must not fall, so a sample that has entered stays, and any number of metrics come down to one
    order: a sample enters at the first step at which it is within all of them, and the pool at a step is a
    prefix of `order`.

    Args:
        index: the difficulties.
        metrics: metric name to `paced`.

    Raises:
        ValueError: an unknown metric, a pace that falls (the message gives the step), a percentile outside
            (0, 100], or a pool that is empty at step 0.

    Examples:
        >>> import tempfile
        >>> from dataeff import index, pacing
        >>> folder = tempfile.TemporaryDirectory()
        >>> difficulties = index.from_values({"length": [30, 10, 50, 20, 40]}, out=folder.name)
        >>> curriculum = Curriculum(difficulties, {"length": paced(pacing.linear(20, 40, steps=10))})
        >>> curriculum.pool(0).tolist(), curriculum.pool(5).tolist(), curriculum.pool(10).tolist()
        ([1, 3], [1, 3, 0], [1, 3, 0, 4])
        >>> curriculum.steps, curriculum.never
        (10, 1)
        >>> folder.cleanup()
    """

    index: Index
    metrics: Mapping[str, paced] = attrs.field(converter=_as_dict)
    order: NDArray[Any] = attrs.field(init=False, repr=False, eq=False)
    """Ids of all samples that ever enter, by (entry step, id). uint32 while they fit, else uint64."""
    entry_steps: NDArray[np.int64] = attrs.field(init=False, repr=False, eq=False)
    """The steps at which samples enter, rising. (cohorts,) int64."""
    ends: NDArray[np.int64] = attrs.field(init=False, repr=False, eq=False)
    """The size of the pool after each of `entry_steps`. (cohorts,) int64."""

    def __attrs_post_init__(self) -> None:
        if not self.metrics:
            raise ValueError("metrics is empty; expected at least one, as in {'length': paced(pace)}")
        last = self.steps
        entry = np.zeros(len(self.index), np.int64)
        for name, how in self.metrics.items():
            _enter(self.index.order(name), _reach(self.index, name, how), last + 1, entry)
        counts = np.bincount(entry, minlength=last + 2)
        if not counts[0]:
            raise ValueError(f"no sample is eligible at step 0: {self._first_amounts()}; begin with more")
        starts = np.cumsum(counts) - counts
        order = np.empty(len(entry), np.uint32 if len(entry) < 2**32 else np.uint64)
        _counting_sort(entry, starts, order)
        object.__setattr__(self, "entry_steps", np.flatnonzero(counts[:-1]))
        object.__setattr__(self, "ends", np.cumsum(counts)[self.entry_steps])
        object.__setattr__(self, "order", order[: self.ends[-1]])

    @property
    def steps(self) -> int:
        """The step at which the last pace ends."""
        return max(how.pace.steps for how in self.metrics.values())

    @property
    def never(self) -> int:
        """How many samples never enter, because a pace by value ends below their difficulty."""
        return len(self.index) - len(self.order)

    def pool(self, step: int) -> NDArray[Any]:
        """Ids of the samples eligible at `step`, by (entry step, id)."""
        return self.order[: self.pool_size(step)]

    def pool_size(self, step: int) -> int:
        """How many samples are eligible at `step`."""
        entered = np.searchsorted(self.entry_steps, whole("step", step, low=0), side="right")
        return int(self.ends[entered - 1])

    def _first_amounts(self) -> str:
        said = []
        for name, how in self.metrics.items():
            easiest = self.index.values(name)[self.index.order(name)[0]]
            said.append(f"{name!r} reaches {how.by} {how.pace(0)}, and its easiest sample has {easiest}")
        return "; ".join(said)

    def __reduce__(self) -> tuple[type["Curriculum"], tuple[Index, Mapping[str, paced]]]:
        return Curriculum, (self.index, self.metrics)


def _reach(index: Index, name: str, how: paced) -> NDArray[np.int64]:
    """How many samples, from the easiest, are within one metric's pace at each of its steps."""
    order, amounts = index.order(name), np.array(table(how.pace))
    falls = np.flatnonzero(np.diff(amounts) < 0)
    if falls.size:
        step = int(falls[0])
        raise ValueError(
            f"the pace of {name!r} falls from {amounts[step]} at step {step} to {amounts[step + 1]} at step "
            f"{step + 1}: samples would leave the pool; expected one that never falls or ends below its start"
        )
    if how.by == "value":
        sorter = order.view(np.int64) if order.dtype == np.uint64 else order  # all that searchsorted takes
        return np.searchsorted(index.values(name), amounts, side="right", sorter=sorter)
    if not 0 < amounts[0] <= amounts[-1] <= 100:
        raise ValueError(
            f"the pace of {name!r} goes from {amounts[0]} to {amounts[-1]}; percentiles are in (0, 100]"
        )
    return np.ceil(len(order) * amounts / 100).astype(np.int64)


@kernel
def _enter(order: NDArray[Any], reach: Ints, never: int, entry: Ints) -> None:
    """Raise each sample's entry step to the first at which `reach` includes its rank."""
    step = 0
    for rank in range(len(order)):
        while step < len(reach) and reach[step] <= rank:
            step += 1
        sample = order[rank]
        entry[sample] = max(entry[sample], step if step < len(reach) else never)


@kernel
def _counting_sort(entry: Ints, starts: Ints, order: NDArray[Any]) -> None:
    """Sample ids by (entry step, id); `starts` is used up."""
    for sample in range(len(entry)):
        order[starts[entry[sample]]] = sample
        starts[entry[sample]] += 1
