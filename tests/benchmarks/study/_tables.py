"""The tables of docs/evidence.md, as Markdown, each from the results of one study."""

import math
from collections.abc import Sequence
from typing import Any

from tests.benchmarks.study import _analysis as analysis
from tests.benchmarks.study._analysis import BASELINE, Estimate, Result
from tests.benchmarks.study._study import Study

AXES = {"tokens": "data", "flops": "FLOPs", "seconds": "time"}


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table; the first row is its head, the first column is words.

    Examples:
        >>> print(markdown([("arm", "loss"), ("baseline", "5.0")]))
        | arm | loss |
        | --- | ---: |
        | baseline | 5.0 |
    """
    head, *body = rows
    line = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, line, *body))


def pretraining(results: Sequence[Result]) -> str:
    """Every arm at every share of the data: how good, against the baseline at equal cost, how steady."""
    versus = {axis: analysis.against(results, axis) for axis in AXES}
    rows = [
        ("arm", "data", "seeds", "loss", "bits per byte", *(f"at equal {AXES[a]}" for a in AXES), "rises")
    ]
    for key, runs in in_order(results):
        loss = analysis.estimate(map(analysis.loss, runs))
        bits = analysis.estimate(run["final"]["bits_per_byte"] for run in runs)
        rises = sum(run["fluctuations"] for run in runs)
        diverged = sum(run["divergences"] for run in runs)
        rows.append(
            (
                titled(key[0]),
                f"{key[1]:.0%}",
                str(len(runs)),
                str(loss),
                str(bits),
                *(signed(versus[axis].get(key)) for axis in AXES),
                f"{rises}" + (f", {diverged} diverged" if diverged else ""),
            )
        )
    return markdown(rows)


def factors(results: Sequence[Result]) -> str:
    """How many times less each arm needs to be as good as the baseline with all of the data."""
    rows = [("arm", "seeds", *(f"times less {AXES[axis]}" for axis in AXES))]
    for arm in analysis.compared(results):
        found = [analysis.factor(results, arm, axis) for axis in AXES]
        rows.append((titled(arm), str(found[0][0].seeds), *(times(*each) for each in found)))
    return markdown(rows)


def savings(results: Sequence[Result], arms: Sequence[str]) -> str:
    """What a run of as many tokens saves on paper and in time, and both at equal loss."""
    by, rows = analysis.grouped(results), [("arm", "data", "FLOPs saved", "time saved", "of it realized")]
    for (arm, fraction), runs in by.items():
        if arm not in arms or (BASELINE, fraction) not in by:
            continue
        flops, seconds = (_saved(runs, by[BASELINE, fraction], axis) for axis in ("flops", "seconds"))
        rows.append(
            (titled(arm), f"{fraction:.0%}", f"{flops:.1%}", f"{seconds:.1%}", f"{seconds / flops:.2f}")
        )
    return markdown(rows)


def _saved(runs: Sequence[Result], base: Sequence[Result], axis: str) -> float:
    own, whole = (sum(run["totals"][axis] for run in each) / len(each) for each in (runs, base))
    return 1 - own / whole


def selection(results: Sequence[Result]) -> str:
    """What finding the difficulty of all samples took, once, beside what a run takes."""
    run = analysis.estimate(
        r["totals"]["seconds"] for r in results if r["arm"] == BASELINE and r["fraction"] == 1
    )
    took: dict[str, list[float]] = {}
    for result in results:
        if metric := result["config"]["metric"]:
            took.setdefault(metric, []).append(result["index_seconds"])
    rows = [("metric", "seconds to index", "of a baseline run")]
    rows += [(f"`{m}`", f"{max(s):.1f}", f"{max(s) / run.mean:.1%}") for m, s in took.items()]
    return markdown(rows)


def measures(results: Sequence[Result], columns: dict[str, tuple[tuple[str, ...], str]]) -> str:
    """Any figures of every arm. A column has a title, where in a result it is, and its format."""
    rows = [("arm", "data", "seeds", *columns)]
    for (arm, fraction), runs in in_order(results):
        cells = []
        for place, shown in columns.values():
            found = analysis.estimate(_at(run, place) for run in runs)
            half = "" if math.isnan(found.half) or place[0] == "totals" else f" ± {found.half:{shown}}"
            cells.append(f"{found.mean:{shown}}{half}")
        rows.append((titled(arm), f"{fraction:.0%}", str(len(runs)), *cells))
    return markdown(rows)


def scaling(sizes: Sequence[Sequence[Result]], arm: str = "composed") -> str:
    """An arm against the baseline at several sizes, and the line through it."""
    rows = [
        ("parameters", "seeds", "baseline", f"{titled(arm)}, 50%", f"{titled(arm)}, 100%", "times less data")
    ]
    x, y = [], []
    for results in sizes:
        by, (own, bound) = analysis.grouped(results), analysis.factor(results, arm, "tokens")
        size, by_seed = results[0]["parameters"], analysis.factors(results, arm, "tokens")[0]
        x += [size] * len(by_seed)
        y += by_seed
        losses = (
            str(analysis.estimate(map(analysis.loss, by[key])))
            for key in ((analysis.BASELINE, 1.0), (arm, 0.5), (arm, 1.0))
        )
        rows.append((f"{size:,}", str(own.seeds), *losses, times(own, bound)))
    line = analysis.slope(x, y)
    return (
        f"{markdown(rows)}\n\nThe factor changes by {signed(line)} with ten times the parameters: least "
        "squares over all seeds, 95% interval."
    )


def again(found: Sequence[dict[str, Any]]) -> str:
    """Losses of the same runs on other instructions or machines."""
    rows = [("run", "loss before", "loss again", "instructions", "date")]
    for own in found:
        words = ", ".join([own["instructions"], *(f"{k}={v}" for k, v in own["limits"].items())])
        name = f"`{own['study']}` `{own['run']}`"
        rows.append((name, f"{own['before']['loss']:.4f}", f"{own['loss']:.4f}", words, own["date"][:10]))
    return markdown(rows)


def _at(result: Result, place: tuple[str, ...]) -> float:
    value: Any = result
    for name in place:
        value = value[name]
    return float(value)


def provenance(studies: Sequence[tuple[Study, Sequence[Result]]]) -> str:
    """Where the figures come from: how much of each study is done, when, on what and with which versions."""
    rows = [("study", "runs done", "dates", "machine", "versions")]
    for study, results in studies:
        dates = sorted(run["date"][:10] for run in results)
        machines = {_machine(run["machine"]) for run in results}
        versions = {
            f"torch {run['versions']['torch']}, Python {run['versions']['python']}" for run in results
        }
        span = " to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else ""
        done = f"{len(results)} of {len(study.runs())}"
        rows.append((f"`{study}`", done, span, "; ".join(sorted(machines)), "; ".join(sorted(versions))))
    return markdown(rows)


def _machine(machine: dict[str, Any]) -> str:
    return machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores"


def in_order(results: Sequence[Result]) -> list[tuple[tuple[str, float], list[Result]]]:
    """Arms in the order in which they come, each from all of the data down."""
    by = analysis.grouped(results)
    arms = list(dict.fromkeys(arm for arm, _ in by))
    return sorted(by.items(), key=lambda item: (arms.index(item[0][0]), -item[0][1]))


def titled(arm: str) -> str:
    """An arm as it is called in the config."""
    return f"`{arm}`"


def signed(difference: Estimate | None) -> str:
    """A difference with its sign; nothing if there is none."""
    if difference is None:
        return ""
    half = "" if math.isnan(difference.half) else f" ± {difference.half:.3f}"
    return f"{difference.mean:+.3f}{half}"


def times(found: Estimate, bound: str) -> str:
    """A factor with its interval, or the bound that it is."""
    half = "" if math.isnan(found.half) or bound == ">=" else f" ± {found.half:.2f}"
    return f"{'at least ' if bound == '>=' else 'less than ' if bound == '<' else ''}{found.mean:.2f}{half}"
