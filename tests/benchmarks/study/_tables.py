"""The tables of docs/evidence.md, as Markdown, each from the results of one study."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np

from tests.benchmarks.study import _analysis as analysis
from tests.benchmarks.study._analysis import BASELINE, Estimate, Result
from tests.benchmarks.study._study import Study

AXES = {"tokens": "data", "flops": "FLOPs", "seconds": "time"}
EQUAL = AXES | {"samples": "samples"}
LESS = AXES | {"samples": "text"}
"""What an arm needs less of: data are tokens that a model processes, text is what samples are drawn of."""


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table; the first row is its head. Columns of figures are set right, those of words left.

    Examples:
        >>> print(markdown([("arm", "loss", "router"), ("baseline", "5.0", ""), ("a", "", "span")]))
        | arm | loss | router |
        | --- | ---: | --- |
        | baseline | 5.0 |  |
        | a |  | span |
    """
    head, *body = rows
    figures = [all(_FIGURE.match(cell) for cell in column) for column in zip(*body, strict=True)]
    line = ["---:" if body and figure else "---" for figure in figures or [False] * len(head)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, line, *body))


_FIGURE = re.compile(r"$|[-+]?\d[\d,.]*%?( ± [\d.]+%?)?$|at least|less than|about")


def steadiness(results: Sequence[Result]) -> str:
    """How often the loss rose on the way, and which runs diverged."""
    rises = sum(run["fluctuations"] for run in results)
    looks = sum(len(run["curve"]) for run in results)
    diverged = sum(run["diverged"] for run in results)
    by = analysis.grouped(results).items()
    rose = [
        f"{titled(arm)} with {fraction:.0%} {many}"
        for (arm, fraction), runs in by
        if (many := sum(run["fluctuations"] for run in runs))
    ]
    which = [
        f"{titled(arm)} with {fraction:.0%} ({many} of {len(runs)})"
        for (arm, fraction), runs in by
        if (many := sum(run["diverged"] for run in runs))
    ]
    return (
        f"{rises} of {looks} evaluations on the way had a loss above the best before"
        f"{' (' * bool(rose)}{', '.join(rose)}{')' * bool(rose)}, and {diverged} of "
        f"{len(results)} runs diverged{': ' * bool(which)}{', '.join(which)}."
    )


def factors(results: Sequence[Result]) -> str:
    """How many times less each arm needs to be as good as the baseline with all of the data."""
    rows = [("arm", "seeds", *(f"times less {what}" for what in LESS.values()))]
    told: set[str] = set()
    for arm in dict.fromkeys(run["arm"] for run in results if not run["arm"].startswith(BASELINE)):
        found = [factor for axis in LESS if (factor := analysis.factor(results, arm, axis))]
        names = list(dict.fromkeys(run["arm"] for run in analysis.alike(results, arm)))
        if found and not told & set(names):
            told |= set(names)
            rows.append((", ".join(map(titled, names)), str(found[0].times.seeds), *map(str, found)))
    return markdown(rows)


def savings(results: Sequence[Result], rates: dict[str, list[float]]) -> str:
    """What an arm with a router saves on as many tokens, on paper and in time, by rounds of timing.

    Of arms that differ in the learning rate alone it is the one with the most data.
    """
    by, head = analysis.grouped(results), ("arm", "data", "FLOPs saved", "time saved", "least", "most")
    found: dict[str, tuple[float, list[str]]] = {}
    for (arm, fraction), runs in by.items():
        base = {run["seed"]: run for run in by.get((BASELINE, fraction), [])}
        pairs = [(run, base[run["seed"]]) for run in runs if run["seed"] in base]
        own = runs[0]["config"]["arm"]
        alike = own["lengths"] is None and own["budget"] == "tokens"  # else attention is cheaper, too
        if not pairs or arm not in rates or own["router"] is None or not alike:
            continue
        flops = analysis.estimate(run["totals"]["flops"] / plain["totals"]["flops"] for run, plain in pairs)
        saved = 1 - flops.mean * np.array(rates[arm]) / np.array(rates[BASELINE])
        cells = (1 - flops.mean, np.median(saved), saved.min(), saved.max())
        work = analysis.work_of(runs[0]["config"])
        if work not in found or found[work][0] < fraction:
            found[work] = fraction, [titled(arm), f"{fraction:.0%}", *(f"{cell:.1%}" for cell in cells)]
    return markdown([head, *(row for _, row in found.values())])


def selection(results: Sequence[Result]) -> str:
    """What finding the difficulty of all samples took, once, beside what a run takes."""
    whole = analysis.reference(results).get(1.0)
    took: dict[str, float] = {}
    for result in results:
        if metric := result["config"]["arm"]["metric"]:
            took[metric] = max(result["index_seconds"], took.get(metric, 0.0))
    rows = [("metric", "seconds to index", "of a baseline run")]
    if whole:
        run = analysis.estimate(result["totals"]["seconds"] for result in whole)
        rows += [(f"`{metric}`", f"{s:.1f}", f"{s / run.mean:.1%}") for metric, s in took.items()]
    return markdown(rows)


@attrs.frozen
class Column:
    """A figure of runs: what it is of one, and how it is shown."""

    value: Callable[[Result], float]
    shown: str = ".3f"
    interval: bool = True


def measures(results: Sequence[Result], columns: dict[str, Column], equal: Sequence[str] = ()) -> str:
    """Any figures of every arm, by the columns' titles; the first against the baseline at equal cost, too."""
    first = next(iter(columns.values()))
    versus = [analysis.against(results, axis, first.value) for axis in equal]
    rows = [("arm", "data", "seeds", *columns, *(f"at equal {EQUAL[axis]}" for axis in equal))]
    for key, runs in analysis.grouped(results).items():
        cells = []
        for column in columns.values():
            found = analysis.estimate(map(column.value, runs))
            found = found if column.interval else attrs.evolve(found, half=math.nan)
            cells.append(found.shown(column.shown))
        cells += [signed(found.get(key), first.shown) for found in versus]
        rows.append((titled(key[0]), f"{key[1]:.0%}", str(len(runs)), *cells))
    return markdown(rows)


def scaling(sizes: Sequence[Sequence[Result]], arm: str = "composed") -> str:
    """An arm against the baseline at several sizes, and a line through the means; "" if one is not done."""
    title = titled(arm)
    rows = [("parameters", "seeds", "baseline", f"{title}, 50%", f"{title}, 100%", "times less data")]
    x: list[int] = []
    y: list[float] = []
    means: list[float] = []
    bounds = ""
    for results in sizes:
        arms = [run for run in analysis.alike(results, arm) if run["fraction"] in (0.5, 1.0)]
        by, own = analysis.grouped(arms), analysis.of_two_shares(results, arm)
        whole = analysis.reference(run for run in results if run["arm"] in analysis.RATES).get(1.0)
        if own is None or whole is None or len(by) < 2:
            return ""
        x += [results[0]["parameters"]] * len(own.values)
        y += own.values
        means.append(own.times.mean)
        bounds += own.bound
        shares = sorted(by, key=lambda key: key[1])
        losses = (
            str(analysis.estimate(map(analysis.loss, runs))) for runs in (whole, *(by[key] for key in shares))
        )
        rows.append((f"{x[-1]:,}", str(own.times.seeds), *losses, str(own)))
    if bounds:
        return f"{markdown(rows)}\n\nA bound is no point of a line, so there is none."
    return (
        f"{markdown(rows)}\n\nWith ten times the parameters, embeddings among them, the factor changes by "
        f"{signed(analysis.slope(x, y))}: least squares over {len(x)} pairs of size and seed, 95% interval. "
        "That takes seeds for sizes; of the "
        f"{len(means)} means alone it is {signed(analysis.slope(list(dict.fromkeys(x)), means), '.1f')}."
    )


def tuned(searches: Sequence[dict[str, Any]]) -> str:
    """What the tuner tried and found, a row a search; durations are shares of the baseline's steps."""
    rows = [("pace", "arm", "starts", "durations", "probes", "unstable", "start", "duration", "steps in all")]
    for found in searches:
        searched, probes = found["search"], found["probes"]
        share = found["settings"][f"{found['paced']}_share"] / found["duration"]
        starts, durations = searched["starts"], [f"{share * steps:.0%}" for steps in searched["durations"]]
        rows.append(
            (
                titled(found["paced"]),
                titled(found["arm"]),
                f"{starts[0]} to {starts[-1]}",
                f"{durations[0]} to {durations[-1]}",
                str(len(probes)),
                str(sum(not probe["stable"] for probe in probes)),
                str(found["start"]),
                f"{share * found['duration']:.0%}",
                f"{sum(probe['losses'][-1][0] for probe in probes):,}",
            )
        )
    if all(probe["stable"] for found in searches for probe in found["probes"]):
        return f"{markdown(rows)}\n\nEvery probe was stable, so what was found are ends of the grids."
    return markdown(rows)


def again(found: Sequence[dict[str, Any]]) -> str:
    """Losses of the same runs on other instructions or machines."""
    rows = [("run", "loss before", "loss again", "instructions", "date")]
    for own in found:
        words = ", ".join([own["instructions"], *(f"{k}={v}" for k, v in own["limits"].items())])
        name = f"`{own['study']}` `{own['run']}`"
        rows.append((name, f"{own['before']['loss']:.4f}", f"{own['loss']:.4f}", words, own["date"][:10]))
    return markdown(rows)


def provenance(studies: Sequence[tuple[Study, Sequence[Result]]]) -> str:
    """Where the figures come from: how much of each study is done, when, on what and with which versions."""
    rows = [("study", "runs done", "hours of a core", "dates", "machine", "versions")]
    for study, results in studies:
        dates = sorted(run["date"][:10] for run in results)
        machines = {_machine(run["machine"]) for run in results}
        versions = {
            f"torch {run['versions']['torch']}, Python {run['versions']['python']}" for run in results
        }
        span = " to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else ""
        done = f"{len(results)} of {len(study.runs())}"
        hours = f"{sum(run['totals']['seconds'] for run in results) / 3600:.1f}"
        rows.append(
            (f"`{study}`", done, hours, span, "; ".join(sorted(machines)), "; ".join(sorted(versions)))
        )
    return markdown(rows)


def _machine(machine: dict[str, Any]) -> str:
    return machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores"


def arms(study: Study) -> str:
    """What each arm of a study is, beside the baseline."""
    rows = [("arm", "metric", "lengths", "router", "counts", "rate", "settings")]
    for name, arm in study.arms.items():
        settings = ", ".join(f"`{key} = {value}`" for key, value in arm.settings.items())
        counts = "by layer" if arm.budget == "layer_tokens" else "tokens"
        said = (arm.metric, arm.lengths, arm.router)
        rows.append((titled(name), *(each or "" for each in said), counts, f"{arm.rate:g}", settings))
    return markdown(rows)


def titled(arm: str) -> str:
    """An arm as it is called in the config."""
    return f"`{arm}`"


def signed(difference: Estimate | None, form: str = ".3f") -> str:
    """A difference with its sign; nothing if there is none."""
    return "" if difference is None else difference.shown(f"+{form}")
