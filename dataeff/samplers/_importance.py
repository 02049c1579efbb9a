"""The importance sampler: fewer of the samples that are learned already, at the same expected gradient."""

from typing import Any, ClassVar

import attrs
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import distributed

from dataeff import rng
from dataeff._check import is_real, is_seed, is_whole, whole
from dataeff.samplers._batch import Batch
from dataeff.samplers._shuffled import count
from dataeff.samplers._steps import Ints, Ranked, even

_fixed = attrs.setters.frozen
Scores = NDArray[np.float32]


class WeightedBatch(Batch):
    """The sample ids of a rank's part of a batch, each with the weight of its loss in `.weights`.

    Examples:
        >>> batch = WeightedBatch([3, 1], step=7, weights=[1.0, 2.0])
        >>> batch, batch.step, batch.weights
        ([3, 1], 7, [1.0, 2.0])
    """

    weights: list[float]

    def __init__(self, ids: Any, *, step: int, weights: list[float]) -> None:
        super().__init__(ids, step=step)
        self.weights = weights


def _check_share(_: object, field: "attrs.Attribute[Any]", value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{field.name} is {value!r}; expected a share, at least 0 and below 1")


@attrs.define
class importance(Ranked):
    """Epochs that leave out some of the samples with a low loss, and weigh the others of these up for it.

    Of the samples whose last recorded loss is below the mean, a random share `prune` is left out of an
    epoch, and the loss of those that stay is multiplied by how many there were for each of them, so the
    expected gradient is that of all samples. Samples without a recorded loss stay in. The last epochs, from
    `anneal` of all on, leave out none. Each iteration is one epoch; record losses as training goes:

        for epoch in range(sampler.epochs):
            for batch in loader:            # batch_sampler=sampler; the collate function sees samples.batch
                losses = ...                # one a sample
                (losses * weights).mean().backward()
                sampler.update(ids, losses)

    What an epoch holds depends on the losses recorded before it, so a step can be computed alone only within
    the current epoch. The last batch of an epoch is filled up with samples of weight 0.

    Source: InfoBatch (Qin et al., ICLR 2024, arXiv 2303.04947), with the number of pruned samples fixed where
    theirs is random.

    Args:
        samples: how many there are, or what has a length: a corpus, an index or a dataset.
        batch_size: samples in the global batch, over all ranks.
        seed: a whole number of at least 0.
        epochs: how many there are.
        prune: the share of samples below the mean that is left out, from 0 to below 1.
        anneal: the share of epochs after which none is left out.
        momentum: of the recorded losses: 0 keeps the last one, otherwise a running mean of this decay.
        rank: of this process; by default torch.distributed's, else 0.
        world_size: the number of processes; by default torch.distributed's, else 1. Must divide `batch_size`.

    Raises:
        ValueError: a share outside [0, 1), no samples, a batch size that the world size does not divide, or a
            rank outside the world.

    Examples:
        >>> sampler = importance(8, batch_size=2, seed=1, epochs=3, prune=0.5)
        >>> for batch in sampler:
        ...     sampler.update(batch, [0.1 if i < 4 else 5.0 for i in batch])
        >>> second = list(sampler)  # without half of the four easy ones
        >>> len(second), sorted({weight for batch in second for weight in batch.weights})
        (3, [1.0, 2.0])
    """

    _in_state: ClassVar[tuple[str, ...]] = ("step", "epoch", "first", "scores", "before")
    samples: int = attrs.field(converter=count, on_setattr=_fixed)
    batch_size: int = attrs.field(kw_only=True, validator=is_whole(1), on_setattr=_fixed)
    seed: int = attrs.field(kw_only=True, validator=is_seed(), on_setattr=_fixed)
    epochs: int = attrs.field(kw_only=True, validator=is_whole(1), on_setattr=_fixed)
    prune: float = attrs.field(
        kw_only=True, default=0.5, validator=[is_real(), _check_share], on_setattr=_fixed
    )
    anneal: float = attrs.field(kw_only=True, default=0.875, validator=is_real(0), on_setattr=_fixed)
    momentum: float = attrs.field(
        kw_only=True, default=0.0, validator=[is_real(), _check_share], on_setattr=_fixed
    )
    epoch: int = attrs.field(init=False, default=0, repr=False, eq=False, on_setattr=_fixed)
    """The epoch that `step` is in, from 0."""
    scores: Scores = attrs.field(init=False, repr=False, eq=False, on_setattr=_fixed)
    """The recorded loss of each sample, nan where there is none. (samples,) float32."""
    _first: int = attrs.field(init=False, default=0, repr=False, eq=False)
    _before: Scores = attrs.field(init=False, repr=False, eq=False)
    _ids: Ints = attrs.field(init=False, repr=False, eq=False)
    _weights: Scores = attrs.field(init=False, repr=False, eq=False)

    def _prepare(self) -> None:
        even(self.batch_size, self.world_size)
        object.__setattr__(self, "scores", np.full(self.samples, np.nan, np.float32))
        self._begin(0, 0, self.scores.copy())

    def _begin(self, epoch: int, first: int, before: Scores) -> None:
        """Choose the samples of an epoch that begins at step `first`, by the scores of then."""
        object.__setattr__(self, "epoch", epoch)
        self._first, self._before = first, before
        whole_epoch = epoch >= self.anneal * self.epochs
        key = rng.key("importance", self.seed, epoch)
        ids, weights = chosen(before, 0.0 if whole_epoch else self.prune, key=key)
        order = rng.shuffle(len(ids), key, 1)
        self._ids, self._weights = ids[order], weights[order]

    def __len__(self) -> int:
        """The number of batches from step 0 to the end of the current epoch."""
        return self._first - (-len(self._ids) // self.batch_size)

    def __iter__(self) -> Any:
        """The rest of the current epoch; of the next one if nothing is left of it."""
        if self.step == len(self) and self.epoch + 1 < self.epochs:
            self._begin(self.epoch + 1, self.step, self.scores.copy())
        return super().__iter__()

    def _has(self, step: int) -> bool:
        return self._first <= step < len(self)

    def _check_step(self, step: int) -> None:
        self._check_first(step)
        super()._check_step(step)

    def _check_first(self, step: int, error: type[Exception] = IndexError) -> None:
        if 0 <= step < self._first:
            raise error(f"step {step} was in an epoch that is over; the current one begins at {self._first}")

    def _batch(self, step: int, rank: int, world_size: int) -> WeightedBatch:
        share = self.batch_size // world_size
        place = (step - self._first) * self.batch_size + rank * share + np.arange(share)
        at = place % len(self._ids)
        weights = np.where(place < len(self._ids), self._weights[at], 0)
        return WeightedBatch(self._ids[at].tolist(), step=step, weights=weights.tolist())

    def _exposures(self, start: int, stop: int) -> Ints:
        counts = np.zeros(self.samples, np.int64)
        if start < stop:
            self._check_first(start, ValueError)
        for step in range(start, stop):
            batch = self._batch(step, 0, 1)
            np.add.at(counts, [i for i, weight in zip(batch, batch.weights, strict=True) if weight], 1)
        return counts

    def update(self, ids: ArrayLike, losses: ArrayLike) -> None:
        """Record the losses of this rank's samples; with torch.distributed all ranks must call it together.

        Args:
            ids: of the samples, (n,), whole numbers: the batch, or a tensor of them. A rank may have fewer
                than others, or none.
            losses: one for each, (n,), finite as float32; a tensor on the device that ranks communicate from.
                Where an id stands twice, the last one counts.

        Raises:
            ValueError: an id outside the corpus, another number of losses, or a loss that is not finite. On
                all ranks then, and none has recorded anything.
        """
        some, values = torch.as_tensor(ids).detach(), torch.as_tensor(losses).detach()
        wrong = self._wrong(some, values)
        for of_rank, theirs in _of_all(some, values, wrong):
            old = np.where(np.isnan(self.scores[of_rank]), theirs, self.scores[of_rank])
            self.scores[of_rank] = self.momentum * old + (1 - self.momentum) * theirs

    def _wrong(self, ids: torch.Tensor, losses: torch.Tensor) -> str:
        """What cannot be recorded, "" where all can."""
        if ids.dim() != 1 or (ids.is_floating_point() and len(ids)) or ids.shape != losses.shape:
            return (
                f"ids have shape {tuple(ids.shape)} and dtype {ids.dtype}, losses {tuple(losses.shape)}; "
                "expected whole numbers, and one loss for each"
            )
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self.samples:
            return f"ids go from {ids.min()} to {ids.max()}; expected 0 to {self.samples - 1}"
        finite = losses.float().isfinite()
        if not bool(finite.all()):
            at = int((~finite).nonzero()[0])
            return f"the loss of sample {int(ids[at])} is {losses[at].item()}; leave both out of the update"
        return ""

    def _settings(self) -> dict[str, Any]:
        source = f"{self.samples} samples, prune={self.prune}, anneal={self.anneal}, epochs={self.epochs}"
        return {"seed": self.seed, "batch_size": self.batch_size, "source": source}

    def _range(self) -> tuple[int, int | None]:
        return self._first, len(self)

    def _place(self, step: int) -> dict[str, Any]:
        scores, before = torch.from_numpy(self.scores.copy()), torch.from_numpy(self._before.copy())
        return {"step": step, "epoch": self.epoch, "first": self._first, "scores": scores, "before": before}

    def _resume(self, state: dict[str, Any]) -> None:
        held = {
            name: torch.as_tensor(state[name]).float().numpy(force=True).copy()
            for name in ("scores", "before")
        }
        for name, array in held.items():
            if array.shape != (self.samples,):
                raise ValueError(f"the state has {name} of shape {array.shape}; expected ({self.samples},)")
        epoch = whole("epoch", state["epoch"], low=0, high=self.epochs - 1)
        first = whole("first", state["first"], low=0, high=whole("step", state["step"]))
        own = self.epoch, self._first, self._before
        self._begin(epoch, first, held["before"])
        try:
            step = whole("step", state["step"], low=first, high=len(self))
        except ValueError:
            self._begin(*own)
            raise
        object.__setattr__(self, "scores", held["scores"])
        self.step = step


def chosen(scores: Scores, prune: float, *, key: int) -> tuple[Ints, Scores]:
    """The ids that stay in an epoch, and the weights of their losses: two of (n,), int64 and float32.

    Of the samples whose score is below the mean of all scores (nan counts nowhere) a share `prune` is left
    out, the whole number below it, each as likely; the others of them weigh as much as they all did.

    Examples:
        >>> ids, weights = chosen(np.array([1, 9, 1, 9, 1, 1], np.float32), 0.5, key=7)
        >>> len(ids), weights[ids == 1].tolist(), sum(weights.tolist())
        (4, [1.0], 6.0)
    """
    known = ~np.isnan(scores)
    mean = scores[known].mean(dtype=np.float64) if known.any() else 0.0
    easy = np.flatnonzero(known & (scores < mean))
    out = int(prune * len(easy))
    weights = np.ones(len(scores), np.float32)
    if out:
        weights[easy] = len(easy) / (len(easy) - out)
        weights[easy[rng.shuffle(len(easy), key, 0, stop=out)]] = 0
    ids = np.flatnonzero(weights)
    return ids, weights[ids]


def _of_all(ids: torch.Tensor, losses: torch.Tensor, wrong: str) -> list[tuple[Ints, Scores]]:
    """The ids and losses of every rank, in order. ValueError on all of them if one has something `wrong`."""
    shared = distributed.is_available() and distributed.is_initialized()
    if wrong and not shared:
        raise ValueError(wrong)
    if not shared:
        return [(ids.long().numpy(force=True), losses.float().numpy(force=True))]
    own = losses.new_tensor([-1 if wrong else len(ids)], dtype=torch.int64)
    sizes = [int(size) for size in _gathered(own)]
    if wrong or min(sizes) < 0:
        other = f"rank {sizes.index(-1)} has ids or losses that cannot be recorded, so no rank records any"
        raise ValueError(wrong or f"{other}; its error says which")
    pairs = losses.new_zeros((2, max(sizes)), dtype=torch.float64)  # exact for both
    pairs[0, : len(ids)], pairs[1, : len(ids)] = ids.to(losses.device), losses.float()
    numbers = [pair.numpy(force=True)[:, :size] for pair, size in zip(_gathered(pairs), sizes, strict=True)]
    return [(ids.astype(np.int64), losses.astype(np.float32)) for ids, losses in numbers]


def _gathered(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensor of every rank, in order."""
    parts = [torch.empty_like(tensor) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, tensor)
    return parts
