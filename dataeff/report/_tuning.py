"""A search for a pace as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataeff.report._figure import new_figure
from dataeff.tuning import Probe, Tuned

_STABLE, _UNSTABLE = "tab:blue", "tab:red"
_MOST_TICKS = 8


def save_tuning(tuned: Tuned, path: str | Path, *, title: str) -> None:
    """Write a PNG of a search: the curves of its probes, and which starts and durations it tried.

    Numbers are those of the printed table. An unstable probe ends in a cross. The grids are evenly spaced.

    Args:
        tuned: what `dataeff.tuning.tune` gave.
        path: of the PNG.
        title: above the panels.

    Raises:
        ImportError: matplotlib is not installed; the message says how to install it.

    Examples:
        >>> import tempfile
        >>> from dataeff import tuning
        >>> def probe(config):
        ...     return [(0, 5.0), (30, 4.0), (60, 5.0 if config.start < 24 else 3.0)]
        >>> with tempfile.TemporaryDirectory() as out:
        ...     tuned = tuning.tune(probe, starts=[8, 32], durations=[50, 99], end=64, warmup=20, out=out)
        ...     save_tuning(tuned, f"{out}/search.png", title="An example")
        ...     Path(f"{out}/search.png").stat().st_size > 1000
        True
    """
    figure = new_figure(12, 4.8)
    curves, tried = figure.subplots(1, 2)
    _curves(curves, tuned)
    _tried(tried, tuned)
    figure.suptitle(title)
    figure.savefig(path, dpi=130)


def _curves(axes: Any, tuned: Tuned) -> None:
    ends = []
    for number, probe in enumerate(tuned.probes, 1):
        points = [(step, loss) for step, loss in probe.losses if loss is not None]
        if not points:
            continue
        style = "-" if probe.config.paced else "--"
        axes.plot(*zip(*points, strict=True), style, color=_color(probe), linewidth=1.2, alpha=0.8)
        axes.plot(*points[-1], _marker(probe), color=_color(probe), markersize=6, markeredgewidth=1.8)
        ends.append((points[-1], str(number)))
    axes.plot([], [], "--", color="gray", label="without a pace")
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    _finish(axes, "probes", "step", "validation loss (nats)")
    axes.margins(x=0.08)
    for place, numbers in _gathered(ends, room=0.03 * (axes.get_ylim()[1] - axes.get_ylim()[0])):
        axes.annotate(numbers, place, xytext=(7, -3), textcoords="offset points", fontsize=8)


def _gathered(
    ends: list[tuple[tuple[int, float], str]], *, room: float
) -> list[tuple[tuple[int, float], str]]:
    """Curves that end within `room` of one another, at the same step, share a label."""
    labels: list[tuple[tuple[int, float], str]] = []
    for (step, loss), number in sorted(ends, key=lambda end: end[0]):
        if labels and labels[-1][0][0] == step and loss - labels[-1][0][1] < room:
            labels[-1] = labels[-1][0], f"{labels[-1][1]}, {number}"
        else:
            labels.append(((step, loss), number))
    return labels


def _tried(axes: Any, tuned: Tuned) -> None:
    """The grids are evenly spaced, whatever their values are."""
    starts, durations = tuned.search.starts, tuned.search.durations
    columns = [column for column in range(len(durations)) for _ in starts]
    axes.plot(columns, [*range(len(starts))] * len(durations), ".", color="lightgray", markersize=4)
    axes.plot([], [], "o", color=_STABLE, label="stable")
    axes.plot([], [], "x", color=_UNSTABLE, markeredgewidth=1.8, label="unstable")
    for number, probe in enumerate(tuned.probes, 1):
        config = probe.config
        if config.paced and config.learning_rate_scale == config.batch_scale == 1:
            place = durations.index(config.duration), starts.index(config.start)
            axes.plot(*place, _marker(probe), color=_color(probe), markersize=8, markeredgewidth=1.8)
            axes.annotate(str(number), place, xytext=(8, 5), textcoords="offset points", fontsize=8)
    if tuned.start is not None and tuned.duration is not None:
        place = durations.index(tuned.duration), starts.index(tuned.start)
        axes.plot(*place, "o", color="tab:green", markersize=16, fillstyle="none", label="found")
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    _ticks(axes.xaxis, durations)
    _ticks(axes.yaxis, starts)
    axes.margins(0.1)
    _finish(axes, "", "duration (steps)", "start")


def _ticks(axis: Any, values: Sequence[float]) -> None:
    each = -(-len(values) // _MOST_TICKS)
    axis.set_ticks(range(0, len(values), each), [f"{value:,.6g}" for value in values[::each]])


def _finish(axes: Any, title: str, xlabel: str, ylabel: str) -> None:
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _color(probe: Probe) -> str:
    return _STABLE if probe.stable else _UNSTABLE


def _marker(probe: Probe) -> str:
    return "o" if probe.stable else "x"
