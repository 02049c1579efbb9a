"""A dry run as text."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataeff.simulation._simulation import Simulation

_ROWS = 9


def text(found: "Simulation") -> str:
    """A simulation as a table over time, its totals, and what does not fit.

    Examples:
        >>> import tempfile
        >>> import dataeff as de
        >>> with tempfile.TemporaryDirectory() as out:
        ...     index = de.index.from_values({"loss": range(100)}, out=out)
        ...     growing = de.Curriculum(index, {"loss": de.paced(de.pacing.linear(9, 99, steps=9))})
        ...     found = de.simulate(de.samplers.curriculum(growing, batch_size=4, seed=1))
        ...     print(text(found).splitlines()[0])
        9 steps of 4 samples, of 100 in the index
    """
    head = [f"{found.run:,} steps of {found.batch_size:,} samples, of {found.samples:,} in the index", ""]
    notes = [f"note: {note}" for note in found.notes]
    return "\n".join([*head, *_over_time(found), "", *_totals(found), *([""] if notes else []), *notes])


def _over_time(found: "Simulation") -> list[str]:
    titles = ["step", "pool", "share"]
    for name in found.difficulty:
        titles += [f"{name}: mean", "bound"]
    titles += ["tokens: mean", "longest"] if found.length is not None else []
    rows = [titles]
    count = len(found.steps)
    for i in sorted({round(k * (count - 1) / (_ROWS - 1)) for k in range(_ROWS)} if count else ()):
        row = [f"{found.steps[i]:,}", f"{found.pool[i]:,}", f"{found.pool[i] / found.samples:.1%}"]
        for name, of_batch in found.difficulty.items():
            row += [f"{of_batch[i, 1]:,.5g}", f"{found.bound[name][i]:,.5g}"]
        if found.length is not None:
            row += [f"{found.length[i, 0]:,.0f}", f"{found.length[i, 1]:,.0f}"]
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(titles))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _totals(found: "Simulation") -> list[str]:
    seen = found.exposures[1:].sum() if len(found.exposures) > 1 else 0
    draws = found.run * found.batch_size
    lines = [
        f"seen         {seen:,} samples ({seen / found.samples:.1%}), {found.exposures[0]:,} never; "
        f"{draws / max(seen, 1):.1f} times each on average, {len(found.exposures) - 1} at the most",
        f"groups       {found.cohorts:,} of samples that enter together, {found.small_cohorts:,} of them "
        "smaller than a batch",
    ]
    if found.tokens is not None and found.plain_tokens is not None and found.saving is not None:
        lines.append(
            f"tokens       {found.tokens:,} against {found.plain_tokens:,} of plain batches: "
            f"{found.saving:.1%} saved; {found.dropped:,} are cut off"
        )
    return lines
