"""A search as text."""

from typing import TYPE_CHECKING

from dataeff.config import said
from dataeff.pacing import Pace
from dataeff.tuning._probe import Probe

if TYPE_CHECKING:
    from dataeff.tuning._tuned import Tuned

_TITLES = ["", "probe", "start", "duration", "rate", "batch", "steps", "best loss", "rise", ""]


def text(tuned: "Tuned") -> str:
    """The probes as a table, the pace that is found, what it cost, and the notes.

    Examples:
        >>> from dataeff import tuning
        >>> search = tuning.Search(starts=[8, 16], durations=[100], end=64, warmup=20)
        >>> print(text(tuning.Tuned(search=search, start=8, duration=100, probes=(), notes=())))
        probe  start  duration  rate  batch  steps  best loss  rise
        <BLANKLINE>
        pace    linear(start=8, end=64, steps=100)
        cost    0 steps in 0 probes, at most 60 each
    """
    trained = sum(probe.steps for probe in tuned.probes)
    totals = [
        f"pace    {'none is found' if tuned.pace is None else _code(tuned.pace)}",
        f"cost    {trained:,} steps in {len(tuned.probes)} probes, at most {tuned.search.steps:,} each",
    ]
    if tuned.resumed:
        totals.append(f"log     {tuned.resumed}")
    notes = [f"note: {note}" for note in tuned.notes]
    return "\n".join([*_table(tuned.probes), "", *totals, *([""] if notes else []), *notes])


def _code(pace: Pace) -> str:
    told = said("pacings", pace)
    return f"{told.pop('name')}({', '.join(f'{key}={value!r}' for key, value in told.items())})"


def _table(probes: tuple[Probe, ...]) -> list[str]:
    rows = [_TITLES, *(_row(number, probe) for number, probe in enumerate(probes, 1))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    left = (1, len(_TITLES) - 1)
    cells = [
        [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
    return ["  ".join(row).rstrip() for row in cells]


def _row(number: int, probe: Probe) -> list[str]:
    config = probe.config
    return [
        str(number),
        config.why,
        f"{config.start:.6g}" if config.paced else "-",
        f"{config.duration:,}" if config.paced else "-",
        f"{config.learning_rate_scale:.4g}",
        f"{config.batch_scale:.4g}",
        f"{probe.steps:,}",
        "-" if probe.best is None else f"{probe.best:.3f}",
        f"{probe.stability.rise:.2f}",
        "stable" if probe.stable else "unstable",
    ]
