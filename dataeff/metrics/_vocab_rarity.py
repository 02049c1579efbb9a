"""Vocabulary rarity: how improbable a sample's tokens are."""

from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataeff._check import is_flag
from dataeff._kernel import kernel
from dataeff.corpus import Shard
from dataeff.metrics._base import Metric

Floats = NDArray[np.float64]
MOST_IDS = 2**28  # a count for each takes 2 GiB


@attrs.frozen
class vocab_rarity(Metric):
    """The sum over a sample's tokens of -ln p(token), in nats; with `mean=True` the mean. float64.

    p is a token's share of the corpus, so a first pass counts every token. A token id that the count does
    not know (scoring other data) is taken as seen once. An empty sample has rarity 0. Ids are below 2**28;
    memory is 8 bytes times the largest one.

    Source: the `voc` difficulty of DeepSpeed Data Efficiency, arXiv 2212.03597.

    Examples:
        >>> vocab_rarity()(["aaaa", "aaab"]).round(3).tolist()
        [0.534, 2.48]
        >>> vocab_rarity(mean=True)(["aaaa", "ab"]).round(3).tolist()
        [0.182, 0.987]
    """

    mean: bool = attrs.field(default=False, validator=is_flag())

    def fit(self, shard: Shard) -> NDArray[Any]:
        """How often each token id occurs in the shard. (largest id + 1,) int64."""
        low, high = _bounds(shard.tokens)
        if low < 0 or high >= MOST_IDS:
            raise ValueError(
                f"token id {low if low < 0 else high} is outside [0, {MOST_IDS}), what is counted"
            )
        counts = np.zeros(high + 1, np.int64)
        _count(_unsigned(shard.tokens), counts)
        return np.trim_zeros(counts, "b")

    def merge(self, first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
        """The counts of both."""
        long, short = (first, second) if len(first) >= len(second) else (second, first)
        total = long.copy()
        total[: len(short)] += short
        return total

    def score(self, shard: Shard, fitted: NDArray[Any] | None) -> ArrayLike:
        """Sum (or mean) of the rarities; every fourth token is added up apart, then the four sums are."""
        assert fitted is not None  # noqa: S101  (fit always gives counts)
        out = np.empty(len(shard), np.float64)
        tokens, table = _lookup(shard.tokens, _rarity(fitted))
        _sum(tokens, shard.offsets, table, out)
        return out / np.maximum(np.diff(shard.offsets), 1) if self.mean else out


def _bounds(tokens: NDArray[Any]) -> tuple[int, int]:
    """The lowest and the highest id; of ids of one or two bytes the highest possible, which spares a look."""
    if tokens.dtype.kind == "u" and tokens.dtype.itemsize <= 2:
        return 0, int(np.iinfo(tokens.dtype).max)
    return (int(tokens.min()), int(tokens.max())) if tokens.size else (0, -1)


def _rarity(counts: NDArray[Any]) -> NDArray[np.float64]:
    """-ln p of each token id, and of an unknown one last."""
    seen = np.maximum(np.append(counts, 0), 1)
    return np.asarray(np.log(max(1, counts.sum())) - np.log(seen))


def _lookup(tokens: NDArray[Any], table: Floats) -> tuple[NDArray[Any], Floats]:
    """Unsigned places in a table with the value of each token; those of unknown ids hold its last one."""
    low, high = _bounds(tokens)
    if low >= 0 and high < 2**16:  # a place for every id is cheaper than to ask of each if it is known
        table = np.append(table, np.full(max(0, high + 1 - len(table)), table[-1]))
    elif low < 0 or high >= len(table):
        tokens = np.minimum(tokens.astype(np.uint64), np.uint64(len(table) - 1))  # -1 is a large one
    return _unsigned(tokens), table


def _unsigned(tokens: NDArray[Any]) -> NDArray[Any]:
    """The same ids, for kernels: a signed index might count from the end, and is looked at for that."""
    return tokens.view(f"u{tokens.dtype.itemsize}")


@kernel
def _count(tokens: NDArray[Any], counts: NDArray[np.int64]) -> None:
    for token in tokens:
        counts[token] += 1


@kernel
def _sum(tokens: NDArray[Any], offsets: NDArray[np.int64], rarity: Floats, out: Floats) -> None:
    for i in range(len(out)):
        start, stop = offsets[i], offsets[i + 1]
        whole = start + (stop - start) // 4 * 4
        a = b = c = d = 0.0  # one sum would wait for each addition before the next
        for j in range(start, whole, 4):
            a += rarity[tokens[j]]
            b += rarity[tokens[j + 1]]
            c += rarity[tokens[j + 2]]
            d += rarity[tokens[j + 3]]
        for j in range(whole, stop):
            a += rarity[tokens[j]]
        out[i] = (a + b) + (c + d)
