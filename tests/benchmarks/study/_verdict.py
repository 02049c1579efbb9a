"""The beginning of docs/evidence.md: whether half of the data is enough, and how much is saved."""

from collections.abc import Sequence

import attrs

from tests.benchmarks.study import _analysis as analysis
from tests.benchmarks.study._analysis import Estimate, Reached, Result
from tests.benchmarks.study._tables import LESS, markdown, signed, titled

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
    long: bool = False
    """Whether its samples are of the whole length from the start."""


def verdict(found: Sequence[Result], where: str) -> str:
    """Whether half of the data is enough, in a few sentences; "" without results. `where` says on what."""
    recipe, tokens, layers = judged(found)
    if recipe is None:
        return ""
    whole = analysis.reference(found)[1.0]
    said = [
        f"{where}: {whole[0]['parameters'] / 1e6:.1f} million parameters, "
        f"{whole[0]['totals']['tokens'] / 1e6:.2f} million tokens), the composed arm with 50% of the data "
        f"{SAID[recipe.held.reached]} the validation loss of the best baseline with all of it, "
        f"{titled(whole[0]['arm'])}: "
        f"{_loss(recipe.held.own)} against {recipe.held.base} nats a token."
    ]
    if tokens:
        said.append(
            f"The best of {tokens.settings} settings of it, {titled(tokens.arm)}, "
            f"{SAID[tokens.held.reached]} it: {_loss(tokens.held.own)}, "
            f"{signed(tokens.held.difference)} away.{_with_more(found, tokens)} Data are the tokens that a "
            "model processes, as in the paper: what is cut off a sample is not counted. By the samples that "
            "are drawn, with half of the data it had "
            f"{_share(found, tokens.arm, whole, 'samples'):.0%} of the text that the baseline did."
        )
    if layers:
        tokens_share, flops_share = (_share(found, layers.arm, whole, axis) for axis in ("tokens", "flops"))
        said.append(
            "Counted as in the paper, where a token that half of the blocks process is half consumed, the "
            f"best of {layers.settings} settings, {titled(layers.arm)}"
            f"{' (without short samples)' * layers.long}, {SAID[layers.held.reached]} it: "
            f"{_loss(layers.held.own)}, with {tokens_share:.0%} of "
            f"the tokens and {flops_share:.0%} of the FLOPs."
        )
    return " ".join(said)


def table(found: Sequence[Result]) -> str:
    """What the verdict is of: how far from the baseline each is, and how many times less it needs."""
    head = ("with 50%", "what it is", "dropped", "loss", "beside the baseline", "by")
    rows = [(*head, *(f"times less {what}" for what in LESS.values()))]
    for what, own in zip(
        ("the paper's recipe", "best of {}", "best of {}, by layer"), judged(found), strict=True
    ):
        if own is not None:
            dropped = analysis.estimate(map(analysis.dropped, analysis.grouped(found)[own.arm, 0.5])).mean
            losses = _loss(own.held.own), signed(own.held.difference)
            factors = (str(analysis.factor(found, own.arm, axis) or "") for axis in LESS)
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
    by = _seeds(held, " other") if fresh else "the seed that chose it"
    first = next(run for run in of_first if run["arm"] == arm)
    return Judged(arm, len(of_first), held, by, long=first["config"]["arm"]["lengths"] is None)


def _with_more(found: Sequence[Result], best: Judged) -> str:
    """The least share of the data with which it is enough, where half is not."""
    if best.held.reached:
        return ""
    for share in sorted(share for arm, share in analysis.grouped(found) if arm == best.arm and share > 0.5):
        held = analysis.reaches(found, best.arm, share)
        if held is not None and held.reached:
            return f" With {share:.0%} of the data it reaches it: {_loss(held.own)}."
    return ""


def _share(found: Sequence[Result], arm: str, whole: Sequence[Result], axis: str) -> float:
    """What an arm with half of the data consumes, of what the baseline does with all of it."""
    own, base = (
        analysis.estimate(map(analysis.consumed(axis), runs)).mean
        for runs in (analysis.grouped(found)[arm, 0.5], whole)
    )
    return own / base


def _seeds(held: Reached, which: str = "") -> str:
    return f"{held.own.seeds}{which} seed" + "s" * (held.own.seeds > 1)


def _loss(own: Estimate) -> str:
    return str(own) or "no loss, as it diverged"
