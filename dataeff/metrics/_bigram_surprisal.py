"""Bigram surprisal: how badly each token of a sample follows from the one before."""

import math
from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataeff._check import is_whole, real
from dataeff._kernel import kernel
from dataeff.corpus import Shard
from dataeff.metrics._base import Metric
from dataeff.metrics._vocab_rarity import vocab_rarity

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_32 = np.uint64(32)


@attrs.frozen
class bigram_surprisal(Metric):
    """The mean over each sample's tokens of -ln p(token | the one before), in nats. float64.

    p(b | a) = weight * min(1, c(ab) / c(a)) + (1 - weight) * c(b) / N: the corpus's own bigrams, interpolated
    with its unigrams; N is its number of tokens. The first token of a sample has c(b) / N. Counts of ids
    are exact; those of pairs share 2**`bits` buckets, so with many more distinct pairs than buckets they come
    out too high. A count of 0 (scoring other data) is taken as 1. An empty sample has 0. Ids are below
    2**28; memory is 8 bytes times 2**`bits` + the largest id.

    Source: linear interpolation of Jelinek and Mercer, Interpolated estimation of Markov source parameters
    from sparse data (1980).

    Examples:
        >>> bigram_surprisal()(["abababab", "abab", "aabb"]).round(3).tolist()
        [0.47, 0.47, 0.995]
    """

    weight: float = attrs.field(default=0.75)
    bits: int = attrs.field(default=22, validator=is_whole(1, 28))

    @weight.validator
    def _from_0_to_1(self, field: "attrs.Attribute[float]", value: object) -> None:
        number = real(field.name, value)
        if not 0 <= number <= 1:
            raise ValueError(f"weight is {value!r}; expected a number from 0 to 1")
        object.__setattr__(self, field.name, number)

    def fit(self, shard: Shard) -> NDArray[Any]:
        """How often each bucket's pairs occur, then each token id. (2**bits + largest id + 1,) int64."""
        counts = vocab_rarity().fit(shard)
        pairs = np.zeros(2**self.bits, np.int64)
        _count_pairs(shard.tokens, shard.offsets, np.uint64(64 - self.bits), pairs)
        return np.concatenate([pairs, counts])

    def merge(self, first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
        """The counts of both."""
        return vocab_rarity().merge(first, second)

    def score(self, shard: Shard, fitted: NDArray[Any] | None) -> ArrayLike:
        """The surprisals, added up in the order of the tokens."""
        assert fitted is not None  # noqa: S101  (fit always gives counts)
        pairs, counts = fitted[: 2**self.bits], fitted[2**self.bits :]
        total = float(max(1, counts.sum()))
        out = np.empty(len(shard), np.float64)
        shift = np.uint64(64 - self.bits)
        _surprisal(shard.tokens, shard.offsets, pairs, counts, total, float(self.weight), shift, out)
        return out


@kernel
def _bucket(first: np.int64, second: np.int64, shift: np.uint64) -> np.uint64:
    key = (_GOLDEN ^ np.uint64(first)) * _GOLDEN
    key ^= key >> _32
    return ((key ^ np.uint64(second)) * _GOLDEN) >> shift


@kernel
def _count_pairs(tokens: NDArray[Any], offsets: Ints, shift: np.uint64, pairs: Ints) -> None:
    for i in range(len(offsets) - 1):
        for j in range(offsets[i] + 1, offsets[i + 1]):
            pairs[_bucket(np.int64(tokens[j - 1]), np.int64(tokens[j]), shift)] += 1


@kernel
def _surprisal(
    tokens: NDArray[Any],
    offsets: Ints,
    pairs: Ints,
    counts: Ints,
    total: float,
    weight: float,
    shift: np.uint64,
    out: Floats,
) -> None:
    for i in range(len(out)):
        surprisal, before, count_before = 0.0, np.int64(0), 0
        for j in range(offsets[i], offsets[i + 1]):
            token = np.int64(tokens[j])
            count = max(counts[token], 1) if 0 <= token < len(counts) else 1
            p = count / total
            if j > offsets[i]:
                pair = max(pairs[_bucket(before, token, shift)], 1)
                p = weight * min(1.0, pair / count_before) + (1.0 - weight) * p
            surprisal -= math.log(p)
            before, count_before = token, count
        out[i] = surprisal / max(offsets[i + 1] - offsets[i], 1)
