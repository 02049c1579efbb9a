"""Distinct n-grams: how many different ones a sample has; what several metrics are made of."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataeff._kernel import kernel
from dataeff.corpus import Shard

Ints = NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ONE = np.uint64(1)
_32 = np.uint64(32)


def distinct(shard: Shard, n: int = 1) -> Ints:
    """The number of distinct n-grams of each sample. (samples,) int64.

    Exact for n = 1. Longer n-grams are told apart by a 64-bit hash: among a million of one sample, two are
    taken for one with a probability of about 3e-8.

    Examples:
        >>> from dataeff import corpus
        >>> shard = corpus.from_samples(["abab", "", "aaaa"]).shard(0, 3)
        >>> distinct(shard).tolist(), distinct(shard, 2).tolist()
        ([2, 0, 1], [2, 0, 1])
    """
    out = np.empty(len(shard), np.int64)
    _distinct(shard.tokens, shard.offsets, n, most_distinct(shard, n), out)
    return out


def most_distinct(shard: Shard, n: int = 1) -> int:
    """What the distinct n-grams of any one sample cannot exceed: its tokens, or what the dtype can tell.

    Examples:
        >>> most_distinct(Shard(np.zeros(1000, np.uint8), np.array([0, 600, 1000])))
        256
    """
    longest, bits = int(np.diff(shard.offsets).max(initial=0)), 8 * shard.tokens.itemsize * n
    return min(longest, 1 << min(bits, 62))


@kernel
def _bits(entries: int) -> np.uint64:
    """The table for so many entries has 2**bits places, at most half of them taken."""
    bits = _ONE
    while (1 << bits) < 2 * entries:
        bits += _ONE
    return bits


@kernel
def _distinct(tokens: NDArray[Any], offsets: Ints, n: int, most: int, out: Ints) -> None:
    size = 1 << _bits(most)
    keys, stamps = np.empty(size, np.uint64), np.zeros(size, np.int32)  # a place of an older stamp is free
    for i in range(len(out)):
        start, last = offsets[i], offsets[i + 1] - n  # where the first and the last n-gram begin
        stamp = np.int32(i + 1)
        bits = _bits(min(last + 1 - start, most))  # a short sample keeps to a corner that stays in cache
        shift, mask = np.uint64(64) - bits, (_ONE << bits) - _ONE
        count = 0
        for j in range(start, last + 1):
            key = _GOLDEN
            for k in range(
                j, j + n
            ):  # each round is a bijection of the id, so one id alone is never mistaken
                key = (key ^ np.uint64(np.int64(tokens[k]))) * _GOLDEN
                key ^= key >> _32
            place = key >> shift
            while stamps[place] == stamp and keys[place] != key:
                place = (place + _ONE) & mask
            if stamps[place] != stamp:
                stamps[place], keys[place] = stamp, key
                count += 1
        out[i] = count
