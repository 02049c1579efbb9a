"""What all samplers share: batches by step, ranks, and a state of a few numbers."""

import abc
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, cast

import attrs
import numpy as np
from numpy.typing import NDArray

from dataeff._check import is_seed, is_whole, whole
from dataeff._distributed import rank_or_own, world_size_or_own
from dataeff.samplers._batch import Batch

_fixed = attrs.setters.frozen
Ints = NDArray[np.int64]


def _whole_or_none(value: Any) -> int:
    return cast(int, value if value is None else whole("steps", value, low=0))


@attrs.define
class Ranked(abc.ABC):
    """A sampler's batches by step, of which each rank takes its part.

    Examples:
        >>> from dataeff.samplers import curriculum
        >>> issubclass(curriculum, Ranked)
        True
    """

    _in_state: ClassVar[tuple[str, ...]] = ("step",)
    """Of `_place`."""
    rank: int = attrs.field(
        kw_only=True, default=None, converter=rank_or_own, validator=is_whole(0), on_setattr=_fixed
    )
    world_size: int = attrs.field(
        kw_only=True, default=None, converter=world_size_or_own, validator=is_whole(1), on_setattr=_fixed
    )
    step: int = attrs.field(default=0, init=False, repr=False, validator=is_whole(0))
    """The step that the next iteration begins with."""
    _ended: bool = attrs.field(default=False, init=False, repr=False, eq=False)
    """Whether an iteration came to the end, and no state was loaded since."""

    def __attrs_post_init__(self) -> None:
        if self.rank >= self.world_size:
            raise ValueError(f"rank is {self.rank}; expected less than world_size, {self.world_size}")
        self._prepare()

    @abc.abstractmethod
    def _prepare(self) -> None:
        """Check the rest, and make what batches are computed from."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """The number of batches from step 0."""

    @abc.abstractmethod
    def _batch(self, step: int, rank: int, world_size: int) -> Batch:
        """A rank's part of the batch of `step`, which is one of them."""

    @abc.abstractmethod
    def _exposures(self, start: int, stop: int) -> Ints:
        """How often each sample is drawn between two steps."""

    @abc.abstractmethod
    def _settings(self) -> dict[str, Any]:
        """What batches depend on, shortly: a state of others is refused."""

    def _range(self) -> tuple[int, int | None]:
        """The first step and the last that a state may be of; None where the last is not known."""
        return 0, len(self)

    def _place(self, step: int) -> dict[str, Any]:
        """What to go on from at `step`."""
        return {"step": step}

    def _resume(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.step = whole("step", state["step"], low=0, high=len(self))

    def state_dict(self, step: int | None = None) -> dict[str, Any]:
        """What a checkpoint needs, in plain numbers and strings; in tensors what is one number a sample.

        Args:
            step: the step to go on with, one more than the `.step` of the last batch trained on. By default
                that of the next batch, which a DataLoader with workers asks for ahead of training.

        Raises ValueError for a step that nothing goes on from.
        """
        low, high = self._range()
        reached = whole("step", self.step if step is None else step, low=low, high=high)
        return self._place(reached) | self._settings()

    def load_state_dict(self, state: Any) -> None:
        """Go on from `state`, on any number of ranks.

        Raises ValueError for a state of another seed, source or settings: its steps are other batches.
        """
        settings = self._settings()
        keys = [*self._in_state, *settings]
        if not isinstance(state, Mapping) or set(state) != set(keys):
            found, name = list(state) if isinstance(state, Mapping) else state, type(self).__name__
            raise ValueError(f"a {name} sampler's state has the keys {keys}; got {found}")
        for name, own in settings.items():
            if state[name] != own:
                raise ValueError(
                    f"the state is of {name} {state[name]}, this sampler of {own}; make it with that, or set "
                    "step to begin with other batches there"
                )
        self._resume(dict(state))
        self._ended = False

    def __getitem__(self, step: int) -> Batch:
        """This rank's ids of the batch of `step`. IndexError outside [0, len)."""
        self._check_step(step := whole("step", step))
        return self._batch(step, self.rank, self.world_size)

    def global_batch(self, step: int) -> Batch:
        """The ids of the batch of `step` over all ranks. IndexError outside [0, len)."""
        self._check_step(step := whole("step", step))
        return self._batch(step, 0, 1)

    def __iter__(self) -> Iterator[Batch]:
        """The batches from `self.step` on, moving it along, once: steps are those of the whole run.

        Where none is left, as in a second epoch, raises RuntimeError; it only warns if a run that was over
        is resumed.
        """
        if not self._has(self.step):
            said = (
                f"all {len(self)} steps are drawn already, so nothing is left to iterate over; set step = 0 "
                "to begin again, or make the sampler with more steps: they are those of the whole run"
            )
            if self._ended:
                raise RuntimeError(said)
            warnings.warn(said, stacklevel=2)
        while self._has(step := self.step):
            object.__setattr__(self, "step", step + 1)  # without the validator, which takes microseconds
            yield self._batch(step, self.rank, self.world_size)
        self._ended = True

    def exposures(self, start: int, stop: int) -> Ints:
        """How often each sample is drawn from step `start` up to `stop`, over all ranks. (samples,) int64.

        Raises ValueError unless 0 <= start <= stop <= len, and for steps that are drawn no more.
        """
        whole("start", start, low=0, high=stop)
        whole("stop", stop, low=start, high=len(self))
        return self._exposures(start, stop)

    def _has(self, step: int) -> bool:
        return 0 <= step < len(self)

    def _check_step(self, step: int) -> None:
        if not self._has(step):
            raise IndexError(f"step {step} of a sampler of {len(self)} steps")


def even(batch_size: int, world_size: int) -> None:
    """Raise ValueError unless every rank gets as many samples of a batch.

    Examples:
        >>> even(6, 3)
    """
    if batch_size % world_size:
        raise ValueError(
            f"batch_size {batch_size} is not divisible by world_size {world_size}; batch_size counts the "
            "samples of all ranks: choose a multiple"
        )


@attrs.define
class Steps(Ranked):
    """Batches of one size, `steps` of them; a final class says what is drawn for each.

    Examples:
        >>> from dataeff.samplers import curriculum, shuffled
        >>> all(issubclass(final, Steps) for final in (curriculum, shuffled))
        True
    """

    batch_size: int = attrs.field(kw_only=True, validator=is_whole(1), on_setattr=_fixed)
    seed: int = attrs.field(kw_only=True, validator=is_seed(), on_setattr=_fixed)
    steps: int = attrs.field(kw_only=True, default=None, converter=_whole_or_none)

    @abc.abstractmethod
    def _default_steps(self) -> int:
        """How many steps there are if nothing is said."""

    @abc.abstractmethod
    def _source(self) -> str:
        """What is drawn from, in a few words that differ if it does."""

    @abc.abstractmethod
    def _draw(self, step: int, start: int, stop: int) -> Ints:
        """The ids at `start` up to `stop` in the batch of `step`."""

    def _prepare(self) -> None:
        even(self.batch_size, self.world_size)
        if cast(Any, self.steps) is None:
            self.steps = self._default_steps()

    def __len__(self) -> int:
        """The number of batches from step 0."""
        return self.steps

    def _batch(self, step: int, rank: int, world_size: int) -> Batch:
        share = self.batch_size // world_size
        return Batch(self._draw(step, rank * share, (rank + 1) * share).tolist(), step=step)

    def _settings(self) -> dict[str, Any]:
        return {"seed": self.seed, "batch_size": self.batch_size, "source": self._source()}
