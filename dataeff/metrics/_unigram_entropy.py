"""Unigram entropy: how evenly a sample uses its tokens."""

import math
from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataeff._kernel import kernel
from dataeff.corpus import Shard
from dataeff.metrics._base import Metric
from dataeff.metrics._distinct import most_distinct

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ONE = np.uint64(1)


@attrs.frozen
class unigram_entropy(Metric):
    """The Shannon entropy of the distribution of each sample's own tokens, in nats. float64.

    ln L - (1 / L) sum c ln c, over the counts c of the distinct tokens among L. It is 0 for one token over
    and over, ln L where all differ, and 0 for an empty sample.

    Source: C. E. Shannon, A mathematical theory of communication, Bell System Technical Journal 27 (1948).

    Examples:
        >>> unigram_entropy()(["aaaa", "aabb", "abcd"]).round(3).tolist()
        [0.0, 0.693, 1.386]
    """

    def score(self, shard: Shard, fitted: NDArray[Any] | None) -> ArrayLike:
        """The entropies; counts are summed in the order in which their tokens first occur."""
        out = np.empty(len(shard), np.float64)
        _entropy(shard.tokens, shard.offsets, most_distinct(shard), out)
        return out


@kernel
def _bits(entries: int) -> np.uint64:
    """The table for so many entries has 2**bits places, at most half of them taken."""
    bits = _ONE
    while (1 << bits) < 2 * entries:
        bits += _ONE
    return bits


@kernel
def _entropy(tokens: NDArray[Any], offsets: Ints, most: int, out: Floats) -> None:
    size = 1 << _bits(most)
    keys, counts, places = np.empty(size, np.uint64), np.zeros(size, np.int64), np.empty(most, np.uint64)
    for i in range(len(out)):
        start, stop = offsets[i], offsets[i + 1]
        bits = _bits(min(stop - start, most))  # a short sample keeps to a corner that stays in cache
        shift, mask = np.uint64(64) - bits, (_ONE << bits) - _ONE
        distinct = 0
        for j in range(start, stop):
            key = np.uint64(np.int64(tokens[j]))
            place = (key * _GOLDEN) >> shift
            while counts[place] and keys[place] != key:
                place = (place + _ONE) & mask
            if not counts[place]:
                keys[place], places[distinct] = key, place
                distinct += 1
            counts[place] += 1
        total = 0.0
        for place in places[:distinct]:
            if counts[place] > 1:  # most occur once, and 1 ln 1 is 0
                total += counts[place] * math.log(counts[place])
            counts[place] = 0  # free for the next sample
        length = max(stop - start, 1)
        out[i] = max(0.0, math.log(length) - total / length)  # rounding can take it below 0
