"""The pictures of docs/evidence.md."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from dataeff.report._figure import new_figure
from tests.benchmarks.study import _analysis as analysis
from tests.benchmarks.study._analysis import BASELINE, Result

COLOURS = ("#444444", "#d1495b", "#00798c", "#edae49", "#66a182", "#8d6a9f", "#b07d4b", "#5f7fbf")
STYLES = [(colour, marker) for marker, colour in itertools.product("osD", COLOURS)]
LOSS = "validation loss, nats a token"
COSTS = {
    "tokens": ("million tokens processed", 1e6),
    "samples": ("thousand windows drawn", 1e3),
    "flops": ("TFLOPs", 1e12),
    "seconds": ("seconds of one core, index included", 1.0),
}


def at_the_end(results: Sequence[Result], path: Path, *, arms: Sequence[str]) -> None:
    """Loss at the end against what runs consumed; a point a share of the data. The baseline's is a line."""
    figure = new_figure(10, 7)
    places, drawn = figure.subplots(2, 2, sharey=True), _at_best(results, arms)
    goal = analysis.estimate(map(analysis.loss, drawn["best baseline"][1.0])).mean
    for place, (axis, (title, unit)) in zip(places.flat, COSTS.items(), strict=True):
        place.axhline(goal, color=COLOURS[0], lw=1, ls=":")
        for (name, groups), style in zip(drawn.items(), STYLES, strict=False):
            consumed = _scaled(analysis.consumed(axis), unit)
            _points(place, list(groups.values()), consumed, analysis.loss, name, style)
        _logarithmic(place)
        place.set_xlabel(title)
        place.grid(alpha=0.25)
    for place in places[:, 0]:
        place.set_ylabel(LOSS)
    places[0, 1].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def on_the_way(results: Sequence[Result], path: Path, *, arms: Sequence[str]) -> None:
    """Validation loss of runs with as much data as there is, against tokens and FLOPs consumed so far.

    A line is the mean over seeds, which are thin beside it.
    """
    figure = new_figure(9, 3.8)
    places, drawn = figure.subplots(1, 2, sharey=True), _at_best(results, arms)
    for place, axis in zip(places, ("tokens", "flops"), strict=True):
        title, unit = COSTS[axis]
        for (name, groups), (colour, _) in zip(drawn.items(), STYLES, strict=False):
            curves = [run["curve"] for run in groups[max(groups)]] if groups else []
            x, y = (
                np.array([[row[key] for row in curve] for curve in curves])
                for key in (axis, "validation_loss")
            )
            for own_x, own_y in zip(x / unit, y, strict=True):
                place.plot(own_x, own_y, color=colour, alpha=0.35, lw=0.8)
            if len(curves):
                place.plot(x.mean(0) / unit, y.mean(0), color=colour, lw=1.8, label=name)
        place.set_xlabel(title)
        place.grid(alpha=0.25)
    places[0].set_ylabel(LOSS)
    places[1].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def at_cost(
    results: Sequence[Result],
    path: Path,
    *,
    x: Callable[[Result], float],
    label: str,
    y: Callable[[Result], float] = lambda run: 100 * analysis.final("accuracy")(run),
    measured: str = "held-out accuracy, %",
    best: Sequence[str] = (),
) -> None:
    """What runs measured at the end against what they took, an arm a colour, the baseline first.

    Of all arms, or of those in `best`, each at the best of its learning rates.
    """
    arms = sorted(dict.fromkeys(run["arm"] for run in results), key=lambda arm: arm != BASELINE)
    drawn = {name: list(groups.values()) for name, groups in _at_best(results, best).items()}
    drawn = drawn if best else {arm: _groups(results, arm) for arm in arms}
    figure = new_figure(6.4, 4.2)
    place = figure.subplots()
    for (name, groups), style in zip(drawn.items(), STYLES, strict=False):
        _points(place, groups, x, y, name, style)
    place.set_xlabel(label)
    place.set_ylabel(measured)
    place.grid(alpha=0.25)
    place.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def over_sizes(sizes: Sequence[Sequence[Result]], path: Path, *, arm: str) -> None:
    """How many times less data an arm needs, by the size of the model: seeds, means, and the line through."""
    figure = new_figure(6.4, 3.8)
    place = figure.subplots()
    points = [
        (results[0]["parameters"] / 1e6, value)
        for results in sizes
        if (own := analysis.of_two_shares(results, arm)) is not None
        for value in own.values
    ]
    x, y = (np.array(each, float) for each in zip(*points, strict=True))
    place.plot(x, y, "o", color=COLOURS[2], alpha=0.5, ms=5, label="a seed")
    means = [(size, y[x == size].mean()) for size in np.unique(x)]
    place.plot(*zip(*means, strict=True), "D", color=COLOURS[1], ms=6, label="mean")
    ends = np.array([x.min(), x.max()])
    line = analysis.slope(list(x), list(y)).mean * (np.log10(ends) - np.log10(x).mean()) + y.mean()
    place.plot(ends, line, color=COLOURS[0], lw=1.2, label="least squares over seeds")
    _logarithmic(place)
    place.set_xlabel("million parameters, embeddings among them")
    place.set_ylabel(f"times less data, {arm}")
    place.set_ylim(1.0, None)
    place.grid(alpha=0.25)
    place.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def _logarithmic(place: Any) -> None:
    """A logarithmic axis with a few round numbers, for less than a decade."""
    place.set_xscale("log")
    place.xaxis.set_major_locator(MaxNLocator(5))
    place.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    place.xaxis.set_minor_locator(NullLocator())


def _at_best(results: Sequence[Result], arms: Sequence[str]) -> dict[str, dict[float, list[Result]]]:
    """The best baselines and the arms at the best of their learning rates, by the share of the data."""
    found = {"best baseline": analysis.reference(results)}
    for arm in arms:
        found[arm] = {
            share: runs for (_, share), runs in analysis.grouped(analysis.alike(results, arm)).items()
        }
    return found


def _groups(results: Sequence[Result], arm: str) -> list[list[Result]]:
    return [runs for (name, _), runs in sorted(analysis.grouped(results).items()) if name == arm]


def _scaled(value: Callable[[Result], float], unit: float) -> Callable[[Result], float]:
    return lambda run: value(run) / unit


def _points(
    place: Any,
    groups: Sequence[Sequence[Result]],
    x: Callable[[Result], float],
    y: Callable[[Result], float],
    title: str,
    style: tuple[str, str],
) -> None:
    """Means with bars of 95% over seeds, joined in order of cost; hollow where each is of one seed."""
    pairs = sorted(
        (np.mean([x(run) for run in runs]), analysis.estimate(map(y, runs))) for runs in groups if runs
    )
    if not pairs:
        return
    costs, found = [cost for cost, _ in pairs], [each for _, each in pairs]
    means, halves = [each.mean for each in found], [each.half for each in found]
    colour, marker = style
    one = all(each.seeds == 1 for each in found)
    place.errorbar(
        costs,
        means,
        yerr=halves,
        color=colour,
        marker=marker,
        mfc="white" if one else colour,
        ms=4,
        lw=1.4,
        capsize=3,
        label=f"{title}{', 1 seed' * one}",
    )
