"""The shuffled sampler: plain epochs, for a baseline."""

from collections.abc import Sized
from typing import Any

import attrs

from dataeff import rng
from dataeff._check import whole
from dataeff.curriculum import Pools
from dataeff.samplers._cohorts import Cohorts
from dataeff.samplers._steps import Ints, Steps


def count(samples: Any) -> int:
    """How many samples: a number, or what has a length.

    Examples:
        >>> count(["a", "b"]), count(3)
        (2, 3)
    """
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
        steps: how many batches there are in the whole run; by default one epoch, rounded up.

    Raises:
        ValueError: no samples, more than 2**31, a batch size that the world size does not divide, or a rank
            outside the world.

    Examples:
        >>> sampler = shuffled(10, batch_size=5, seed=1234, steps=4)
        >>> sorted(sampler[0] + sampler[1]), sorted(sampler[2] + sampler[3]) == list(range(10))
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], True)
    """

    samples: int = attrs.field(converter=count, on_setattr=attrs.setters.frozen)
    _cohorts: Cohorts = attrs.field(init=False, repr=False, eq=False)

    def _default_steps(self) -> int:
        return -(-self.samples // self.batch_size)

    def _source(self) -> str:
        return f"{self.samples} samples"

    def _prepare(self) -> None:
        super()._prepare()
        pools, key = Pools([0], [0], [self.samples]), rng.key("shuffled", self.seed)
        self._cohorts = Cohorts(pools, batch_size=self.batch_size, key=key)

    def _draw(self, step: int, start: int, stop: int) -> Ints:
        return self._cohorts.draw(step, start, stop)

    def _exposures(self, start: int, stop: int) -> Ints:
        return self._cohorts.exposures(start, stop, self.samples)
