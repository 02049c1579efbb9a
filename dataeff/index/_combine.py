"""One difficulty from several: ranks, weighted sums, one after the other."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataeff._numbers import numbers
from dataeff.metrics import finite


def rank(values: ArrayLike) -> NDArray[np.int64]:
    """How many samples are easier than each sample; equal values share a rank. (samples,) int64.

    Ranks put metrics of different units on one scale. In memory: 8 bytes a sample, and as much to sort.
    Raises ValueError, as the others here do, for what is not one finite number a sample.

    Examples:
        >>> rank([0.5, 0.1, 0.9, 0.5]).tolist()
        [1, 0, 3, 1]
    """
    (own,) = _difficulties([values])
    return np.searchsorted(np.sort(own), own, side="left").astype(np.int64)


def weighted_sum(values: Sequence[ArrayLike], weights: Sequence[float]) -> NDArray[np.float64]:
    """The sum of difficulties, each times its weight; usually of ranks, since units differ. float64.

    Raises ValueError unless there is one weight for each, and all are of the same samples.

    Examples:
        >>> weighted_sum([rank([1, 2, 3]), rank([0.3, 0.1, 0.2])], [0.5, 0.5]).tolist()
        [1.0, 0.5, 1.5]
    """
    if len(values) != len(weights) or not len(values):
        raise ValueError(f"got {len(values)} difficulties and {len(weights)} weights; expected one for each")
    arrays = _difficulties(values)
    total = np.zeros(len(arrays[0]))
    for own, weight in zip(arrays, weights, strict=True):
        total += weight * own
    return total


def lexicographic(*values: ArrayLike) -> NDArray[np.int64]:
    """Ranks by the first difficulty, equal ones by the second, and so on. (samples,) int64.

    Raises ValueError without any, or unless all are of the same samples.

    Examples:
        >>> lexicographic([2, 1, 2, 1], [0.1, 0.2, 0.0, 0.2]).tolist()
        [3, 0, 2, 0]
    """
    if not values:
        raise ValueError("values is empty; expected at least one difficulty")
    arrays = _difficulties(values)
    order = np.lexsort(arrays[::-1])
    first = np.ones(len(order), bool)  # where a new rank begins
    first[1:] = np.any([own[order][1:] != own[order][:-1] for own in arrays], axis=0)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    return ranks


def _difficulties(values: Sequence[ArrayLike]) -> list[NDArray[Any]]:
    """Each as an array of one finite number a sample, all of the same samples."""
    arrays = [numbers(own, f"difficulty {i}") for i, own in enumerate(values)]
    shapes = [array.shape for array in arrays]
    if len(set(shapes)) != 1 or len(shapes[0]) != 1:
        raise ValueError(f"difficulties have the shapes {shapes}; expected one number a sample in each")
    return [finite(array, f"difficulty {i}") for i, array in enumerate(arrays)]
