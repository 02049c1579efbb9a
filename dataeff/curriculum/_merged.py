"""Several metrics in one order: by the step at which a sample is within all of them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataeff import _files
from dataeff._kernel import kernel
from dataeff.curriculum._paced import paced, reach
from dataeff.curriculum._pools import Pools
from dataeff.index import Index
from dataeff.pacing import table

Ints = NDArray[np.int64]
Steps = NDArray[np.int32]

CACHED = 2**20  # samples: from here on the order is kept beside the index


def merged(index: Index, metrics: Mapping[str, paced]) -> tuple[NDArray[Any], Pools]:
    """Ids of the samples that ever enter, by (entry step, id), and how many have entered at which step.

    Of a large index they are kept in its folder, if that can be written, under a name that depends on all
    that they depend on; whoever comes next reads them from there.
    """
    if len(index) < CACHED:
        return _merge(index, metrics)
    folder = index.path / "orders"
    file = folder / f"{index.fingerprint}-{_key(index, metrics)}.npy"
    if (kept := _read(file)) is not None:
        return kept
    try:
        _files.make_folder(folder)
        with _files.locked(folder):
            if (kept := _read(file)) is None:
                _write(file, *_merge(index, metrics))
                _forget_others(file)
                kept = _read(file)  # mapped: while nobody else may forget it
    except OSError:  # a folder that cannot be written, or is full: it works without
        kept = None
    return _merge(index, metrics) if kept is None else kept


def _merge(index: Index, metrics: Mapping[str, paced]) -> tuple[NDArray[Any], Pools]:
    last = max(how.steps for how in metrics.values())
    entry = np.zeros(len(index), np.int32)
    for name, how in metrics.items():
        _enter(index.order(name), reach(index, name, how), last + 1, entry)
    counts = np.zeros(last + 2, np.int64)
    _tally(entry, counts)
    starts = np.cumsum(counts) - counts
    order = np.empty(len(entry), np.uint32 if len(entry) < 2**32 else np.uint64)
    _counting_sort(entry, starts.copy(), order)
    new = np.flatnonzero(counts[:-1])
    pools = Pools(new, np.zeros(len(new)), (starts + counts)[new])
    return order[: starts[-1]], pools


def _key(index: Index, metrics: Mapping[str, paced]) -> str:
    """Of everything that the order depends on."""
    held = index.checksums()
    parts: list[bytes] = []
    for name, how in sorted(metrics.items()):
        amounts = np.array(table(how.pace), np.float64).tobytes()
        parts += [json.dumps([name, held[name], how.by]).encode(), hashlib.blake2b(amounts).digest()]
    return hashlib.blake2b(b"".join(parts), digest_size=8).hexdigest()


def _read(file: Path) -> tuple[NDArray[Any], Pools] | None:
    """What `_write` wrote, None if it is not there or not whole."""
    order, pools = _files.read_part(file), _files.read_part(file.with_suffix(".pools.npy"))
    if order is None or pools is None:
        return None
    steps, stops = pools.reshape(2, -1)
    return order, Pools(steps, np.zeros(len(steps)), stops)


def _write(file: Path, order: NDArray[Any], pools: Pools) -> None:
    _files.write_part(file.with_suffix(".pools.npy"), np.concatenate([pools.steps, pools.stops]))
    _files.write_part(file, order)


def _forget_others(file: Path) -> None:
    """Those of what the index held before it grew, and what writers that were killed left."""
    own = file.name.split("-")[0]
    for other in file.parent.iterdir():
        if not other.name.startswith(f"{own}-"):
            other.unlink(missing_ok=True)


@kernel
def _enter(order: NDArray[Any], reach: Ints, never: int, entry: Steps) -> None:
    """Raise each sample's entry step to the first at which `reach` includes its rank."""
    step = 0
    for rank in range(len(order)):
        while step < len(reach) and reach[step] <= rank:
            step += 1
        sample = order[rank]
        entry[sample] = max(entry[sample], step if step < len(reach) else never)


@kernel
def _tally(entry: Steps, counts: Ints) -> None:
    for step in entry:  # without the copy of them all in int64 that bincount makes
        counts[step] += 1


@kernel
def _counting_sort(entry: Steps, starts: Ints, order: NDArray[Any]) -> None:
    """Sample ids by (entry step, id); `starts` is used up."""
    for sample in range(len(entry)):
        order[starts[entry[sample]]] = sample
        starts[entry[sample]] += 1
