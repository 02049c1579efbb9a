"""The shuffled sampler: plain epochs, for a baseline."""

from collections.abc import Sized
from typing import Any

import attrs
import numpy as np

from dataeff import rng
from dataeff._check import whole
from dataeff.samplers._cohorts import Cohorts
from dataeff.samplers._steps import Steps


def _count(samples: Any) -> int:
    return whole("samples", len(samples) if isinstance(samples, Sized) else samples, low=1)


@attrs.define
class shuffled(Steps):
    """Batches of sample ids from all samples in epochs, each in an order of its own.

    What a curriculum is compared with, by the same draws: it is the curriculum whose pool holds all samples
    from the first step on, and resumes as exactly. A batch at the end of an epoch goes on with the next.

    Args:
        samples: how many there are, or what has a length: a corpus, an index or a dataset.
        batch_size: samples in the global batch, over all ranks.
        seed: a whole number of at least 0.
        rank: of this process; by default torch.distributed's, else 0.
        world_size: the number of processes; by default torch.distributed's, else 1. Must divide `batch_size`.
        steps: how many batches there are; by default one epoch, rounded up.

    Raises:
        ValueError: no samples, more than 2**31, a batch size that the world size does not divide, or a rank
            outside the world.

    Examples:
        >>> sampler = shuffled(10, batch_size=5, seed=1234, steps=4)
        >>> sorted(sampler[0] + sampler[1]), sorted(sampler[2] + sampler[3]) == list(range(10))
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], True)
    """

    samples: int = attrs.field(converter=_count, on_setattr=attrs.setters.frozen)

    def _default_steps(self) -> int:
        return -(-self.samples // self.batch_size)

    @property
    def _samples(self) -> int:
        return self.samples

    def _make_cohorts(self) -> Cohorts:
        order = np.arange(self.samples, dtype=np.uint32)
        whole_pool = np.zeros(1, np.int64), np.array([self.samples])
        return Cohorts(order, *whole_pool, batch_size=self.batch_size, key=rng.key("shuffled", self.seed))
