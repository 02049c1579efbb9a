"""MTLD: how long a sample goes on before it repeats itself."""

from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataeff._check import real
from dataeff._kernel import kernel
from dataeff.corpus import Shard
from dataeff.metrics._base import Metric
from dataeff.metrics._distinct import most_distinct

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ONE = np.uint64(1)


@attrs.frozen
class mtld(Metric):
    """The measure of textual lexical diversity of each sample, in tokens. float64.

    The mean length of the stretches (factors) over which the type-token ratio stays above `threshold`, with
    tokens for words; the mean of a pass forward and one backward. A factor ends with the token that brings
    the ratio down to the threshold or below it; what is left at the end counts as
    (1 - ratio) / (1 - threshold) of a factor.

    A sample whose tokens all differ has no factor and gets its number of tokens; one with a few repeats can
    lie far above its own number of tokens. An empty sample has 0.

    Source: P. M. McCarthy and S. Jarvis, MTLD, vocd-D, and HD-D: a validation study of sophisticated
    approaches to lexical diversity assessment, Behavior Research Methods 42 (2010), 381-392.

    Examples:
        >>> mtld()(["aaaaaa", "abcabcabc", "abcdef"]).round(3).tolist()
        [2.0, 4.755, 6.0]
    """

    threshold: float = attrs.field(default=0.72)

    @threshold.validator
    def _between_0_and_1(self, field: "attrs.Attribute[float]", value: object) -> None:
        number = real(field.name, value)
        if not 0 < number < 1:
            raise ValueError(f"threshold is {value!r}; expected a number between 0 and 1, neither of them")
        object.__setattr__(self, field.name, number)

    def score(self, shard: Shard, fitted: NDArray[Any] | None) -> ArrayLike:
        """Tokens over factors, the mean of both directions."""
        out = np.empty(len(shard), np.float64)
        _mtld(shard.tokens, shard.offsets, float(self.threshold), most_distinct(shard), out)
        return out


@kernel
def _bits(entries: int) -> np.uint64:
    """The table for so many entries has 2**bits places, at most half of them taken."""
    bits = _ONE
    while (1 << bits) < 2 * entries:
        bits += _ONE
    return bits


@kernel
def _mtld(tokens: NDArray[Any], offsets: Ints, threshold: float, most: int, out: Floats) -> None:
    size = 1 << _bits(most)
    keys, stamps = np.empty(size, np.uint64), np.zeros(size, np.int64)  # a place of an older stamp is free
    stamp = 0
    for i in range(len(out)):
        start, length = offsets[i], offsets[i + 1] - offsets[i]
        bits = _bits(min(length, most))  # a short sample keeps to a corner that stays in cache
        shift, mask = np.uint64(64) - bits, (_ONE << bits) - _ONE
        both = 0.0
        for first, step in ((start, 1), (start + length - 1, -1)):
            factors, types, seen = 0.0, 0, 0
            stamp += 1
            for j in range(length):
                key = np.uint64(np.int64(tokens[first + step * j]))
                place = (key * _GOLDEN) >> shift
                while stamps[place] == stamp and keys[place] != key:
                    place = (place + _ONE) & mask
                seen += 1
                if stamps[place] != stamp:
                    stamps[place], keys[place] = stamp, key
                    types += 1
                elif types / seen <= threshold:  # only a repeat brings the ratio down
                    factors += 1.0
                    types, seen = 0, 0
                    stamp += 1
            if seen:
                factors += (1.0 - types / seen) / (1.0 - threshold)
            both += length / factors if factors else float(length)
        out[i] = both / 2.0
