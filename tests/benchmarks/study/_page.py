"""docs/evidence.md and its pictures, from page.md and the committed tables: no figure is typed by hand."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.study import _analysis as analysis
from tests.benchmarks.study import _plots, _study, _tables, _work
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
    return list(_work.done(study, Path()).values())


def values() -> dict[str, Callable[[], str]]:
    """What the template may name."""
    gpt = results(_study.load("gpt", "s"))
    return {
        "verdict": lambda: verdict(gpt),
        "gpt_table": _if(gpt, _tables.pretraining),
        "gpt_factors": _if(gpt, _tables.factors),
        "gpt_savings": _if(gpt, lambda found: _tables.savings(found, ("random_ltd", "composed", "tread"))),
        "gpt_selection": _if(gpt, _tables.selection),
        "provenance": lambda: _tables.provenance([(study, results(study)) for study in studies()]),
    }


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
        (
            (arm, analysis.factor(found, arm, "tokens"))
            for arm in dict.fromkeys(a for a, _ in by)
            if arm != "baseline"
        ),
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
    """Draw what there are results for."""
    gpt = results(_study.load("gpt", "s"))
    made = []
    if gpt:
        _plots.at_the_end(gpt, folder / "evidence-gpt.png", arms=MAIN)
        _plots.on_the_way(gpt, folder / "evidence-gpt-curves.png", arms=MAIN)
        made += [folder / "evidence-gpt.png", folder / "evidence-gpt-curves.png"]
    return made


def _if(found: list[Result], make: Callable[[Any], str]) -> Callable[[], str]:
    return lambda: make(found) if found else MISSING
