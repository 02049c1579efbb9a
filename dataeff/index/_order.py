"""Sample ids by (value, id), however many: sorted runs, merged from disk."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataeff import _files
from dataeff._kernel import kernel
from dataeff.index._bar import bar

RUN = 2**22  # values sorted in memory at once, for about 100 MB
_BLOCK = 2**20

Values = NDArray[Any]
Ints = NDArray[np.int64]
Update = Callable[[int], object]


def write_order(values: Values, path: Path, *, progress: bool = False) -> None:
    """Write the order of `values` to `path`: uint32 while ids fit, else uint64.

    Up to 2**22 values are sorted in memory. More are sorted in runs of that many, which are kept beside
    `path` and merged, so memory does not grow with their number.
    """
    dtype = np.dtype(np.uint32 if len(values) < 2**32 else np.uint64)
    if len(values) <= RUN:
        _files.write_array(path, _argsort(values).astype(dtype))
        return
    ids, run = path.with_name("run_ids.npy"), path.with_name("run_values.npy")
    with bar("order", 2 * len(values), show=progress) as update:
        try:
            _files.write_rows([ids, run], len(values), [dtype, values.dtype], _runs(values, dtype, update))
            blocks = _merged(_files.read_array(ids), _files.read_array(run), update)
            _files.write_rows([path], len(values), [dtype], blocks)
        finally:
            ids.unlink(missing_ok=True)
            run.unlink(missing_ok=True)


def _argsort(values: Values) -> NDArray[np.int64]:
    """The stable order. NumPy's unstable sort is several times as fast; ties are put in order after it."""
    if values.dtype.itemsize <= 2:
        return np.argsort(values, kind="stable")  # a radix sort
    order = np.argsort(values)
    ordered = values[order]
    new = ordered[1:] != ordered[:-1]
    if new.all():
        return order
    tied = np.zeros(len(values), bool)
    tied[1:] = ~new
    tied[:-1] |= ~new
    group = np.concatenate([[0], np.cumsum(new)])[tied]
    order[tied] = np.sort(group * len(values) + order[tied]) % len(values)  # below 2**44 for a run
    return order


def _runs(values: Values, dtype: np.dtype[Any], update: Update) -> Iterator[tuple[Values, Values]]:
    for low in range(0, len(values), RUN):
        some = values[low : low + RUN]
        order = _argsort(some)
        yield (order + low).astype(dtype), some[order]
        update(len(some))


def _merged(ids: Values, values: Values, update: Update) -> Iterator[tuple[Values]]:
    """Blocks of the ids in order of (value, id). Runs are in order of their ids, so the earlier run wins a
    tie.
    """
    starts = np.arange(0, len(ids), RUN, dtype=np.int64)
    stops = np.minimum(starts + RUN, len(ids))
    heap = np.arange(len(starts), dtype=np.int64)
    values = values.view(np.uint8) if values.dtype == np.bool_ else values
    _heapify(heap, starts, values)
    done = 0
    while done < len(ids):
        block = np.empty(min(_BLOCK, len(ids) - done), ids.dtype)
        _take(heap, starts, stops, values, ids, block)
        yield (block,)
        done += len(block)
        update(len(block))


@kernel
def _before(a: int, b: int, at: Ints, values: Values) -> bool:
    x, y = values[at[a]], values[at[b]]
    return x < y or (x == y and a < b)


@kernel
def _sift(heap: Ints, size: int, place: int, at: Ints, values: Values) -> None:
    run = heap[place]
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and _before(heap[child + 1], heap[child], at, values):
            child += 1
        if not _before(heap[child], run, at, values):
            break
        heap[place] = heap[child]
        place = child
    heap[place] = run


@kernel
def _heapify(heap: Ints, at: Ints, values: Values) -> None:
    for place in range(len(heap) // 2 - 1, -1, -1):
        _sift(heap, len(heap), place, at, values)


@kernel
def _take(heap: Ints, at: Ints, stops: Ints, values: Values, ids: Values, out: Values) -> None:
    size = 0
    while size < len(heap) and heap[size] >= 0:
        size += 1
    for i in range(len(out)):
        run = heap[0]
        out[i] = ids[at[run]]
        at[run] += 1
        if at[run] == stops[run]:
            size -= 1
            heap[0] = heap[size]
            heap[size] = -1
        if size:
            _sift(heap, size, 0, at, values)
