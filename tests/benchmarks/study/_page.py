"""docs/evidence.md and its pictures, from page.md and the committed tables: no figure is typed by hand."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.study import _analysis as analysis
from tests.benchmarks.study import _plots, _study, _tables, _work
from tests.benchmarks.study._again import PATH
from tests.benchmarks.study._analysis import Result
from tests.benchmarks.study._study import Study
from tests.benchmarks.study._tables import Column

TEMPLATE = Path(__file__).parent / "page.md"
DOCS = Path(__file__).parents[3] / "docs"
MAIN = ("baseline", "seqtru_voc", "random_ltd", "composed")
MISSING = "*No result yet.*"


def write(docs: Path = DOCS) -> list[Path]:
    """Write the page and its pictures; gives where they are."""
    images = docs / "images"
    page = docs / "evidence.md"
    page.write_text(text(), encoding="utf-8")
    return [page, *pictures(images)]


def text() -> str:
    """The page: the template with each `{{name}}` filled. KeyError for a name that is none."""
    made = values()
    return re.sub(r"\{\{(\w+)\}\}", lambda found: made[found[1]](), TEMPLATE.read_text(encoding="utf-8"))


def results(study: Study) -> list[Result]:
    """The finished runs in the committed table of a study, in the order of its config."""
    return list(_work.committed(study).values())


def values() -> dict[str, Callable[[], str]]:
    """What the template may name."""
    found = {str(study): results(study) for study in studies()}
    gpt, images, images_selection, sentences = (
        found.get(name, []) for name in ("gpt_s", "images_s", "images_selection_s", "sentences_s")
    )
    return {
        "verdict": lambda: verdict(gpt),
        "gpt_picture": _picture(gpt, "gpt", "Loss at the end against data, FLOPs and time, by arm"),
        "gpt_curves": _picture(
            gpt, "gpt-curves", "Validation loss on the way against tokens and FLOPs, by arm"
        ),
        "gpt_table": _if(gpt, _tables.pretraining),
        "gpt_factors": _if(gpt, _tables.factors),
        "gpt_tried": _if(
            [
                run
                for run in gpt
                if run["arm"].startswith(TRIED)
                and not run["arm"].endswith("_layers")
                and run["fraction"] == 0.5
            ],
            lambda runs: _tables.measures(runs, LOSS | TIME),
        ),
        "gpt_savings": _if(gpt, lambda runs: _tables.savings(runs, ("random_ltd", "composed", "tread"))),
        "gpt_selection": _if(gpt, _tables.selection),
        "scaling": lambda: _scaling([found[f"gpt_{size}"] for size in ("w64", "s", "w192")]),
        "bert_table": _if(
            found.get("bert_s", []), lambda runs: _tables.measures(runs, LOSS | ACCURACY | TIME)
        ),
        "causal_lm_table": _if(
            found.get("causal_lm_s", []), lambda runs: _tables.measures(runs, LOSS | TIME)
        ),
        "sentences_table": _if(
            _without(sentences, "importance"), lambda runs: _tables.measures(runs, ACCURACY | LOSS | TIME)
        ),
        "images_table": _if(images, lambda runs: _tables.measures(runs, ACCURACY | LOSS | TIME)),
        "images_picture": _picture(images, "images", "Accuracy against time, by arm"),
        "images_selection_table": _if(
            images_selection, lambda runs: _tables.measures(runs, ACCURACY | LOSS | SAMPLES | TIME)
        ),
        "images_selection_picture": _picture(
            images_selection, "images-selection", "Accuracy against samples back-propagated, by arm"
        ),
        "sentences_selection_table": _if(
            _without(sentences, "random_ltd"), lambda runs: _tables.measures(runs, ACCURACY | LOSS | SAMPLES)
        ),
        "again": lambda: _tables.again(json.loads(PATH.read_text())) if PATH.exists() else MISSING,
        "provenance": lambda: _tables.provenance([(study, found[str(study)]) for study in studies()]),
    }


LOSS = {"loss": Column(analysis.loss)}
ACCURACY = {"accuracy": Column(lambda run: run["final"]["accuracy"], ".1%")}
TIME = {
    "TFLOPs": Column(lambda run: run["totals"]["flops"] / 1e12, ".1f", interval=False),
    "seconds": Column(analysis.consumed("seconds"), ".0f", interval=False),
}
SAMPLES = {"samples": Column(analysis.consumed("samples"), ",.0f", interval=False)}
PERPLEXITY = {"perplexity": Column(lambda run: run["final"]["perplexity"], ".2f")}
TRIED = ("baseline", "composed")
"""Arms whose names begin so were tried for half of the data; those that count by layers are told apart."""


def _scaling(sizes: list[list[Result]]) -> str:
    return (_tables.scaling(sizes) if all(sizes) else "") or MISSING


def _without(found: list[Result], word: str) -> list[Result]:
    return [run for run in found if not run["arm"].startswith(word)]


def studies() -> list[Study]:
    """All configs at all sizes that are for people."""
    return [
        _study.load(name, size) for name in _study.names() for size in _study.sizes(name) if size != "toy"
    ]


def verdict(found: list[Result]) -> str:
    """Whether half of the data is enough, and how much is saved, in a few sentences."""
    half = analysis.reaches(found, "composed", 0.5)
    if half is None:
        return MISSING
    said = {True: "reaches", False: "does **not** reach", None: "cannot yet be held against"}[half.reached]
    text = (
        f"On CPU cores (size S), the composed arm with 50% of the data {said} the validation loss of the "
        f"baseline with all of it: {half.own} against {half.base} nats a token ({half.own.seeds} and "
        f"{half.base.seeds} seeds)."
    )
    composed = [analysis.factor(found, "composed", axis) for axis in ("tokens", "flops", "seconds")]
    if all(composed):
        data, flops, seconds = composed
        text += (
            f" How many times less it needs for that loss: of the data {data}, of FLOPs {flops}, of time "
            f"{seconds}."
        )
    tried = {
        arm: analysis.estimate(map(analysis.loss, runs))
        for (arm, fraction), runs in analysis.grouped(found).items()
        if fraction == 0.5 and arm.startswith("composed") and not arm.endswith("_layers")
    }
    best = min(tried, key=lambda arm: tried[arm].mean)
    if len(tried) == 1:
        return text
    return f"{text} Of {len(tried)} settings of it at 50%, {_tables.titled(best)} is best, at {tried[best]}."


def pictures(folder: Path) -> list[Path]:
    """Draw what there are results for; gives the files."""
    gpt, images, selection = (
        results(_study.load(name, "s")) for name in ("gpt", "images", "images_selection")
    )
    seconds, samples = analysis.consumed("seconds"), analysis.consumed("samples")
    due: dict[str, tuple[list[Result], Callable[[Path], None]]] = {
        "gpt": (gpt, lambda path: _plots.at_the_end(gpt, path, arms=MAIN)),
        "gpt-curves": (gpt, lambda path: _plots.on_the_way(gpt, path, arms=MAIN)),
        "images": (
            images,
            lambda path: _plots.accuracy(images, path, x=seconds, label="seconds of one core"),
        ),
        "images-selection": (
            selection,
            lambda path: _plots.accuracy(selection, path, x=samples, label="samples back-propagated"),
        ),
    }
    made = []
    for name, (found, draw) in due.items():
        if found:
            made.append(folder / f"evidence-{name}.png")
            draw(made[-1])
    return made


def _picture(found: list[Result], name: str, words: str) -> Callable[[], str]:
    return lambda: f"![{words}](images/evidence-{name}.png)" if found else MISSING


def _if(found: Any, make: Callable[[Any], str]) -> Callable[[], str]:
    return lambda: make(found) if found else MISSING
