"""What all samplers of keyed draws share: steps, ranks and a state of three numbers."""

import abc
import warnings
from collections.abc import Iterator
from typing import Any, cast

import attrs
import numpy as np
from numpy.typing import NDArray

from dataeff._check import is_seed, is_whole, whole
from dataeff._distributed import rank_or_own, world_size_or_own
from dataeff.samplers._cohorts import Cohorts

_fixed = attrs.setters.frozen


class Batch(list[int]):
    """The sample ids of one batch, as a list that knows its step in `.step`.

    Examples:
        >>> batch = Batch([3, 1, 2], step=7)
        >>> batch, batch.step
        ([3, 1, 2], 7)
    """

    step: int

    def __init__(self, ids: Any, *, step: int) -> None:
        super().__init__(ids)
        self.step = step


def _whole_or_none(value: Any) -> int:
    return cast(int, value if value is None else whole("steps", value, low=0))


@attrs.define
class Steps(abc.ABC):
    """Batches by step; a final class says how many steps there are by default, and from which cohorts.

    Examples:
        >>> from dataeff.samplers import curriculum, shuffled
        >>> issubclass(curriculum, Steps) and issubclass(shuffled, Steps)
        True
    """

    batch_size: int = attrs.field(kw_only=True, validator=is_whole(1), on_setattr=_fixed)
    seed: int = attrs.field(kw_only=True, validator=is_seed(), on_setattr=_fixed)
    rank: int = attrs.field(
        kw_only=True, default=None, converter=rank_or_own, validator=is_whole(0), on_setattr=_fixed
    )
    world_size: int = attrs.field(
        kw_only=True, default=None, converter=world_size_or_own, validator=is_whole(1), on_setattr=_fixed
    )
    steps: int = attrs.field(kw_only=True, default=None, converter=_whole_or_none)
    step: int = attrs.field(default=0, init=False, repr=False, validator=is_whole(0))
    """The step that the next iteration begins with."""
    _cohorts: Cohorts = attrs.field(init=False, repr=False, eq=False)

    @abc.abstractmethod
    def _default_steps(self) -> int:
        """How many steps there are if nothing is said."""

    @abc.abstractmethod
    def _make_cohorts(self) -> Cohorts:
        """What is drawn from."""

    @property
    @abc.abstractmethod
    def _samples(self) -> int:
        """How many samples there are, drawn or not."""

    def __attrs_post_init__(self) -> None:
        if self.rank >= self.world_size:
            raise ValueError(f"rank is {self.rank}; expected less than world_size, {self.world_size}")
        if self.batch_size % self.world_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by world_size {self.world_size}; "
                "batch_size counts the samples of all ranks: choose a multiple"
            )
        if cast(Any, self.steps) is None:
            self.steps = self._default_steps()
        self._cohorts = self._make_cohorts()

    def __len__(self) -> int:
        """The number of batches from step 0."""
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """This rank's ids of the batch of `step`. IndexError outside [0, len)."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} of a sampler of {self.steps} steps")
        share = self.batch_size // self.world_size
        ids = self._cohorts.draw(step, self.rank * share, (self.rank + 1) * share)
        return Batch(ids.tolist(), step=step)

    def __iter__(self) -> Iterator[Batch]:
        """The batches from `self.step` on, moving it along. Warns if none is left."""
        if self.step >= self.steps:
            warnings.warn(
                f"all {self.steps} steps are drawn already, so nothing is left to iterate over; "
                "set step = 0 to begin again, or make the sampler with more steps=",
                stacklevel=2,
            )
        while self.step < self.steps:
            self.step += 1
            yield self[self.step - 1]

    def exposures(self, start: int, stop: int) -> NDArray[np.int64]:
        """How often each sample is drawn from step `start` up to `stop`, over all ranks. (samples,) int64.

        Computed without the batches between. Raises ValueError unless 0 <= start <= stop <= len.
        """
        whole("start", start, low=0, high=stop)
        whole("stop", stop, low=start, high=self.steps)
        return self._cohorts.exposures(start, stop, self._samples)

    def state_dict(self, step: int | None = None) -> dict[str, int]:
        """What a checkpoint needs, in plain numbers.

        Args:
            step: the step to go on with, one more than the `.step` of the last batch trained on. By default
                that of the next batch, which a DataLoader with workers asks for ahead of training.
        """
        reached = whole("step", self.step if step is None else step, low=0)
        return {"step": reached, "seed": self.seed, "batch_size": self.batch_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`, on any number of ranks.

        Raises ValueError for a state of another seed or batch size: its steps are other batches.
        """
        own = self.state_dict()
        if set(state) != set(own):
            raise ValueError(
                f"a {type(self).__name__} sampler's state has the keys {list(own)}; got {list(state)}"
            )
        for name in ("seed", "batch_size"):
            if state[name] != own[name]:
                raise ValueError(
                    f"the state is of {name} {state[name]}, this sampler of {own[name]}; make it with that"
                )
        self.step = whole("step", state["step"], low=0)
