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

TEMPLATE = Path(__file__).parent / "page.md"
DOCS = Path(__file__).parents[3] / "docs"
MAIN = ("baseline", "seqtru_voc", "random_ltd", "composed")
MISSING = "*Not run yet.*"


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
            [run for run in gpt if run["arm"].startswith("composed") and run["fraction"] == 0.5],
            lambda runs: _tables.measures(runs, LOSS | TIME),
        ),
        "gpt_savings": _if(gpt, lambda runs: _tables.savings(runs, ("random_ltd", "composed", "tread"))),
        "gpt_selection": _if(gpt, _tables.selection),
        "scaling": _if(
            found.get("gpt_w64", []) and found.get("gpt_w192", []),
            lambda _: _tables.scaling([found[f"gpt_{size}"] for size in ("w64", "s", "w192")]),
        ),
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


LOSS = {"loss": (("final", "validation_loss"), ".3f")}
ACCURACY = {"accuracy": (("final", "accuracy"), ".1%")}
TIME = {"TFLOPs": (("totals", "flops"), ".2e"), "seconds": (("totals", "seconds"), ".0f")}
SAMPLES = {"samples": (("totals", "samples"), ",.0f")}


def _without(found: list[Result], word: str) -> list[Result]:
    return [run for run in found if not run["arm"].startswith(word)]


def studies() -> list[Study]:
    """All configs at all sizes that are for people."""
    return [
        _study.load(name, size) for name in _study.names() for size in _study.sizes(name) if size != "toy"
    ]


def verdict(found: list[Result]) -> str:
    """Whether half of the data is enough, in a sentence."""
    by = analysis.grouped(found)
    if ("composed", 0.5) not in by or ("baseline", 1.0) not in by:
        return MISSING
    reached, own, base = analysis.reaches(found, "composed", 0.5)
    best = max(
        ((arm, analysis.factor(found, arm, "tokens")) for arm in analysis.compared(found)),
        key=lambda pair: pair[1][0].mean,
    )
    said = "reaches" if reached else "does **not** reach"
    return (
        f"On two CPU cores, the composed arm with 50% of the data {said} the validation loss of the baseline "
        f"with all of it: {own} against {base} nats a token ({own.seeds} and {base.seeds} seeds, 95% "
        f"intervals). What needs least data for the baseline's loss is {_tables.titled(best[0])}, "
        f"{_tables.times(*best[1])} times less."
    )


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
