"""Go through the batches of a sampler without loading a sample."""

from typing import Any

import numpy as np
from tqdm import tqdm

from dataeff._check import count
from dataeff.curriculum import Curriculum, paced
from dataeff.pacing import Pace
from dataeff.samplers import curriculum
from dataeff.simulation._length import Length
from dataeff.simulation._notes import notes_on
from dataeff.simulation._simulation import Floats, Ints, Simulation

_MOMENTS = 200


def simulate(sampler: curriculum, *, length: Length | None = None, progress: bool = False) -> Simulation:
    """Go through every batch of a curriculum sampler, without loading a sample.

    Totals are exact: every batch of the run is drawn, which takes about a second for 20,000 of 512.

    Args:
        sampler: as training would have it; all its `steps` are gone through.
        length: how samples are cut. Their lengths are a metric of the index; without it nothing is said of
            tokens.
        progress: whether to show a bar.

    Raises:
        ValueError: another kind of sampler, a length pace that is not a whole number at some step, or
            `length` with a pace and an index that does not hold its metric.

    Examples:
        >>> import tempfile
        >>> import dataeff as de
        >>> with tempfile.TemporaryDirectory() as out:
        ...     index = de.index.from_values({"length": range(1, 101)}, out=out)
        ...     growing = de.Curriculum(index, {"length": de.paced(de.pacing.linear(10, 100, steps=50))})
        ...     found = simulate(de.samplers.curriculum(growing, batch_size=4, seed=1, steps=100))
        ...     found.pool[[0, -1]].tolist(), found.plain_tokens, found.tokens < found.plain_tokens
        ([10, 100], 20200, True)
    """
    if not isinstance(sampler, curriculum):
        raise ValueError(
            f"the sampler is {type(sampler).__name__}; expected samplers.curriculum(...), whose batches "
            "follow a pace"
        )
    cl, length = sampler.curriculum, length or Length()
    lengths = _lengths(cl, length)
    run = len(sampler)
    steps = np.unique(np.linspace(0, max(run - 1, 0), min(run, _MOMENTS)).round().astype(np.int64))
    looked = set(steps.tolist())
    difficulty: dict[str, list[Any]] = {name: [] for name in cl.metrics}
    of_length, tokens, dropped = [], 0, 0
    for step in tqdm(range(run), desc="simulate", unit=" steps", disable=not progress):
        if lengths is None and step not in looked:
            continue
        batch = sampler.global_batch(step)
        if lengths is not None:
            whole = lengths[batch]
            cut = whole if length.pace is None else np.minimum(whole, _count(length.pace, step))
            tokens += int(whole.sum() if length.transform == "reshape" else cut.sum())
            dropped += 0 if length.transform == "reshape" else int((whole - cut).sum())
        if step in looked:
            for name, found in difficulty.items():
                values = np.asarray(cl.index.values(name)[batch], np.float64)
                found.append([np.percentile(values, 10), values.mean(), np.percentile(values, 90)])
            if lengths is not None:
                of_length.append([cut.mean(), cut.max()])
    groups = np.diff(np.union1d(cl.pools.starts, cl.pools.stops))
    return Simulation(
        batch_size=sampler.batch_size,
        samples=len(cl.index),
        run=run,
        steps=steps,
        pool=np.array([cl.pool_size(step) for step in steps.tolist()], np.int64),
        difficulty={name: np.array(found).reshape(-1, 3) for name, found in difficulty.items()},
        bound={name: _bound(cl, name, steps) for name in cl.metrics},
        length=None if lengths is None else np.array(of_length, np.float64).reshape(-1, 2),
        exposures=np.bincount(sampler.exposures(0, run)),
        cohorts=len(groups),
        small_cohorts=int((groups < sampler.batch_size).sum()),
        tokens=None if lengths is None else tokens,
        dropped=None if lengths is None else dropped,
        plain_tokens=None if lengths is None else round(run * sampler.batch_size * float(lengths.mean())),
        notes=notes_on(sampler, length, lengths, tokens, dropped),
    )


def _lengths(cl: Curriculum, length: Length) -> Ints | None:
    if length.metric in cl.index.metrics:
        return np.asarray(cl.index.values(length.metric), np.int64)
    if length.pace is not None:
        raise ValueError(
            f"the index {cl.index.path} holds no {length.metric!r}, so what is cut is not known; it holds "
            f"{', '.join(cl.index.metrics)}: add it with dataeff index --metric length, or name another"
        )
    return None


def _count(pace: Pace, step: int) -> int:
    amount = pace(step)
    return count(f"the length is {amount!r} at step {step}", amount)


def _bound(cl: Curriculum, name: str, steps: Ints) -> Floats:
    """The largest difficulty that the pace of a metric lets in."""
    how = cl.metrics[name]
    pace = how.pace if isinstance(how, paced) else how.high
    values, order = cl.index.values(name), cl.index.order(name)
    if pace is None:
        return np.full(len(steps), float(values[order[-1]]))
    amounts = np.array([pace(step) for step in steps.tolist()], np.float64)
    if how.by == "value":
        return amounts
    ranks = np.ceil(len(order) * amounts / 100).astype(np.int64).clip(1, len(order)) - 1
    return np.asarray(values[order[ranks]], np.float64)
