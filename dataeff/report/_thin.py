"""A long curve in few points."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def thin(values: ArrayLike, *, most: int) -> NDArray[np.intp]:
    """Places of at most `most` of the values, sorted: the first, the last, and the least and greatest of
    each of equal stretches between. All of them if there are no more. Values must be finite, `most` >= 4.

    Examples:
        >>> thin([5, 4, 9, 3, 2, 0, 1, 1], most=6).tolist()
        [0, 2, 3, 4, 5, 7]
    """
    given = np.asarray(values, np.float64)
    if len(given) <= most:
        return np.arange(len(given))
    edges = np.linspace(1, len(given) - 1, (most - 2) // 2 + 1).astype(np.intp)
    kept = {0, len(given) - 1}
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        stretch = given[low:high]
        kept |= {low + int(stretch.argmin()), low + int(stretch.argmax())}
    return np.array(sorted(kept))
