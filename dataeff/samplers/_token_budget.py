"""The token-budget sampler: batches of about as many tokens, not of as many samples."""

import hashlib
from collections.abc import Callable
from typing import Any, ClassVar, cast

import attrs
import numpy as np
from numpy.typing import NDArray

from dataeff import rng
from dataeff._check import is_whole, whole
from dataeff._kernel import kernel
from dataeff._numbers import native, numbers
from dataeff.samplers._batch import Batch
from dataeff.samplers._steps import Ints, Ranked
from dataeff.samplers._windows import Stream, Windows

_fixed = attrs.setters.frozen
_SCALES: dict[str, Callable[[float], float]] = {
    "linear": lambda ratio: ratio,
    "sqrt": lambda ratio: float(ratio**0.5),
    "none": lambda ratio: 1.0,
}


class TokenBatch(Batch):
    """The sample ids of a rank's part of a batch, with what its loss and learning rate need.

    Examples:
        >>> batch = TokenBatch([3, 1], step=7, samples=4, tokens=90, normalizer=45.0, lr_scale=0.5)
        >>> batch, batch.step, batch.tokens
        ([3, 1], 7, 90)
    """

    samples: int
    """In the batch, over all ranks."""
    tokens: int
    """In the batch, over all ranks, without padding."""
    normalizer: float
    """`tokens` over the number of ranks: what a rank divides the sum of its tokens' losses by."""
    lr_scale: float
    """What to multiply the learning rate of this step by."""

    def __init__(
        self, ids: Any, *, step: int, samples: int, tokens: int, normalizer: float, lr_scale: float
    ) -> None:
        super().__init__(ids, step=step)
        self.samples, self.tokens, self.normalizer = samples, tokens, normalizer
        self.lr_scale = lr_scale


def _as_lengths(lengths: Any) -> NDArray[Any]:
    array = numbers(lengths, "lengths")
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            f"lengths has shape {array.shape} and dtype {array.dtype}; expected one whole number a sample"
        )
    if array.dtype == np.uint64:
        array = array.astype(np.int64)
    if len(array) and array[least := int(array.argmin())] < 0:
        raise ValueError(f"the length of sample {least} is {array[least]}; expected 0 or more")
    return native(array)


def _shown(lengths: NDArray[Any]) -> str:
    return str(lengths.tolist()) if len(lengths) <= 32 else f"<of {len(lengths)} samples>"


def _ranks_or_none(ranks: Any) -> int:
    return cast(int, ranks if ranks is None else whole("ranks", ranks, low=1))


@attrs.define
class token_budget(Ranked):
    """Batches of samples of like length, as many as fit a number of tokens with their padding.

    The batches of another sampler, `window` of them at a time, are sorted by length and cut anew, so that a
    rank's part of each is at most `max_tokens` tokens when padded to its longest sample. Every sample of the
    stream is used, once for each time that it comes; every rank has as many batches, of as many samples.
    The batches of a window come in a keyed random order.

    A global batch is planned for `ranks` processes and any number that divides it may train on it: to resume
    on another number, keep `ranks`. The stream's steps, and a mixture's weights, change only between windows:
    by loading a state whose step is its `first`.

    A mean over tokens over all ranks is `loss_sum / batch.normalizer`, with the losses of a rank's tokens
    summed and gradients averaged over ranks as DistributedDataParallel does. Where each sample has one target
    less than tokens, the number to divide by is (batch.tokens - batch.samples) / world_size.

    Args:
        sampler: whose stream is cut: `curriculum`, `shuffled` or `mixture`, made with any rank, or one of
            your own that has what `Stream` says.
        lengths: tokens in each sample, by id: `index.values("length")`, say. (samples,), whole numbers.
        max_tokens: that one process holds in a batch, padding counted.
        multiple: lengths are padded to a multiple of this.
        window: how many of the sampler's batches are sorted together. More of them leave less padding.
        max_samples: in a global batch; None for as many as fit.
        lr_scaling: of `batch.lr_scale`, by a batch's samples over the sampler's batch size: "linear", "sqrt"
            or "none".
        ranks: how many processes batches are planned for; by default `world_size`.
        rank: of this process; by default torch.distributed's, else 0.
        world_size: the number of processes; by default torch.distributed's, else 1.

    Raises:
        ValueError: a sample longer than `max_tokens` (by its id), `ranks` that do not divide the sampler's
            batch size, a `world_size` that does not divide `ranks`, or one of the settings, by name.

    Examples:
        >>> from dataeff.samplers import shuffled
        >>> stream = shuffled(8, batch_size=4, seed=1)
        >>> sampler = token_budget(stream, lengths=[1, 2, 3, 4, 5, 6, 7, 8], max_tokens=16, multiple=1)
        >>> sorted(sorted(batch) for batch in sampler)
        [[0, 1, 2, 3], [4, 5], [6, 7]]
        >>> sampler[0].tokens, sampler[0].lr_scale == len(sampler[0]) / 4
        (15, True)
    """

    _in_state: ClassVar[tuple[str, ...]] = ("step", "first", "cut", "sampler")
    sampler: Stream = attrs.field(on_setattr=_fixed)
    lengths: NDArray[Any] = attrs.field(
        kw_only=True,
        converter=_as_lengths,
        on_setattr=_fixed,
        repr=_shown,
        eq=attrs.cmp_using(eq=np.array_equal),
    )
    max_tokens: int = attrs.field(kw_only=True, validator=is_whole(1), on_setattr=_fixed)
    multiple: int = attrs.field(kw_only=True, default=8, validator=is_whole(1), on_setattr=_fixed)
    window: int = attrs.field(kw_only=True, default=64, validator=is_whole(1), on_setattr=_fixed)
    max_samples: int | None = attrs.field(
        kw_only=True, default=None, validator=attrs.validators.optional(is_whole(1)), on_setattr=_fixed
    )
    lr_scaling: str = attrs.field(kw_only=True, default="linear", on_setattr=_fixed)
    ranks: int = attrs.field(kw_only=True, default=None, converter=_ranks_or_none, on_setattr=_fixed)
    _windows: Windows = attrs.field(init=False, repr=False, eq=False)
    _digest: str = attrs.field(init=False, repr=False, eq=False)

    def _prepare(self) -> None:
        if not isinstance(self.sampler, Stream):
            raise ValueError(
                f"sampler is {self.sampler!r}; expected curriculum, shuffled, mixture, or one of your own "
                "with batch_size, seed, steps, global_batch and a state"
            )
        if self.lr_scaling not in _SCALES:
            raise ValueError(f"lr_scaling is {self.lr_scaling!r}; expected one of {', '.join(_SCALES)}")
        if cast(Any, self.ranks) is None:
            object.__setattr__(self, "ranks", self.world_size)
        if self.ranks % self.world_size:
            raise ValueError(
                f"batches are planned for {self.ranks} ranks, which {self.world_size} processes do not "
                "divide; give ranks= a multiple of every number of processes to train on"
            )
        if self.sampler.batch_size % self.ranks:
            raise ValueError(
                f"the sampler's batch_size {self.sampler.batch_size} is not divisible by ranks "
                f"{self.ranks}; choose a multiple"
            )
        if self.max_samples is not None and self.max_samples < self.ranks:
            raise ValueError(f"max_samples is {self.max_samples}; expected at least ranks, {self.ranks}")
        longest = int(self.lengths.argmax()) if len(self.lengths) else -1
        padded = self._padded(int(self.lengths[longest])) if len(self.lengths) else 0
        if padded > self.max_tokens:
            raise ValueError(
                f"sample {longest} has {self.lengths[longest]} tokens, {padded} with padding; max_tokens is "
                f"{self.max_tokens}: raise it, or cut lengths down to what the samples are truncated to"
            )
        content = np.asarray(self.lengths, np.int64).tobytes()
        self._digest = hashlib.blake2b(content, digest_size=4).hexdigest()
        self._windows = Windows(self.sampler, self.window, self._cut)

    def _padded(self, length: int) -> int:
        return -(-max(length, 1) // self.multiple) * self.multiple

    def _cut(self, ids: Ints, window: int) -> list[Ints]:
        """The global batches of a window, in the order of their steps."""
        if (out := np.flatnonzero(ids >= len(self.lengths))).size:
            raise ValueError(
                f"the sampler gives sample {ids[out[0]]}, and lengths are of {len(self.lengths)} samples; "
                "expected the lengths of all that it draws from"
            )
        lengths = self.lengths[ids]
        order = np.argsort(-lengths.astype(np.int64), kind="stable")
        most = self.max_samples or len(ids)
        ends = np.empty(len(ids), np.int64)
        count = _cuts(lengths[order], self.max_tokens, self.multiple, self.ranks, most, ends)
        parts = np.split(ids[order], ends[: count - 1])
        return [parts[i] for i in rng.shuffle(count, rng.key("token_budget", self.sampler.seed), window)]

    def __len__(self) -> int:
        """The number of batches from step 0. All are planned for it: about a second a million samples."""
        self._windows.of(2**62)
        return self._windows.first(self._windows.count)

    def drawn(self, step: int) -> int:
        """How many samples are drawn before `step`, over all ranks; all of the stream beyond its last."""
        windows, size = self._windows, self.sampler.batch_size
        window = windows.of(whole("step", step, low=0))
        if window is None:
            return len(self.sampler) * size
        begun = windows.batches(window)[: step - windows.first(window)]
        return window * self.window * size + sum(map(len, begun))

    def _has(self, step: int) -> bool:
        return step >= 0 and self._windows.of(step) is not None

    def _batch(self, step: int, rank: int, world_size: int) -> TokenBatch:
        ids = self._windows.batch(step)
        tokens = int(self.lengths[ids].sum(dtype=np.int64))
        share = self.ranks // world_size
        parts = [ids[r :: self.ranks] for r in range(rank * share, (rank + 1) * share)]
        return TokenBatch(
            np.concatenate(parts).tolist(),
            step=step,
            samples=len(ids),
            tokens=tokens,
            normalizer=tokens / self.world_size,
            lr_scale=_SCALES[self.lr_scaling](len(ids) / self.sampler.batch_size),
        )

    def _exposures(self, start: int, stop: int) -> Ints:
        counts = np.zeros(len(self.lengths), np.int64)
        for step in range(start, stop):
            np.add.at(counts, self._windows.batch(step), 1)
        return counts

    def _range(self) -> tuple[int, int | None]:
        return 0, None  # to know the last, all would be planned

    def _place(self, step: int) -> dict[str, Any]:
        windows = self._windows
        window = windows.of(step)
        if window is None:
            window = windows.count
            whole("step", step, low=0, high=windows.first(window))
        inner = self.sampler.state_dict(min(window * self.window, len(self.sampler)))
        return {"step": step, "first": windows.first(window), "cut": self._cut_at(step), "sampler": inner}

    def _cut_at(self, step: int) -> str:
        """A hash of the batches of a window that `step` is amid, "" between two."""
        windows = self._windows
        window = windows.of(step)
        if window is None or step == windows.first(window):
            return ""
        return hashlib.blake2b(np.concatenate(windows.batches(window)).tobytes(), digest_size=8).hexdigest()

    def _settings(self) -> dict[str, Any]:
        names = ("max_tokens", "multiple", "window", "max_samples", "ranks")
        said = " ".join(f"{name}={getattr(self, name)}" for name in names)
        return {"settings": f"{said} lengths={self._digest}"}

    def _resume(self, state: dict[str, Any]) -> None:
        first = whole("first", state["first"], low=0)
        step = whole("step", state["step"], low=first)
        own, base = self.sampler.state_dict(), self._windows.base
        self.sampler.load_state_dict(state["sampler"])
        at, steps = self.sampler.step, len(self.sampler)
        self._windows.begin(-(-at // self.window), first)
        shorter = at % self.window and at < steps  # the last window of a stream that has more steps now
        if shorter or (step > first and self._cut_at(step) != state["cut"]):
            self.sampler.load_state_dict(own)
            self._windows.begin(*base)
            raise ValueError(
                f"the state is of a window of other samples than this sampler's, whose stream has {steps} "
                "steps; make the stream with the steps and weights of before, or change them between two "
                f"windows of {self.window} steps, where a state's step is its first"
            )
        self.step = step


@kernel
def _cuts(lengths: Any, max_tokens: int, multiple: int, ranks: int, most: int, ends: Ints) -> int:
    """Where to cut samples that are sorted from long to short; how many batches there are."""
    count, start = 0, 0
    while start < len(lengths):
        padded = -(-max(lengths[start], 1) // multiple) * multiple
        start = min(start + min(max_tokens // padded, most // ranks) * ranks, len(lengths))
        ends[count] = start
        count += 1
    return count
