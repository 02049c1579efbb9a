"""Compressibility: how much of a sample is left after compression."""

import zlib
from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataeff._check import is_whole
from dataeff._kernel import kernel
from dataeff.corpus import Shard
from dataeff.metrics._base import Metric


@attrs.frozen
class compressibility(Metric):
    """The size of each sample compressed with zlib, as a share of its size before: higher is harder. float64.

    What is compressed are the ids as LEB128 varints: one byte below 128, two below 16384, and so on. So
    ASCII text stands for itself, and the dtype of the tokens does not matter. zlib adds some 8 bytes to any
    sample, so very short ones exceed 1; an empty one has 0. The sizes depend on the zlib that Python is
    built with (`zlib.ZLIB_RUNTIME_VERSION`): build an index with one.

    Raises ValueError, naming the id, for a negative one.

    Source: Gao, An empirical exploration in quality filtering of text data, arXiv 2109.00698, is one of many
    that filter by it; LEB128 is in the DWARF standard.

    Examples:
        >>> values = compressibility()(["ab" * 500, "to be, or not to be"])
        >>> bool(values[0] < 0.1 < values[1])
        True
    """

    level: int = attrs.field(default=6, validator=is_whole(1, 9))

    def score(self, shard: Shard, fitted: NDArray[Any] | None) -> ArrayLike:
        """Bytes after compression over bytes before."""
        tokens = shard.tokens
        if tokens.dtype.kind == "i" and tokens.min(initial=0) < 0:
            raise ValueError(f"token id {tokens.min()} is negative; expected ids of 0 or more to compress")
        widest = (8 * tokens.itemsize + 6) // 7  # bytes of the largest id
        encoded = np.empty(widest * int(np.diff(shard.offsets).max(initial=0)), np.uint8)
        out = np.zeros(len(shard), np.float64)
        for i, (start, stop) in enumerate(zip(shard.offsets[:-1], shard.offsets[1:], strict=True)):
            if start < stop:
                size = _encode(tokens, start, stop, encoded)
                out[i] = len(zlib.compress(encoded.data[:size], self.level)) / size
        return out


@kernel
def _encode(tokens: NDArray[Any], start: int, stop: int, out: NDArray[np.uint8]) -> int:
    """Write tokens as LEB128: seven bits a byte, the lowest first, the top bit set where more follow."""
    size = 0
    for j in range(start, stop):
        rest = np.uint64(tokens[j])
        while rest >= np.uint64(128):
            out[size] = (rest & np.uint64(127)) | np.uint64(128)
            rest >>= np.uint64(7)
            size += 1
        out[size] = rest
        size += 1
    return size
