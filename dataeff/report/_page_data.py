"""What the page's charts are drawn from."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dataeff._units import unit
from dataeff.report._columns import Moments, column, logs
from dataeff.report._savings import Savings
from dataeff.report._thin import thin
from dataeff.report._words import TITLES, first_axis, with_unit

PACES = {
    "pool": ("Eligible samples (%)", 100),
    "sequence_length": ("Sequence length (tokens)", 1),
    "kept_tokens": ("Kept tokens", 1),
    "lr": ("Learning rate", 1),
}
"""Values of the run's recipe, by convention: what a chart of each is called, and what they are times."""

_POINTS = 4800  # of one value in all runs together: keeps twenty long runs under two megabytes


def chart_data(runs: Mapping[str, Moments], found: Sequence[Savings]) -> str:
    """Curves of all runs as JSON that may stand in a script element, the baseline's first.

    `found` are the savings by each metric that can be chosen, the one shown first at the front. Values are
    rounded to five digits, and axes are in units that the largest reads easily in.

    Examples:
        >>> from dataeff.report._savings import savings
        >>> runs = {"usual": [{"steps": 1, "loss": 4}, {"steps": 2, "loss": 3}]}
        >>> json.loads(chart_data(runs, [savings(runs)]))["runs"]
        [{'name': 'usual', 'x': {'steps': [1, 2]}, 'y': {'loss': [[0, 1], [4, 3]]}}]
    """
    names = list(found[0].bests)
    sizes = {axis: _unit(runs, axis).size for axis in found[0].axes}
    most = max(60, min(240, _POINTS // len(names)))
    keys = {one.metric: 1 for one in found} | {key: times for key, (_, times) in PACES.items()}
    content = {
        "axis": first_axis(found[0].axes),
        "metric": found[0].metric,
        "axes": [_axis(runs, axis) for axis in found[0].axes],
        "metrics": [_metric(one, names, sizes) for one in found],
        "runs": [{"name": name} | _curves(runs[name], name, keys, sizes, most=most) for name in names],
    }
    told = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return told.replace("<", "\\u003c")  # no tag may end the script element


def _axis(runs: Mapping[str, Moments], axis: str) -> dict[str, str]:
    chosen, title = _unit(runs, axis), TITLES[axis]
    label = {"flops": f"Compute ({chosen.name})", "seconds": f"Time ({chosen.name})"}.get(axis, title)
    return {"key": axis, "name": title, "label": label, "suffix": chosen.suffix, "unit": chosen.name}


def _unit(runs: Mapping[str, Moments], axis: str) -> Any:
    return unit(axis, max(_most(moments, axis, name) for name, moments in runs.items()))


def _most(moments: Moments, axis: str, run: str) -> float:
    x = column(moments, axis, run=run)
    return float(x[np.isfinite(x)].max(initial=0))


def _metric(found: Savings, names: Sequence[str], sizes: Mapping[str, float]) -> dict[str, Any]:
    rows = {name: {axis: found.of(name, axis) for axis in found.axes} for name in names}
    return {
        "key": found.metric,
        "label": with_unit(found.metric),
        "higher": found.higher_is_better,
        "best": _short(found.best),
        "end": {axis: _short(row.ended / sizes[axis]) for axis, row in rows[names[0]].items() if row.ended},
        "reached": [
            {
                axis: _short(row.consumed / sizes[axis])
                for axis, row in rows[name].items()
                if row.consumed is not None
            }
            for name in names
        ],
    }


def _curves(
    moments: Moments, run: str, keys: Mapping[str, float], sizes: Mapping[str, float], *, most: int
) -> dict[str, Any]:
    """The axes at the moments that any curve keeps, and each curve as places among these, and values."""
    values = {key: times * column(moments, key, run=run) for key, times in keys.items() if logs(moments, key)}
    kept = {}
    for key, own in values.items():
        finite = np.flatnonzero(np.isfinite(own))
        kept[key] = finite[thin(own[finite], most=most if key not in PACES else most // 2)]
    seen = np.unique(np.concatenate(list(kept.values())))
    axes = {axis: column(moments, axis, run=run)[seen] / size for axis, size in sizes.items()}
    return {
        "x": {axis: list(map(_short, own.tolist())) for axis, own in axes.items() if np.isfinite(own).any()},
        "y": {
            key: [np.searchsorted(seen, own).tolist(), list(map(_short, values[key][own].tolist()))]
            for key, own in kept.items()
        },
    }


def _short(value: float) -> float | int | None:
    if not np.isfinite(value):
        return None
    short = float(f"{value:.5g}")
    return int(short) if short == int(short) and abs(short) < 10**15 else short


def exposures(moments: Moments, *, run: str) -> list[float] | None:
    """How many samples were drawn 0, 1, 2, ... times: the last that was logged. ValueError for no such list.

    Examples:
        >>> exposures([{"exposures": [5, 5]}, {"exposures": [2, 6, 2]}, {"steps": 9}], run="ltd")
        [2, 6, 2]
    """
    given = [moment["exposures"] for moment in moments if moment.get("exposures") is not None]
    listed = [list(counts) for counts in given if np.ndim(counts) or isinstance(counts, list)]
    if not listed:
        return None
    counts = [count.item() if hasattr(count, "item") else count for count in listed[-1]]
    if not all(isinstance(count, int | float) and 0 <= count < np.inf for count in counts) or not sum(counts):
        raise ValueError(
            f"run {run!r}: exposures is {listed[-1]!r}; "
            "expected how many samples were drawn 0, 1, 2, ... times"
        )
    return counts
