"""What a corpus is: samples of tokens that can be read in shards."""

import abc
import hashlib
from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from dataeff._check import is_whole

_BLOCK = 4096
_BLOCKS = 1024


@attrs.frozen(eq=False)
class Shard:
    """Consecutive samples as one flat array: sample i is `tokens[offsets[i]:offsets[i + 1]]`.

    `tokens` is one-dimensional, of any integer dtype; `offsets` is int64, one longer than the number of
    samples. Ragged documents and fixed windows are one case.

    Examples:
        >>> shard = Shard(np.array([5, 6, 7], np.uint8), np.array([0, 2, 2, 3]))
        >>> len(shard), [sample.tolist() for sample in shard]
        (3, [[5, 6], [], [7]])
    """

    tokens: NDArray[Any]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for start, stop in zip(self.offsets[:-1], self.offsets[1:], strict=True):
            yield self.tokens[start:stop]


class Corpus(abc.ABC):
    """Samples in a fixed order. A reader gives `__len__`, `shard` and `fingerprint`; the rest follows.

    A corpus must pickle (workers get a copy), so one that maps a file pickles as its path.

    Examples:
        >>> from dataeff import corpus
        >>> texts = corpus.from_samples([[1, 2, 3], [4], [5, 6]])
        >>> len(texts), texts[2].tolist(), texts.shard(1, 3).offsets.tolist()
        (3, [5, 6], [0, 1, 3])
    """

    @abc.abstractmethod
    def __len__(self) -> int:
        """The number of samples."""

    @abc.abstractmethod
    def shard(self, start: int, stop: int) -> Shard:
        """Samples `start` up to `stop`."""

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Identifies the content: the same on any machine, another one if samples change."""

    def spans(self, tokens: int) -> Iterator[tuple[int, int]]:
        """Split the samples into spans of about `tokens` tokens each, at least one sample a span."""
        count = len(self)
        if not count:
            return
        probe = self.shard(0, min(count, 1024))
        mean = max(1, int(probe.offsets[-1]) // len(probe))
        size = max(1, tokens // mean)
        for start in range(0, count, size):
            yield start, min(start + size, count)

    def __getitem__(self, index: int) -> NDArray[Any]:
        """The tokens of one sample. IndexError outside the corpus."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of a corpus of {len(self)} samples")
        index = int(index) % len(self)
        return self.shard(index, index + 1).tokens

    def dataset(self) -> "Dataset[torch.Tensor]":
        """The corpus as a map-style torch Dataset: sample id to int64 tensor of its tokens."""
        return _TokenDataset(self)

    def windows(self, length: int) -> "Windows":
        """The samples end to end, cut anew into packed training samples of `length` tokens.

        Raises ValueError if there are fewer than `length` tokens in all.
        """
        return Windows(self, length)


@attrs.frozen(eq=False)
class Windows(Corpus):
    """A corpus cut anew into samples of `length` tokens; what is left over at its end is no sample.

    Examples:
        >>> from dataeff import corpus
        >>> packed = corpus.from_samples([[1, 2, 3], [4], [5, 6, 7]]).windows(3)
        >>> len(packed), packed[1].tolist()
        (2, [4, 5, 6])
    """

    corpus: Corpus
    length: int = attrs.field(validator=is_whole(1))
    _tokens: NDArray[Any] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        tokens = self.corpus.shard(0, len(self.corpus)).tokens
        if len(tokens) < self.length:
            raise ValueError(f"{len(tokens)} tokens are too few for one window of length {self.length}")
        object.__setattr__(self, "_tokens", tokens)

    def __len__(self) -> int:
        return len(self._tokens) // self.length

    def shard(self, start: int, stop: int) -> Shard:
        """Samples `start` up to `stop`, without a copy of their tokens."""
        tokens = self._tokens[start * self.length : stop * self.length]
        return Shard(tokens, np.arange(0, len(tokens) + 1, self.length, dtype=np.int64))

    def fingerprint(self) -> str:
        """Of the tokens and the length."""
        return fingerprint(self._tokens, np.array([self.length]))

    def __reduce__(self) -> tuple[type["Windows"], tuple[Corpus, int]]:
        return Windows, (self.corpus, self.length)


@attrs.frozen(eq=False)
class _TokenDataset(Dataset[torch.Tensor]):
    corpus: Corpus

    def __len__(self) -> int:
        return len(self.corpus)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.corpus[index].astype(np.int64))


def fingerprint(*arrays: NDArray[Any]) -> str:
    """A hash of the arrays' dtypes, shapes and content, without reading more than 4 MiB of each.

    An array of up to 4 MiB is hashed whole, a larger one in 1,024 evenly spaced blocks with its first and
    its last byte: another size, order or tokenizer shows; a few tokens changed in place may not.

    Examples:
        >>> fingerprint(np.arange(10)) == fingerprint(np.arange(10).copy())
        True
        >>> fingerprint(np.arange(10)) == fingerprint(np.arange(11))
        False
    """
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        if content.size <= _BLOCK * _BLOCKS:
            digest.update(content.tobytes())
        else:
            for block in range(_BLOCKS):
                start = block * (content.size - _BLOCK) // (_BLOCKS - 1)
                digest.update(content[start : start + _BLOCK].tobytes())
    return digest.hexdigest()
