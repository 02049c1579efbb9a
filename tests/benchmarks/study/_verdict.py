"""The beginning of docs/evidence.md: whether half of the data is enough, and how much is saved."""

from collections.abc import Sequence

import attrs

from tests.benchmarks.study import _analysis as analysis
from tests.benchmarks.study._analysis import Estimate, Reached, Result
from tests.benchmarks.study._tables import AXES, markdown, signed, titled

CHOSEN_BY = 1
"""The seed that settings were compared with. Where there are others, the best is judged by them alone."""
SAID = {True: "reaches", False: "does **not** reach", None: "cannot yet be held against"}


@attrs.frozen
class Judged:
    """An arm with half of the data, held against the best baseline with all of it."""

    arm: str
    settings: int
    """Of so many it is the best; of one, it was not chosen."""
    held: Reached
    by: str
    """Which seeds."""


def verdict(found: Sequence[Result]) -> str:
    """Whether half of the data is enough, in a few sentences; "" without results."""
    recipe, tokens, layers = judged(found)
    if recipe is None:
        return ""
    whole = analysis.reference(found)[1.0]
    said = [
        f"On CPU cores (size S: {whole[0]['parameters'] / 1e6:.1f} million parameters, "
        f"{whole[0]['totals']['tokens'] / 1e6:.2f} million tokens), the composed arm with 50% of the data "
        f"{SAID[recipe.held.reached]} the validation loss of the best baseline with all of it, "
        f"{titled(whole[0]['arm'])}: "
        f"{_loss(recipe.held.own)} against {recipe.held.base} nats a token."
    ]
    if tokens:
        said.append(
            f"The best of {tokens.settings} settings of it, {titled(tokens.arm)}, "
            f"{SAID[tokens.held.reached]} it: {_loss(tokens.held.own)}, "
            f"{signed(tokens.held.difference)} away."
        )
    if layers:
        own = analysis.grouped(found)[layers.arm, 0.5]
        tokens_share, flops_share = (
            analysis.estimate(map(analysis.consumed(axis), own)).mean
            / analysis.estimate(map(analysis.consumed(axis), whole)).mean
            for axis in ("tokens", "flops")
        )
        said.append(
            "Counted as in the paper, where a token that half of the blocks process is half consumed, the "
            f"best of {layers.settings} settings, {titled(layers.arm)}, {SAID[layers.held.reached]} it: "
            f"{_loss(layers.held.own)}, with {tokens_share:.0%} of "
            f"the tokens and {flops_share:.0%} of the FLOPs."
        )
    return " ".join(said)


def table(found: Sequence[Result]) -> str:
    """What the verdict is of: how far from the baseline each is, and how many times less it needs."""
    head = ("with 50%", "what it is", "dropped", "loss", "beside the baseline", "by")
    rows = [(*head, *(f"times less {AXES[axis]}" for axis in AXES))]
    for what, own in zip(
        ("the paper's recipe", "best of {}", "best of {}, by layer"), judged(found), strict=True
    ):
        if own is not None:
            dropped = analysis.estimate(map(analysis.dropped, analysis.grouped(found)[own.arm, 0.5])).mean
            losses = _loss(own.held.own), signed(own.held.difference)
            factors = (str(analysis.factor(found, own.arm, axis) or "") for axis in AXES)
            said = titled(own.arm), what.format(own.settings), f"{dropped:.1%}"
            rows.append((*said, *losses, own.by, *factors))
    return markdown(rows) if len(rows) > 1 else ""


def judged(found: Sequence[Result]) -> tuple[Judged | None, Judged | None, Judged | None]:
    """The paper's recipe, the best of its settings by tokens, and the best that counts by layer."""
    held = analysis.reaches(found, "composed", 0.5)
    recipe = None if held is None else Judged("composed", 1, held, _seeds(held))
    first = [run for run in found if (run["fraction"], run["seed"]) == (0.5, CHOSEN_BY)]
    first = [run for run in first if run["arm"].startswith("composed")]
    by_layers = [run for run in first if run["arm"].endswith("_layers")]
    by_tokens = [run for run in first if not run["arm"].endswith("_layers")]
    best = _best(by_tokens, found) if len(by_tokens) > 1 else None
    return recipe, best, _best(by_layers, found) if by_layers else None


def _best(of_first: Sequence[Result], found: Sequence[Result]) -> Judged | None:
    """That with the least loss of the first seed; one that diverged is no such run."""
    arm = str(min(of_first, key=lambda run: analysis.mean_loss([run]))["arm"])
    others = [run for run in found if run["arm"] != arm or run["seed"] != CHOSEN_BY]
    fresh = analysis.reaches(others, arm, 0.5)
    held = fresh or analysis.reaches(found, arm, 0.5)
    if held is None:
        return None
    return Judged(arm, len(of_first), held, _seeds(held, " other") if fresh else "the seed that chose it")


def _seeds(held: Reached, which: str = "") -> str:
    return f"{held.own.seeds}{which} seed" + "s" * (held.own.seeds > 1)


def _loss(own: Estimate) -> str:
    return str(own) or "no loss, as it diverged"
