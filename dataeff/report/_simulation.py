"""A dry run as a picture."""

from pathlib import Path
from typing import Any

import numpy as np

from dataeff.report._figure import new_figure
from dataeff.simulation import Simulation

_MOST_SHOWN = 30


def save_simulation(found: Simulation, path: str | Path, *, title: str) -> None:
    """Write a PNG of what a curriculum would train on: pool, difficulty, tokens, and how often samples come.

    Args:
        found: what `dataeff.simulate` gave.
        path: of the PNG.
        title: above the panels.

    Raises:
        ImportError: matplotlib is not installed; the message says how to install it.

    Examples:
        >>> import tempfile
        >>> import dataeff as de
        >>> with tempfile.TemporaryDirectory() as out:
        ...     index = de.index.from_values({"loss": range(100)}, out=out)
        ...     growing = de.Curriculum(index, {"loss": de.paced(de.pacing.linear(9, 99, steps=9))})
        ...     found = de.simulate(de.samplers.curriculum(growing, batch_size=4, seed=1))
        ...     save_simulation(found, f"{out}/run.png", title="An example")
        ...     Path(f"{out}/run.png").stat().st_size > 1000
        True
    """
    panels = 2 + len(found.difficulty) + (found.length is not None)
    columns = min(panels, 3) if panels != 4 else 2
    rows = -(-panels // columns)
    figure = new_figure(4.8 * columns, 3.3 * rows)
    axes = iter(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    _pool(next(axes), found)
    for name in found.difficulty:
        _difficulty(next(axes), found, name)
    if found.length is not None:
        _length(next(axes), found)
    _exposures(next(axes), found)
    for left in axes:
        left.set_visible(False)
    figure.suptitle(title)
    figure.savefig(path, dpi=130)


def _finish(axes: Any, title: str, xlabel: str, ylabel: str) -> None:
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.locator_params(axis="x", nbins=6)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _pool(axes: Any, found: Simulation) -> None:
    axes.step(found.steps, 100 * found.pool / found.samples, where="post", color="tab:blue")
    axes.set_ylim(0, 105)
    _finish(axes, "eligible samples", "step", f"% of {found.samples:,}")


def _difficulty(axes: Any, found: Simulation, name: str) -> None:
    low, mean, high = found.difficulty[name].T
    axes.fill_between(found.steps, low, high, color="tab:blue", alpha=0.2, linewidth=0, label="10% to 90%")
    axes.plot(found.steps, mean, color="tab:blue", label="mean of the batch")
    axes.plot(found.steps, found.bound[name], color="tab:red", linewidth=1, label="bound")
    axes.legend(frameon=False, fontsize=8)
    _finish(axes, name, "step", "difficulty")
    axes.yaxis.set_major_formatter("{x:,.6g}")


def _length(axes: Any, found: Simulation) -> None:
    mean, most = np.asarray(found.length).T
    axes.plot(found.steps, mean, color="tab:blue", label="mean of the batch")
    axes.plot(found.steps, most, color="tab:red", linewidth=1, label="longest")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    saved = "" if found.saving is None else f", {found.saving:.0%} saved"
    _finish(axes, f"tokens a sample{saved}", "step", "tokens")
    axes.yaxis.set_major_formatter("{x:,.0f}")


def _exposures(axes: Any, found: Simulation) -> None:
    """Many counts are gathered in bars of several."""
    counts = found.exposures
    each = -(-len(counts) // _MOST_SHOWN)
    bars = np.add.reduceat(counts, np.arange(0, len(counts), each))
    axes.bar(
        np.arange(len(bars)) * each + (each - 1) / 2, bars, width=0.9 * each, color="tab:blue", alpha=0.75
    )
    _finish(axes, "how often samples come", "times in the run", "samples")
    axes.yaxis.set_major_formatter("{x:,.0f}")
