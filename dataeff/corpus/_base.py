"""What a corpus is: samples of tokens that can be read in shards."""

import abc
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch.utils.data import Dataset

from dataeff.corpus._digest import digest
from dataeff.corpus._samples import with_batch

if TYPE_CHECKING:
    from dataeff.corpus._windows import Windows

_SHARD = 2**24  # tokens that are held at once where the whole corpus is gone through
_PROBES = 512


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
    """Samples in a fixed order. A reader gives `__len__` and `shard`; the rest follows.

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

    def digest(self, start: int, stop: int, *, ahead: int = 0) -> int:
        """A hash of samples `start` up to `stop`; those of neighbours add up, mod 2**64.

        `ahead` is how many samples stand before this corpus in a larger one.
        """
        shard = self.shard(start, stop)
        return digest(shard.tokens, shard.offsets, first=ahead + start)

    def fingerprint(self, stop: int | None = None) -> str:
        """Identifies the tokens of all samples, or of the first `stop`: another one if any token changes.

        It reads the corpus once. The same samples have the same fingerprint in every format and dtype, but
        for text under a tokenizer, where it identifies the text and the tokenizer instead, and for JSON
        lines, where it identifies the lines.
        """
        stop = len(self) if stop is None else min(stop, len(self))
        spans = ((low, min(high, stop)) for low, high in self.spans(_SHARD) if low < stop)
        return as_fingerprint(sum(self.digest(low, high) for low, high in spans))

    def spans(self, tokens: int, start: int = 0) -> Iterator[tuple[int, int]]:
        """Split the samples from `start` on into spans of about `tokens` tokens, at least one sample each."""
        count = len(self)
        if start >= count:
            return
        if start not in self._means:
            self._means[start] = self._mean(start, count)
        size = max(1, tokens // self._means[start])
        for low in range(start, count, size):
            yield low, min(low + size, count)

    def _mean(self, start: int, stop: int) -> int:
        """About how many tokens a sample of these has, by a look at some."""
        probes = np.unique(np.linspace(start, stop - 1, _PROBES).astype(np.int64)).tolist()
        return max(1, sum(self.shard(i, i + 1).tokens.size for i in probes) // len(probes))

    @functools.cached_property
    def _means(self) -> dict[int, int]:
        """Of the samples from each start on that was asked for: the look may cost as much as a pass."""
        return {}

    def token_offsets(self) -> NDArray[np.int64]:
        """Where each sample begins when all stand end to end, and where the last ends. (samples + 1,)."""
        offsets = np.zeros(len(self) + 1, np.int64)
        for start, stop in self.spans(_SHARD):
            offsets[start + 1 : stop + 1] = offsets[start] + self.shard(start, stop).offsets[1:]
        return offsets

    def __getitem__(self, index: int) -> NDArray[Any]:
        """The tokens of one sample. IndexError outside the corpus."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of a corpus of {len(self)} samples")
        index = int(index) % len(self)
        return self.shard(index, index + 1).tokens

    def dataset(self) -> "Dataset[torch.Tensor]":
        """The corpus as a map-style torch Dataset: sample id to int64 tensor of its tokens.

        A collate function finds the batch of ids in `samples.batch`, as `with_batch` tells.
        """
        return with_batch(_TokenDataset(self))

    def windows(self, length: int, stride: int | None = None) -> "Windows":
        """The samples end to end, cut anew into packed training samples of `length` tokens.

        They begin every `stride` tokens, by default every `length`. Raises ValueError if there are fewer than
        `length` tokens in all.
        """
        from dataeff.corpus._windows import Windows

        return Windows(self, length, stride)

    def write(self, path: str | Path, format: str = "megatron", dtype: DTypeLike | None = None) -> "Corpus":
        """Write the corpus as `megatron` or `npy` and give the corpus that reads it, memory-mapped.

        Text under a tokenizer is tokenized once this way, and read at the speed of memory from then on. The
        files appear whole or not at all. If that is cut off between the two files of a corpus, opening them
        is refused: write them again.

        Args:
            path: for `megatron` the prefix of the two files, `path.bin` and `path.idx`. For `npy` the file:
                (N, L) if all samples have one length, else flat with `<stem>.offsets.npy` beside it.
            format: "megatron" or "npy".
            dtype: of the tokens in the file; by default that of the corpus, or the next one that the format
                knows.

        Raises:
            ValueError: a token does not fit the dtype (the message names it), or the format is another.
        """
        from dataeff.corpus._write import write

        return write(self, Path(path), format, dtype)


@attrs.frozen(eq=False)
class _TokenDataset(Dataset[torch.Tensor]):
    corpus: Corpus

    def __len__(self) -> int:
        return len(self.corpus)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.corpus[index].astype(np.int64))


def as_fingerprint(total: int) -> str:
    """A fingerprint from the sum of the digests: 16 hex digits.

    Examples:
        >>> as_fingerprint(2**64 + 255)
        '00000000000000ff'
    """
    return f"{total % 2**64:016x}"
