"""Curriculum: which samples are eligible at each step."""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from dataeff import config as configs
from dataeff._check import whole
from dataeff.curriculum._config import metrics_of, said
from dataeff.curriculum._merged import merged
from dataeff.curriculum._paced import paced, reach, slices, window
from dataeff.curriculum._pools import Pools, by_step
from dataeff.index import Index


def _as_dict(metrics: Any) -> dict[str, paced | window]:
    if not isinstance(metrics, Mapping):
        raise ValueError(f"metrics is {metrics!r}; expected a mapping, as {{'length': paced(pace)}}")
    for name, how in metrics.items():
        if not isinstance(how, paced | window):
            raise ValueError(f"{name!r} has {how!r}; expected paced(pace), or paced(pace, by='percentile')")
    return dict(metrics)


def _prefixes(stops: NDArray[np.int64]) -> Pools:
    """From how many are eligible at every step, the easiest first."""
    return by_step(np.zeros_like(stops), stops)


def _check_index(_: object, __: object, value: Any) -> None:
    if not isinstance(value, Index):
        raise ValueError(f"index is {value!r}; expected an Index, as dataeff.index.open(folder)")


@attrs.frozen
class Curriculum:
    """Which samples of an index are eligible at each step: those within the pace of every metric.

    Paces must not fall, so a sample that has entered stays, and any number of metrics come down to one
    order: a sample enters at the first step at which it is within all of them, and the pool at a step is a
    prefix of `order`. One metric alone may have a `window` instead, whose bounds rise and fall: then the
    pool is a slice of that metric's order.

    The order of several metrics over 2**20 samples and more is kept in the index's folder, under `orders`, so
    that it is made once.

    Args:
        index: the difficulties.
        metrics: metric name to `paced`, or one name to `window`.

    Raises:
        ValueError: an unknown metric, a pace that falls (the message gives the step), a percentile outside
            (0, 100], a pool that is empty at step 0, a window that is empty at any, or one beside others.

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

    index: Index = attrs.field(validator=_check_index)
    metrics: Mapping[str, paced | window] = attrs.field(converter=_as_dict)
    order: NDArray[Any] = attrs.field(init=False, repr=False, eq=False)
    """Ids of samples. Of one metric its own order, memory-mapped; of several all that ever enter, by (entry
    step, id). uint32 while they fit, else uint64."""
    pools: Pools = attrs.field(init=False, repr=False, eq=False)
    """Which slice of `order` is eligible from which step on."""

    def __attrs_post_init__(self) -> None:
        if not self.metrics:
            raise ValueError("metrics is empty; expected at least one, as in {'length': paced(pace)}")
        order, pools = self._made()
        object.__setattr__(self, "order", order)
        object.__setattr__(self, "pools", pools)

    def _made(self) -> tuple[NDArray[Any], Pools]:
        name, how = next(iter(self.metrics.items()))
        if isinstance(how, window) and len(self.metrics) == 1:
            return self.index.order(name), by_step(*slices(self.index, name, how))
        monotone = {name: how for name, how in self.metrics.items() if isinstance(how, paced)}
        if len(monotone) < len(self.metrics):
            raise ValueError(
                f"a window stands beside other metrics ({', '.join(map(repr, self.metrics))}), so the pools "
                "would not be slices of one order; make one metric of them first (dataeff.index.rank, "
                "weighted_sum or lexicographic, and Index.add), and give that the window"
            )
        if len(monotone) == 1:
            order, stops = self.index.order(name), reach(self.index, name, monotone[name])
            if stops[0]:
                return order, _prefixes(stops)
        else:
            order, pools = merged(self.index, monotone)
            if len(pools) and pools.steps[0] == 0:
                return order, pools
        raise ValueError(f"no sample is eligible at step 0: {self._first_amounts(monotone)}; begin with more")

    @property
    def steps(self) -> int:
        """The step at which the last pace ends."""
        return max(how.steps for how in self.metrics.values())

    @property
    def never(self) -> int:
        """How many samples never enter, because no pace by value, or no window, reaches them."""
        return len(self.index) - self.pools.ever()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Identifies which samples are eligible when: another one if that changes. 16 hex digits."""
        held, pools = self.index.checksums(), [self.pools]
        parts = [self.index.fingerprint, *(held[name]["order"] for name in sorted(self.metrics))]
        if len(self.metrics) > 1:  # how many are eligible does not tell which
            for name, how in sorted(self.metrics.items()):
                if isinstance(how, paced):  # a window stands alone
                    pools.append(_prefixes(reach(self.index, name, how)))
        arrays = [array.tobytes() for own in pools for array in attrs.astuple(own)]
        content = b"".join([json.dumps(parts).encode(), *arrays])
        return hashlib.blake2b(content, digest_size=8).hexdigest()

    def pool(self, step: int) -> NDArray[Any]:
        """Ids of the samples eligible at `step`, a slice of `order`."""
        return self.order[self.pools.at(whole("step", step, low=0))]

    def pool_size(self, step: int) -> int:
        """How many samples are eligible at `step`."""
        return len(self.pool(step))

    @classmethod
    def from_config(cls, config: str | Path | Mapping[str, Any], index: Index) -> "Curriculum":
        """The curriculum that a TOML or JSON file, or a mapping like one, says.

        Its table `curriculum` has a metric for each key, with `pace`, or `low` and `high` of a window, and
        `by`. A pace is a number, or `name` (of `dataeff plugins`) and its parameters. Other tables are left
        alone.

        Raises:
            ValueError: a key that is not known, a pace that cannot be made (the message says which and why),
                or what the curriculum itself refuses.

        Examples:
            >>> import tempfile
            >>> from dataeff import index
            >>> config = '''
            ... [curriculum.length]
            ... by = "value"
            ... pace = { name = "linear", start = 20, end = 40, steps = 10 }
            ... '''
            >>> with tempfile.TemporaryDirectory() as out:
            ...     _ = (Path(out) / "run.toml").write_text(config)
            ...     difficulties = index.from_values({"length": [30, 10, 50]}, out=f"{out}/idx")
            ...     Curriculum.from_config(f"{out}/run.toml", difficulties).metrics["length"].pace
            linear(start=20, end=40, steps=10, multiple=None, on='steps')
        """
        return cls(index, metrics_of(configs.read(config)))

    def to_config(self) -> dict[str, Any]:
        """What `from_config` makes the same curriculum from: tables of plain numbers and strings.

        Raises ValueError for a pace that has no name, as `custom` with a function of one's own.
        """
        return {"curriculum": {name: said(how) for name, how in self.metrics.items()}}

    def _first_amounts(self, metrics: Mapping[str, paced]) -> str:
        told = []
        for name, how in metrics.items():
            easiest = self.index.values(name)[self.index.order(name)[0]]
            told.append(f"{name!r} reaches {how.by} {how.pace(0)}, and its easiest sample has {easiest}")
        return "; ".join(told)

    def __reduce__(self) -> tuple[Callable[..., "Curriculum"], tuple[Any, ...]]:
        return _unpickled, (self.index, self.metrics, _checksums(self.index, self.metrics))


def _checksums(index: Index, metrics: Iterable[str]) -> dict[str, dict[str, str] | None]:
    held = index.checksums()
    return {name: held.get(name) for name in metrics}


def _unpickled(
    index: Index, metrics: Mapping[str, paced | window], checksums: dict[str, dict[str, str] | None]
) -> Curriculum:
    found = _checksums(index, metrics)
    if others := ", ".join(repr(name) for name in metrics if found[name] != checksums[name]):
        raise ValueError(
            f"{index.path} holds other values of {others} than when this was pickled; make it again"
        )
    return Curriculum(index, metrics)
