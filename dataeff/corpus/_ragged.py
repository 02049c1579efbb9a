"""Samples of any length, as flat tokens with offsets."""

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataeff._numbers import native
from dataeff.corpus._base import Corpus, Shard


def _as_array(tokens: ArrayLike) -> NDArray[Any]:
    return native(np.asarray(tokens))


def _as_int64(offsets: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(offsets)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"offsets are {array.ndim}-D {array.dtype}; expected a flat array of integers")
    return array.astype(np.int64, copy=False)


@attrs.frozen(eq=False)
class Ragged(Corpus):
    """Sample i is `tokens[offsets[i]:offsets[i + 1]]`.

    Raises ValueError if `tokens` are not whole numbers or `offsets` do not rise from 0 to their number.

    Examples:
        >>> Ragged(np.array([1, 2, 3]), np.array([0, 2, 3]))[1].tolist()
        [3]
    """

    tokens: NDArray[Any] = attrs.field(converter=_as_array, repr=False)
    offsets: NDArray[np.int64] = attrs.field(converter=_as_int64, repr=False)

    @tokens.validator
    def _check_tokens(self, _: object, tokens: NDArray[Any]) -> None:
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            raise ValueError(f"tokens are {tokens.ndim}-D {tokens.dtype}; expected a flat array of integers")

    @offsets.validator
    def _check_offsets(self, _: object, offsets: NDArray[np.int64]) -> None:
        rises = len(offsets) > 0 and offsets[0] == 0 and offsets[-1] == len(self.tokens)
        if not rises or (offsets[1:] < offsets[:-1]).any():
            raise ValueError(f"offsets must rise from 0 to the number of tokens, {len(self.tokens)}")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def shard(self, start: int, stop: int) -> Shard:
        """Samples `start` up to `stop`, without a copy of their tokens."""
        offsets = self.offsets[start : stop + 1]
        return Shard(self.tokens[offsets[0] : offsets[-1]], offsets - offsets[0])

    def spans(self, tokens: int, start: int = 0) -> Iterator[tuple[int, int]]:
        """Split the samples from `start` on into spans of at most `tokens` tokens, or of one longer
        sample.
        """
        return spans_of(self.offsets, tokens, start)

    def token_offsets(self) -> NDArray[np.int64]:
        """Where each sample begins, and where the last ends. (samples + 1,)."""
        return self.offsets


def spans_of(offsets: NDArray[np.int64], tokens: int, start: int) -> Iterator[tuple[int, int]]:
    """Spans of samples from `start` on, each of at most `tokens` tokens, or of one longer sample.

    Examples:
        >>> list(spans_of(np.array([0, 2, 4, 9, 10]), 4, 0))
        [(0, 2), (2, 3), (3, 4)]
    """
    count = len(offsets) - 1
    while start < count:
        limit = offsets[start] + tokens
        stop = max(start + 1, int(np.searchsorted(offsets, limit, side="right")) - 1)
        yield start, stop
        start = stop


def from_samples(samples: Iterable[ArrayLike]) -> Ragged:
    """A corpus of token arrays (or strings, as their UTF-8 bytes) that are already in memory.

    Raises ValueError for a sample that is not a flat array of integers.

    Examples:
        >>> texts = from_samples(["to be", "or not"])
        >>> bytes(texts[1]).decode()
        'or not'
    """
    arrays = [as_tokens(index, sample) for index, sample in enumerate(samples)]
    return Ragged(np.concatenate(arrays) if arrays else np.zeros(0, np.uint8), offsets_of(arrays))


def offsets_of(samples: Sequence[Sized]) -> NDArray[np.int64]:
    """Where each of the samples begins when they stand end to end, and where the last ends. int64.

    Examples:
        >>> offsets_of([[7, 7], [], [7]]).tolist()
        [0, 2, 2, 3]
    """
    offsets = np.zeros(len(samples) + 1, np.int64)
    np.cumsum([len(sample) for sample in samples], out=offsets[1:])
    return offsets


def as_tokens(index: int, sample: ArrayLike) -> NDArray[Any]:
    """One sample as a flat array of integers; a string gives its UTF-8 bytes.

    Examples:
        >>> as_tokens(0, "ab").tolist()
        [97, 98]
        >>> as_tokens(7, [0.5])
        Traceback (most recent call last):
        ...
        ValueError: sample 7 is 1-D float64; expected a flat array of integers
    """
    if isinstance(sample, str):
        return _encoded(index, sample)
    array = native(np.asarray(sample))
    if array.ndim == 1 and not array.size:
        return array.astype(np.uint8)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"sample {index} is {array.ndim}-D {array.dtype}; expected a flat array of integers")
    return array


def _encoded(index: int, text: str) -> NDArray[np.uint8]:
    try:
        return np.frombuffer(text.encode(), np.uint8)
    except UnicodeEncodeError as error:
        raise ValueError(f"sample {index} is no valid text: {error.reason}") from None
