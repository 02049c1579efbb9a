"""docs/evidence.md and its pictures, from page.md and the committed tables, of which all its figures are."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks import record
from tests.benchmarks.study import _again, _plots, _study, _tables, _timed, _tuned, _verdict, _work
from tests.benchmarks.study import _analysis as analysis
from tests.benchmarks.study._analysis import Result
from tests.benchmarks.study._study import Study
from tests.benchmarks.study._tables import Column

TEMPLATE = Path(__file__).parent / "page.md"
DOCS = Path(__file__).parents[3] / "docs"
MAIN = ("seqtru_voc", "random_ltd", "composed", "composed_longest", "composed_voc_drop_layers")
ON_THE_WAY = ("seqtru_voc", "composed_longest", "composed_voc_drop_layers")
MISSING = "*No result yet.*"
DUE = "*Due: it needs a GPU.*"


def write(docs: Path = DOCS) -> list[Path]:
    """Write the page and its pictures; gives where they are."""
    images = docs / "images"
    page = docs / "evidence.md"
    page.write_text(text(), encoding="utf-8")
    return [page, *pictures(images)]


def text() -> str:
    """The page: the template with each `{{name}}`, or `{{name of what}}`, filled. KeyError for others."""
    made = values()
    return re.sub(
        r"\{\{(\w+)((?:\s+\w+)*)\}\}",
        lambda found: made[found[1]](*found[2].split()),
        TEMPLATE.read_text(encoding="utf-8"),
    )


def results(study: Study) -> list[Result]:
    """The finished runs in the committed table of a study, in the order of its config, timed side by side."""
    return _timed.corrected(_work.committed(study).values(), _timed.rates(study))


def values() -> dict[str, Callable[..., str]]:
    """What the template may name."""
    tables = [(study, list(_work.committed(study).values())) for study in studies()]
    found = {str(study): _timed.corrected(runs, _timed.rates(study)) for study, runs in tables}
    gpt, images, images_selection, sentences = (
        found.get(name, []) for name in ("gpt_s", "images_s", "images_selection_s", "sentences_s")
    )
    whole = analysis.reference(gpt).get(1.0, [])
    on_gpu = found.get("gpt_m", [])
    return {
        f"{name}_steadiness": _if(found.get(f"{name}_s"), _tables.steadiness) for name in _study.names()
    } | {
        "verdict": lambda: _verdicts(gpt, on_gpu),
        "verdict_table": lambda: _verdict.table(gpt) or MISSING,
        "gpt_m_verdict_table": lambda: _verdict.table(on_gpu) or DUE,
        "gpt_m_factors": lambda: _tables.factors(on_gpu) if on_gpu else "",
        "gpt_m_table": lambda: (
            _tables.measures(on_gpu, LOSS | BITS | DROPPED | TOKENS | TIME, COSTS) if on_gpu else ""
        ),
        "bert_m_table": lambda: (
            _tables.measures(runs, LOSS | ACCURACY | TIME, COSTS) if (runs := found.get("bert_m")) else DUE
        ),
        "times": lambda arm, axis: str(analysis.factor(gpt, arm, axis) or MISSING),
        "loss": partial(_loss, gpt),
        "ahead": lambda arm, share: _tables.signed(_ahead(gpt, arm, share)) or MISSING,
        "part": partial(_part, gpt),
        "sd": lambda arm, share: f"{analysis.spread(gpt, arm, int(share) / 100):.3f}",
        "gpt_picture": _picture(gpt, "gpt", "Loss at the end against data, FLOPs and time, by arm"),
        "gpt_curves": _picture(
            gpt, "gpt-curves", "Validation loss on the way against tokens and FLOPs, by arm"
        ),
        "gpt_table": _measured(gpt, LOSS | BITS | TOKENS | WINDOWS, COSTS),
        "gpt_factors": _if(gpt, _tables.factors),
        "gpt_tried": _if(
            [
                run
                for run in gpt
                if run["arm"].startswith(TRIED)
                and not run["arm"].endswith("_layers")
                and run["fraction"] == 0.5
            ],
            lambda runs: _tables.measures(runs, LOSS | DROPPED | TIME),
        ),
        "gpt_by_layers": _if(
            [
                run
                for run in gpt
                if (run["arm"].endswith("_layers") and run["fraction"] == 0.5) or run in whole
            ],
            lambda runs: _tables.measures(runs, LOSS | DROPPED | TOKENS | TIME),
        ),
        "gpt_tuned": _tuned_table,
        "gpt_savings": _if(gpt, lambda runs: _tables.savings(runs, _timed.rates(_study.load("gpt", "s")))),
        "gpt_selection": _if(gpt, _tables.selection),
        "scaling": lambda: _scaling([found[f"gpt_{size}"] for size in WIDTHS]),
        "scaling_picture": _picture(found["gpt_w64"], "gpt-widths", "Factor of data by size of the model"),
        "gpt_w64_table": _measured(found["gpt_w64"], LOSS | DROPPED, ()),
        "gpt_w192_table": _measured(found["gpt_w192"], LOSS | DROPPED, ()),
        "bert_picture": _picture(found["bert_s"], "bert", "Loss of masked tokens against FLOPs, by arm"),
        "causal_lm_picture": _picture(found["causal_lm_s"], "causal-lm", "Perplexity against FLOPs, by arm"),
        "sentences_picture": _picture(
            _without(sentences, "importance"), "sentences", "Accuracy against time, by arm"
        ),
        "bert_table": _measured(found["bert_s"], LOSS | ACCURACY | TIME, COSTS),
        "causal_lm_table": _measured(found["causal_lm_s"], LOSS | PERPLEXITY | TRAINED | WORK, COSTS[:2]),
        "sentences_table": _measured(_without(sentences, "importance"), ACCURACY | LOSS | TIME, COSTS[1:]),
        "images_table": _measured(images, ACCURACY | LOSS | TIME, COSTS[1:]),
        "images_picture": _picture(images, "images", "Accuracy against time, by arm"),
        "images_selection_table": _measured(images_selection, SELECTION | TIME, ["samples"]),
        "images_selection_picture": _picture(
            images_selection, "images-selection", "Accuracy against samples back-propagated, by arm"
        ),
        "sentences_selection_table": _measured(_without(sentences, "random_ltd"), SELECTION, ["samples"]),
        "sentences_selection_picture": _picture(
            _without(sentences, "random_ltd"),
            "sentences-selection",
            "Accuracy against samples back-propagated, by arm",
        ),
        "again": _again_table,
        "gpt_arms": lambda: _tables.arms(_study.load("gpt", "s")),
        "provenance": lambda: _tables.provenance(tables),
    }


LOSS = {"loss": Column(analysis.loss)}
ACCURACY = {"accuracy": Column(analysis.final("accuracy"), ".1%")}
BITS = {"bits per byte": Column(analysis.final("bits_per_byte"))}
WORK = {
    "steps": Column(analysis.consumed("steps"), ",.0f", interval=False),
    "TFLOPs": Column(lambda run: run["totals"]["flops"] / 1e12, ".1f", interval=False),
}
TIME = WORK | {
    "seconds": Column(analysis.consumed("seconds"), ".0f", interval=False),
    "as run": Column(analysis.as_run, ".0f", interval=False),
}
TRAINED = {
    "thousand tokens": Column(lambda run: run["totals"]["tokens"] / 1e3, ".1f", interval=False),
}
WINDOWS = {
    "thousand windows": Column(lambda run: run["totals"]["samples"] / 1e3, ".2f", interval=False),
}
TOKENS = {
    "million tokens": Column(lambda run: run["totals"]["tokens"] / 1e6, ".2f", interval=False),
}
DROPPED = {"dropped": Column(analysis.dropped, ".1%", interval=False)}
SELECTION = (
    ACCURACY
    | LOSS
    | {
        "back-propagated": Column(analysis.consumed("samples"), ",.0f", interval=False),
        "of those offered": Column(
            lambda run: run["totals"]["samples"] / offered(run), ".1%", interval=False
        ),
    }
)
COSTS = ("tokens", "flops", "seconds")
PERPLEXITY = {"perplexity": Column(analysis.final("perplexity"), ".2f")}
TRIED = ("baseline", "composed")
"""Arms whose names begin so were tried for half of the data; those that count by layers are told apart."""


WIDTHS = ("w64", "s", "w192")


def _verdicts(gpt: list[Result], on_gpu: list[Result]) -> str:
    """Of the larger size first, where there is one."""
    said = [_verdict.verdict(on_gpu, "On one GPU (size M"), _verdict.verdict(gpt, "On CPU cores (size S")]
    due = "" if said[0] else "The larger size, for a GPU, is due."
    return " ".join(filter(None, [*said, due])) if any(said) else MISSING


def _loss(gpt: list[Result], arm: str, share: str) -> str:
    """Of an arm with `share` percent of the data."""
    runs = analysis.grouped(gpt).get((arm, int(share) / 100))
    return str(analysis.estimate(map(analysis.loss, runs))) if runs else MISSING


def _ahead(gpt: list[Result], arm: str, share: str) -> analysis.Estimate | None:
    """Of the best baseline at equal data."""
    return analysis.against(gpt, "tokens").get((arm, int(share) / 100))


def _part(gpt: list[Result], arm: str, other: str, share: str) -> str:
    """How far an arm is ahead, of how far another is."""
    own, whole = (_ahead(gpt, each, share) for each in (arm, other))
    return f"{own.mean / whole.mean:.0%}" if own and whole else MISSING


def offered(run: Result) -> int:
    """How many samples all epochs of a study of classes have."""
    own = run["config"]["settings"]
    return int(own["epochs"] * own.get("train", own.get("train_on")))


def _again_table() -> str:
    path = _again.path_of()
    return _tables.again(record.read(path)) if path.exists() else MISSING


def _tuned_table() -> str:
    path = _tuned.path_of(_study.load("gpt", "s"))
    return _tables.tuned(record.read(path)["searches"]) if path.exists() else MISSING


def _scaling(sizes: list[list[Result]]) -> str:
    return (_tables.scaling(sizes) if all(sizes) else "") or MISSING


def _without(found: list[Result], word: str) -> list[Result]:
    return [run for run in found if not run["arm"].startswith(word)]


def studies() -> list[Study]:
    """All configs at all sizes that are for people."""
    return [
        _study.load(name, size) for name in _study.names() for size in _study.sizes(name) if size != "toy"
    ]


def pictures(folder: Path) -> list[Path]:
    """Draw what there are results for; gives the files."""
    gpt, bert, causal_lm, images, images_selection, sentences = (
        results(_study.load(name, "s")) for name in _PICTURED
    )
    widths = [results(_study.load("gpt", size)) for size in WIDTHS]
    seconds = {"x": analysis.consumed("seconds"), "label": "seconds of one core"}
    flops = {"x": lambda run: run["totals"]["flops"] / 1e12, "label": "TFLOPs"}
    due: dict[str, tuple[list[Result], Callable[..., None]]] = {
        "gpt": (gpt, partial(_plots.at_the_end, arms=MAIN)),
        "gpt-curves": (gpt, partial(_plots.on_the_way, arms=ON_THE_WAY)),
        "bert": (
            _without(bert, "untrained"),
            partial(
                _plots.at_cost,
                **flops,
                y=analysis.loss,
                measured="validation loss, nats a masked token",
                best=("seqreo", "voc", "random_ltd", "composed"),
            ),
        ),
        "causal-lm": (
            causal_lm,
            partial(_plots.at_cost, **flops, y=analysis.final("perplexity"), measured="perplexity"),
        ),
        "sentences": (_without(sentences, "importance"), partial(_plots.at_cost, **seconds)),
        "images": (images, partial(_plots.at_cost, **seconds)),
        "images-selection": (images_selection, SELECTED),
        "sentences-selection": (_without(sentences, "random_ltd"), SELECTED),
    }
    made = []
    if all(widths) and _tables.scaling(widths):
        made.append(folder / "evidence-gpt-widths.png")
        _plots.over_sizes(widths, made[-1], arm="composed")
    for name, (found, draw) in due.items():
        if found:
            made.append(folder / f"evidence-{name}.png")
            draw(found, made[-1])
    return made


_PICTURED = ("gpt", "bert", "causal_lm", "images", "images_selection", "sentences")
SELECTED = partial(_plots.at_cost, x=analysis.consumed("samples"), label="samples back-propagated")


def _picture(found: list[Result], name: str, words: str) -> Callable[[], str]:
    return lambda: f"![{words}](images/evidence-{name}.png)" if found else MISSING


def _measured(found: list[Result], columns: dict[str, Column], equal: Sequence[str]) -> Callable[[], str]:
    return _if(found, lambda runs: _tables.measures(runs, columns, equal))


def _if(found: Any, make: Callable[[Any], str]) -> Callable[[], str]:
    return lambda: make(found) if found else MISSING
