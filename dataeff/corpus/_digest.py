"""A digest of samples that adds up: the same however they are cut into shards, whatever dtype holds them."""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataeff import rng
from dataeff._kernel import kernel

_BLOCK = 256
_MIX = np.uint64(0x9E3779B97F4A7C15)


def digest(tokens: NDArray[Any], offsets: NDArray[np.int64], *, first: int = 0, salt: int = 0) -> int:
    """The sum over samples, mod 2**64, of a hash of a sample's tokens and of its id (`first` + i).

    Those of shards add up to that of the corpus, so shards can be hashed anywhere, and the first n samples
    have a digest of their own. Tokens count by value, not by dtype. It tells changes apart, by accident with
    a chance of 2**-64; it is no defence against someone who makes collisions.

    Examples:
        >>> whole = digest(np.array([7, 8, 9]), np.array([0, 1, 3]))
        >>> parts = [digest(np.array([7]), np.array([0, 1]))]
        >>> parts.append(digest(np.array([8, 9]), np.array([0, 2]), first=1))
        >>> sum(parts) % 2**64 == whole
        True
    """
    return int(_digest(tokens, offsets, np.uint64(first), np.uint64(salt), _keys()))


@functools.cache
def _keys() -> NDArray[np.uint64]:
    """An odd factor for each place in a block: a token that changes always changes the sum of its block."""
    return np.array([rng.key("digest", place) | 1 for place in range(_BLOCK)], np.uint64)


@kernel
def _mix(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@kernel
def _digest(
    tokens: NDArray[Any],
    offsets: NDArray[np.int64],
    first: np.uint64,
    salt: np.uint64,
    keys: NDArray[np.uint64],
) -> np.uint64:
    total = np.uint64(0)
    for i in range(len(offsets) - 1):
        start, stop = offsets[i], offsets[i + 1]
        state = _mix(salt + np.uint64(stop - start))
        for low in range(start, stop, _BLOCK):
            block = tokens[low : min(low + _BLOCK, stop)]
            summed = np.uint64(0)
            for k in range(len(block)):
                summed += np.uint64(block[k]) * keys[k]
            state = _mix((state ^ summed) + _MIX)
        total += _mix((state ^ _mix(first + np.uint64(i))) + _MIX)
    return total
