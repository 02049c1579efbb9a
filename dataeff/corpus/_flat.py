"""What the readers of token files share: tokens in one memory-mapped array, and where each sample begins."""

import abc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataeff import _files
from dataeff.corpus._base import Corpus, Shard


def as_dtype(value: Any) -> np.dtype[Any]:
    """A dtype by its name or itself. ValueError for what is none.

    Examples:
        >>> as_dtype("uint16")
        dtype('uint16')
    """
    try:
        dtype: np.dtype[Any] = np.dtype(value)
    except TypeError:
        raise ValueError(f"dtype is {value!r}; expected integers, such as uint16") from None
    return dtype


class Flat(Corpus):
    """A corpus over one that is read when it is opened: a reader sets `_samples`.

    Examples:
        >>> from dataeff.corpus import megatron, npy
        >>> issubclass(npy, Flat) and issubclass(megatron, Flat)
        True
    """

    @property
    @abc.abstractmethod
    def _samples(self) -> Corpus:
        """What the file holds."""

    def __len__(self) -> int:
        return len(self._samples)

    def shard(self, start: int, stop: int) -> Shard:
        """Samples `start` up to `stop`, without a copy of their tokens."""
        return self._samples.shard(start, stop)

    def spans(self, tokens: int, start: int = 0) -> Iterator[tuple[int, int]]:
        """Split the samples from `start` on into spans of about `tokens` tokens, at least one sample each."""
        return self._samples.spans(tokens, start)

    def token_offsets(self) -> NDArray[np.int64]:
        """Where each sample begins, and where the last ends. (samples + 1,)."""
        return self._samples.token_offsets()


def load_npy(path: Path) -> NDArray[Any]:
    """The array of integers in a `.npy` file, memory-mapped. Raises ValueError, naming the file and its
    fault.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder) / "a.npy", [1, 2])
        ...     load_npy(Path(folder) / "a.npy").tolist()
        [1, 2]
    """
    array = _files.mapped(path, ".npy file")
    endless = array.ndim == 2 and not array.shape[1] and len(array)  # empty rows without end take no bytes
    if array.dtype.kind not in "iu" or not array.dtype.isnative or endless:
        raise ValueError(
            f"{path} has shape {array.shape} and dtype {array.dtype}; "
            "expected (samples, length) integers, or flat ones, in this machine's byte order"
        )
    return array
