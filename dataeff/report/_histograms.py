"""How the difficulties of a corpus are spread."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from dataeff.report._figure import new_figure

_BINS = 60


def save_histograms(difficulties: Mapping[str, ArrayLike], path: str | Path, *, title: str) -> None:
    """Write a PNG with a histogram of each metric, its median and its 5th and 95th percentile marked.

    Metrics that span more than a factor of 10 from the 5th to the 95th percentile are drawn on a logarithmic
    axis.

    Args:
        difficulties: name of a metric to its values.
        path: of the PNG.
        title: above the panels.

    Raises:
        ImportError: matplotlib is not installed; the message says how to install it.
        ValueError: no metrics, or one without values, or with one that is not finite.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_histograms({"length": [3, 5, 5, 8]}, Path(folder) / "h.png", title="An example")
        ...     (Path(folder) / "h.png").stat().st_size > 1000
        True
    """
    if not difficulties:
        raise ValueError("difficulties is {}; expected at least one metric, as {'length': values}")
    columns = min(3, len(difficulties))
    rows = -(-len(difficulties) // columns)
    figure = new_figure(4.6 * columns, 3.4 * rows)
    panels = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes, (name, given) in zip(panels, difficulties.items(), strict=False):
        values = np.asarray(given, np.float64)
        if not values.size or not np.isfinite(values).all():
            told = f"{values[~np.isfinite(values)][0]} among them" if values.size else "none"
            raise ValueError(f"the values of {name!r} have {told}; expected at least one, all finite")
        low, middle, high = np.percentile(values, [5, 50, 95])
        logarithmic = values.min() > 0 and high > 10 * low
        edges = np.geomspace if logarithmic else np.linspace
        top = values.max() if logarithmic else np.percentile(values, 99.5)
        spread = top > values.min()
        bins = edges(values.min(), top, _BINS + 1) if spread else 10
        axes.hist(values, bins=bins, color="tab:blue", alpha=0.75)
        for place, label, side in ((low, "5% ", "right"), (middle, " 50%", "left"), (high, " 95%", "left")):
            axes.axvline(place, color="tab:red", linewidth=1)
            at = {"xy": (place, 1.01), "xycoords": ("data", "axes fraction"), "ha": side}
            axes.annotate(label, **at, fontsize=8, color="tab:red")
        beyond = "" if logarithmic or not spread else f" ({(values > top).mean():.1%} lie beyond)"
        axes.set_title(name, pad=14)
        axes.set(xlabel=f"difficulty{beyond}", ylabel="samples")
        axes.yaxis.set_major_formatter("{x:,.0f}")
        if logarithmic:
            axes.set_xscale("log")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(difficulties) :]:
        axes.set_visible(False)
    figure.suptitle(title)
    figure.savefig(path, dpi=130)
