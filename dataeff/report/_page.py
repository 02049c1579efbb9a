"""One page about several runs, in one file that needs nothing else."""

import re
from collections.abc import Mapping
from html import escape
from importlib import resources
from pathlib import Path

from dataeff import _files
from dataeff.report import _page_tables as tables
from dataeff.report._columns import Moments, logs
from dataeff.report._page_data import chart_data
from dataeff.report._savings import METRICS, Savings, savings
from dataeff.report._words import TITLES, first_axis, plain

_PLACE = re.compile(r"\{\{(\w+)\}\}")


def save_page(
    runs: Mapping[str, Moments],
    path: str | Path,
    *,
    title: str,
    baseline: str | None = None,
    metric: str | None = None,
    higher_is_better: bool = False,
) -> Savings:
    """Write a self-contained HTML page that compares runs, and give their savings by `metric`.

    It shows what each run saved at equal quality and at equal compute, curves against each axis, the pool,
    sequence length, kept tokens and learning rate where they were logged, how often samples came, and what
    was consumed. It loads nothing, whole or not at all is written, and the same runs give the same bytes.

    Args:
        runs: name of a run to its moments, as `read_runs` gives them.
        path: of the page.
        title: at its top.
        baseline: a name; the first by default.
        metric: what to compare by first, as in `savings`. Of `validation_loss`, `bits_per_byte` and `loss`,
            those that every run logs can be chosen on the page.
        higher_is_better: of `metric`.

    Raises:
        ValueError: as `savings`.

    Examples:
        >>> import tempfile
        >>> usual = [{"steps": s, "loss": 5 - s} for s in (1, 2, 3)]
        >>> faster = [{"steps": s, "loss": 5 - 2 * s} for s in (1, 2)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = save_page({"usual": usual, "faster": faster}, f"{folder}/report.html", title="Two")
        >>> found.of("faster", "steps").ratio
        2.0
    """
    first = savings(runs, baseline=baseline, metric=metric, higher_is_better=higher_is_better)
    shared = [key for key in METRICS if all(logs(moments, key) for moments in runs.values())]
    others = [savings(runs, baseline=baseline, metric=key) for key in shared if key != first.metric]
    content = page(runs, [first, *others], title=title).encode()
    _files.make_folder(Path(path).parent)
    _files.write(Path(path), lambda file: _files.put(file, content))
    return first


def page(runs: Mapping[str, Moments], found: list[Savings], *, title: str) -> str:
    """The page's HTML. `found` are the savings by each metric, the one shown first at the front."""
    axes = {axis: TITLES[axis] for axis in found[0].axes}
    metrics = {one.metric: plain(one.metric).capitalize() for one in found}
    parts = {
        "title": escape(title),
        "style": _read("page.css"),
        "script": _read("page.js"),
        "verdicts": tables.verdicts(found),
        "compared": tables.compared(found[0]),
        "metric_switch": tables.switch("metric", "Quality", metrics, found[0].metric)
        if len(found) > 1
        else "",
        "axis_switch": tables.switch("axis", "Against", axes, first_axis(found[0].axes)),
        "savings": tables.savings_tables(found),
        "paces": tables.paces(runs),
        "exposures": tables.exposure_bars(runs, found[0].bests),
        "counts": tables.counts_table(runs, found),
        "data": chart_data(runs, found),
    }
    return _PLACE.sub(lambda place: parts[place[1]], _read("page.html"))


def _read(name: str) -> str:
    return resources.files("dataeff.report").joinpath(name).read_text(encoding="utf-8")
