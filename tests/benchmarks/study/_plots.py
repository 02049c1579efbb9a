"""The pictures of docs/evidence.md."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataeff.report._figure import new_figure
from tests.benchmarks.study import _analysis as analysis
from tests.benchmarks.study._analysis import Result

COLOURS = ("#444444", "#d1495b", "#00798c", "#edae49", "#66a182", "#8d6a9f", "#b07d4b", "#5f7fbf")


def at_the_end(results: Sequence[Result], path: Path, *, arms: Sequence[str]) -> None:
    """Loss at the end against what runs consumed: data, FLOPs and time; a point a share of the data."""
    axes = {"tokens": "million tokens", "flops": "TFLOPs", "seconds": "seconds of one core, index included"}
    scale = {"tokens": 1e6, "flops": 1e12, "seconds": 1.0}
    figure = new_figure(11, 3.8)
    places, drawn = figure.subplots(1, 3, sharey=True), _at_best(results, arms)
    for place, (axis, title) in zip(places, axes.items(), strict=True):
        for (name, groups), colour in zip(drawn.items(), COLOURS, strict=False):
            _points(
                place,
                list(groups.values()),
                _scaled(analysis.consumed(axis), scale[axis]),
                analysis.loss,
                name,
                colour,
            )
        place.set_xlabel(title)
        place.grid(alpha=0.25)
    places[0].set_ylabel("validation loss, nats a token")
    places[-1].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def on_the_way(results: Sequence[Result], path: Path, *, arms: Sequence[str]) -> None:
    """Validation loss of runs with as much data as there is, against tokens and FLOPs consumed so far."""
    figure = new_figure(9, 3.8)
    places, drawn = figure.subplots(1, 2, sharey=True), _at_best(results, arms)
    for place, (axis, scale, title) in zip(
        places, (("tokens", 1e6, "million tokens"), ("flops", 1e12, "TFLOPs")), strict=True
    ):
        for (name, groups), colour in zip(drawn.items(), COLOURS, strict=False):
            for i, run in enumerate(groups[max(groups)] if groups else []):
                x = [row[axis] / scale for row in run["curve"]]
                y = [row["validation_loss"] for row in run["curve"]]
                place.plot(x, y, color=colour, alpha=0.8, lw=1.2, label=None if i else name)
        place.set_xlabel(title)
        place.grid(alpha=0.25)
    places[0].set_ylabel("validation loss, nats a token")
    places[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def accuracy(results: Sequence[Result], path: Path, *, x: Callable[[Result], float], label: str) -> None:
    """Accuracy at the end against what it took, an arm a colour."""
    arms = dict.fromkeys(run["arm"] for run in results)
    figure = new_figure(6.4, 3.8)
    place = figure.subplots()
    for arm, colour in zip(arms, COLOURS, strict=False):
        _points(
            place, _groups(results, arm), x, lambda run: 100 * analysis.final("accuracy")(run), arm, colour
        )
    place.set_xlabel(label)
    place.set_ylabel("held-out accuracy, %")
    place.grid(alpha=0.25)
    place.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


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
    colour: str,
) -> None:
    """Means with bars of 95% over seeds, joined in order of cost; hollow where each is of one seed."""
    pairs = sorted(
        (np.mean([x(run) for run in runs]), analysis.estimate(map(y, runs))) for runs in groups if runs
    )
    if not pairs:
        return
    costs, found = [cost for cost, _ in pairs], [each for _, each in pairs]
    means, halves = [each.mean for each in found], [each.half for each in found]
    if all(each.seeds == 1 for each in found):
        place.plot(
            costs, means, color=colour, marker="o", mfc="white", ms=4, lw=1.4, label=f"{title}, 1 seed"
        )
        return
    place.errorbar(costs, means, yerr=halves, color=colour, marker="o", ms=4, lw=1.4, capsize=3, label=title)
