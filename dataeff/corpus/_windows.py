"""Packed training samples: a corpus end to end, cut anew."""

from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from dataeff._check import is_whole
from dataeff.corpus._base import Corpus, Shard


@attrs.frozen
class Windows(Corpus):
    """A corpus cut anew into samples of `length` tokens, one every `stride`.

    What is left over at its end is no sample. With a stride below the length, windows share tokens; with one
    above it, tokens between them are left out.

    Examples:
        >>> from dataeff import corpus
        >>> packed = corpus.from_samples([[1, 2, 3], [4], [5, 6, 7]]).windows(3)
        >>> len(packed), packed[1].tolist()
        (2, [4, 5, 6])
        >>> packed = corpus.from_samples([[1, 2, 3, 4]]).windows(3, stride=1)
        >>> [window.tolist() for window in packed.shard(0, 2)]
        [[1, 2, 3], [2, 3, 4]]
    """

    corpus: Corpus
    length: int = attrs.field(validator=is_whole(1))
    stride: int | None = attrs.field(default=None, validator=attrs.validators.optional(is_whole(1)))
    _offsets: NDArray[np.int64] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        offsets = self.corpus.token_offsets()
        if offsets[-1] < self.length:
            raise ValueError(f"{offsets[-1]} tokens are too few for one window of length {self.length}")
        object.__setattr__(self, "_offsets", offsets)

    @property
    def _step(self) -> int:
        return self.stride or self.length

    def __len__(self) -> int:
        return (int(self._offsets[-1]) - self.length) // self._step + 1

    def shard(self, start: int, stop: int) -> Shard:
        """Samples `start` up to `stop`, without a copy where the corpus gives its tokens without one."""
        offsets = np.arange(stop - start + 1, dtype=np.int64) * self.length
        if start == stop:
            return Shard(self.corpus.shard(0, 0).tokens, offsets)
        tokens = self._between(start * self._step, (stop - 1) * self._step + self.length)
        if self._step != self.length:
            windows = np.lib.stride_tricks.sliding_window_view(tokens, self.length)
            tokens = windows[:: self._step].reshape(-1)
        return Shard(tokens, offsets)

    def _between(self, low: int, high: int) -> NDArray[Any]:
        """Tokens `low` up to `high` of the corpus end to end."""
        first = int(np.searchsorted(self._offsets, low, side="right")) - 1
        last = int(np.searchsorted(self._offsets, high, side="left"))
        skipped = low - int(self._offsets[first])
        return self.corpus.shard(first, last).tokens[skipped : skipped + high - low]

    def spans(self, tokens: int, start: int = 0) -> Iterator[tuple[int, int]]:
        """Split the samples from `start` on into spans of about `tokens` tokens, at least one sample each."""
        size = max(1, tokens // max(self.length, self._step))
        for low in range(start, len(self), size):
            yield low, min(low + size, len(self))

    def token_offsets(self) -> NDArray[np.int64]:
        """Multiples of the length."""
        return np.arange(len(self) + 1, dtype=np.int64) * self.length

    def __reduce__(self) -> tuple[type["Windows"], tuple[Corpus, int, int | None]]:
        return Windows, (self.corpus, self.length, self.stride)
