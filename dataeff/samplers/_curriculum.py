"""The curriculum sampler: every batch a pure function of (seed, step)."""

from typing import Any

import attrs
import numpy as np

from dataeff import rng
from dataeff.curriculum import Curriculum
from dataeff.samplers._cohorts import Cohorts
from dataeff.samplers._steps import Ints, Steps

_POOLS = 4096  # different ones: what a step costs grows with their number


def _check_curriculum(_: object, __: object, value: Any) -> None:
    if not isinstance(value, Curriculum):
        raise ValueError(f"curriculum is {value!r}; expected a Curriculum, as Curriculum(index, metrics)")


@attrs.define
class curriculum(Steps):
    """Batches of sample ids from the pool of a curriculum; pass it as `batch_sampler=` to a DataLoader.

    Each step draws exactly `batch_size` of the eligible samples. Samples that entered together are drawn
    without replacement until all have been, then anew. The batch of a step depends on (seed, step) alone:
    `sampler[step]` computes any of them at once, on any machine, and a rank takes its slice of the global
    batch, so a run resumes on any number of ranks and loader workers with the same global batches.

    A pool that changes at more than 4,096 steps is let change every few steps instead: samples enter a little
    late, and leave a window a little early.

    Args:
        curriculum: which samples are eligible when.
        batch_size: samples in the global batch, over all ranks.
        seed: a whole number of at least 0.
        rank: of this process; by default torch.distributed's, else 0.
        world_size: the number of processes; by default torch.distributed's, else 1. Must divide `batch_size`.
        steps: how many batches there are; by default as many as the last pace takes to its end, or one pass
            over the pool where all paces are constant. Give more to go on with the whole pool.

    Raises:
        ValueError: a batch size that the world size does not divide, a rank outside the world, passes over
            the pool beyond 2**30, or a window that moves too fast or turns too often to be kept.

    Examples:
        >>> import tempfile
        >>> import dataeff as de
        >>> folder = tempfile.TemporaryDirectory()
        >>> index = de.index.from_values({"length": range(100)}, out=folder.name)
        >>> cl = de.Curriculum(index, {"length": de.paced(de.pacing.linear(20, 100, steps=50))})
        >>> sampler = curriculum(cl, batch_size=4, seed=1234)
        >>> len(sampler), max(sampler[0]) <= 20, sampler[7].step
        (50, True, 7)
        >>> halves = [curriculum(cl, batch_size=4, seed=1234, rank=rank, world_size=2)[7] for rank in (0, 1)]
        >>> halves[0] + halves[1] == sampler[7]
        True
        >>> folder.cleanup()
    """

    curriculum: Curriculum = attrs.field(validator=_check_curriculum, on_setattr=attrs.setters.frozen)
    _cohorts: Cohorts = attrs.field(init=False, repr=False, eq=False)

    def _default_steps(self) -> int:
        return self.curriculum.steps or -(-self.curriculum.pool_size(0) // self.batch_size)

    def _source(self) -> str:
        return f"curriculum {self.curriculum.fingerprint}"

    def _prepare(self) -> None:
        super()._prepare()
        pools, key = self.curriculum.pools.gathered(_POOLS), rng.key("curriculum", self.seed)
        self._cohorts = Cohorts(pools, batch_size=self.batch_size, key=key)

    def _draw(self, step: int, start: int, stop: int) -> Ints:
        return np.asarray(self.curriculum.order.take(self._cohorts.draw(step, start, stop)))

    def _exposures(self, start: int, stop: int) -> Ints:
        order = self.curriculum.order
        counts = np.zeros(len(self.curriculum.index), np.int64)
        counts[order] = self._cohorts.exposures(start, stop, len(order))
        return counts
