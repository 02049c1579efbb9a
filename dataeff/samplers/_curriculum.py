"""The curriculum sampler: every batch a pure function of (seed, step)."""

import warnings
from collections.abc import Iterator
from typing import Any

import attrs

from dataeff import rng
from dataeff._check import is_seed, is_whole, whole
from dataeff._distributed import rank_or_own, world_size_or_own
from dataeff.curriculum import Curriculum
from dataeff.samplers._cohorts import Cohorts, gathered


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


@attrs.define
class curriculum:
    """Batches of sample ids from the pool of a curriculum; pass it as `batch_sampler=` to a DataLoader.

    Each step draws exactly `batch_size` of the eligible samples. Samples that entered together are drawn
    without replacement until all have been, then anew. The batch of a step depends on (seed, step) alone:
    `sampler[step]` computes any of them at once, on any machine, and a rank takes its slice of the global
    batch, so a run resumes on any number of ranks and loader workers with the same global batches.

    A pool that grows at more than 4,096 steps is let grow every few steps instead, a little late.

    Args:
        curriculum: which samples are eligible when.
        batch_size: samples in the global batch, over all ranks.
        seed: a whole number of at least 0.
        rank: of this process; by default torch.distributed's, else 0.
        world_size: the number of processes; by default torch.distributed's, else 1. Must divide `batch_size`.
        steps: how many batches there are; by default as many as the last pace takes to its end, or one pass
            over the pool where all paces are constant. Give more to go on with the whole pool.

    Raises:
        ValueError: a batch size that the world size does not divide, a rank outside the world, a number of
            passes over the pool beyond 2**30.

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

    curriculum: Curriculum = attrs.field(on_setattr=attrs.setters.frozen)
    batch_size: int = attrs.field(kw_only=True, validator=is_whole(1), on_setattr=attrs.setters.frozen)
    seed: int = attrs.field(kw_only=True, validator=is_seed(), on_setattr=attrs.setters.frozen)
    rank: int = attrs.field(
        kw_only=True,
        default=None,
        converter=rank_or_own,
        validator=is_whole(0),
        on_setattr=attrs.setters.frozen,
    )
    world_size: int = attrs.field(
        kw_only=True,
        default=None,
        converter=world_size_or_own,
        validator=is_whole(1),
        on_setattr=attrs.setters.frozen,
    )
    steps: int = attrs.field(kw_only=True, validator=is_whole(0))
    step: int = attrs.field(default=0, init=False, repr=False, validator=is_whole(0))
    """The step that the next iteration begins with."""
    _cohorts: Cohorts = attrs.field(init=False, repr=False, eq=False)

    @steps.default
    def _default_steps(self) -> int:
        return self.curriculum.steps or -(-self.curriculum.pool_size(0) // self.batch_size)

    def __attrs_post_init__(self) -> None:
        if self.rank >= self.world_size:
            raise ValueError(f"rank is {self.rank}; expected less than world_size, {self.world_size}")
        if self.batch_size % self.world_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by world_size {self.world_size}; "
                "batch_size counts the samples of all ranks: choose a multiple"
            )
        entry_steps, ends = gathered(self.curriculum.entry_steps, self.curriculum.ends)
        key = rng.key("curriculum", self.seed)
        self._cohorts = Cohorts(self.curriculum.order, entry_steps, ends, batch_size=self.batch_size, key=key)

    def __len__(self) -> int:
        """The number of batches from step 0."""
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """This rank's ids of the batch of `step`. IndexError outside [0, len)."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} of a sampler of {self.steps} steps")
        share = self.batch_size // self.world_size
        ids = self._cohorts.draw(step)[self.rank * share : (self.rank + 1) * share]
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
            raise ValueError(f"a curriculum sampler's state has the keys {list(own)}; got {list(state)}")
        for name in ("seed", "batch_size"):
            if state[name] != own[name]:
                raise ValueError(
                    f"the state is of {name} {state[name]}, this sampler of {own[name]}; make it with that"
                )
        self.step = whole("step", state["step"], low=0)
