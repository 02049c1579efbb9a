"""What does not fit together in a run, each with what to do about it."""

import numpy as np
from numpy.typing import NDArray

from dataeff.curriculum import Curriculum, window
from dataeff.pacing import Pace
from dataeff.samplers import curriculum
from dataeff.simulation._length import Length

Ints = NDArray[np.int64]


def notes_on(
    sampler: curriculum, length: Length, lengths: Ints | None, tokens: int, dropped: int
) -> tuple[str, ...]:
    """Sentences, in the order of how much they matter.

    Examples:
        >>> import tempfile
        >>> import dataeff as de
        >>> with tempfile.TemporaryDirectory() as out:
        ...     index = de.index.from_values({"loss": range(100)}, out=out)
        ...     growing = de.Curriculum(index, {"loss": de.paced(de.pacing.linear(9, 98, steps=9))})
        ...     sampler = de.samplers.curriculum(growing, batch_size=4, seed=1, steps=10)
        ...     notes_on(sampler, Length(), None, 0, 0)
        ('1 of 100 samples never enter, whatever the number of steps',)
    """
    cl, run = sampler.curriculum, len(sampler)
    notes = [_unfinished(title, pace, run) for title, pace in _paces(cl, length)]
    if cl.never:
        notes.append(f"{cl.never:,} of {len(cl.index):,} samples never enter, whatever the number of steps")
    notes.append(_small_pools(cl, sampler.batch_size, run))
    if lengths is not None and length.pace is not None:
        notes += _length_notes(length.pace, lengths, tokens, dropped)
    return tuple(note for note in notes if note)


def _paces(cl: Curriculum, length: Length) -> list[tuple[str, Pace | None]]:
    paces: list[tuple[str, Pace | None]] = [("the length", length.pace)]
    for name, how in cl.metrics.items():
        if isinstance(how, window):
            paces += [(f"{name!r} low (by {how.by})", how.low), (f"{name!r} high (by {how.by})", how.high)]
        else:
            paces.append((f"{name!r} (by {how.by})", how.pace))
    return paces


def _unfinished(title: str, pace: Pace | None, run: int) -> str:
    if pace is None or not 0 < run < pace.steps or pace(run - 1) == pace(pace.steps):
        return ""
    return (
        f"the pace of {title} never reaches its end: it is at {pace(run - 1):.6g} at the last step, "
        f"{run - 1}, and at {pace(pace.steps):.6g} only at step {pace.steps}; shorten it, or train longer"
    )


def _small_pools(cl: Curriculum, batch_size: int, run: int) -> str:
    sizes, steps = cl.pools.stops - cl.pools.starts, cl.pools.steps
    small = np.flatnonzero((sizes < batch_size) & (steps < run))
    if not small.size:
        return ""
    ends = np.append(steps[1:], run)[small].clip(max=run)
    many, last = int((ends - steps[small]).sum()), int(ends[-1]) - 1
    return (
        f"the pool is smaller than a batch of {batch_size:,} at {many:,} of {run:,} steps, up to step "
        f"{last:,} ({sizes[small].min():,} samples at the least): a sample comes several times in a batch; "
        "use a larger pool there"
    )


def _length_notes(pace: Pace, lengths: Ints, tokens: int, dropped: int) -> list[str]:
    notes = []
    longest, end = int(lengths.max()), pace(pace.steps)
    if dropped and lengths.min() == longest:
        share = dropped / (tokens + dropped)
        notes.append(
            f"all samples have {longest:,} tokens, as packed ones do, and truncation drops {share:.1%} of "
            "the tokens, many of documents that are lost whole; reshape keeps them"
        )
    if end > longest:
        notes.append(
            f"the pace of the length ends at {end:.6g}, and the longest sample has {longest:,} tokens: from "
            "where it passes that it cuts nothing; end it there"
        )
    return notes
