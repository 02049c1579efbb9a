"""The first paragraph of docs/evidence.md: whether half of the data is enough."""

from collections.abc import Sequence

from tests.benchmarks.study import _analysis as analysis
from tests.benchmarks.study._analysis import Estimate, Result
from tests.benchmarks.study._tables import AXES, signed, titled

CHOSEN_BY = 1
"""The seed that settings were compared with. Where there are others, the best is judged by them alone."""


def verdict(found: Sequence[Result]) -> str:
    """Whether half of the data is enough, and how much is saved, in a few sentences; "" without results."""
    half = analysis.reaches(found, "composed", 0.5)
    if half is None:
        return ""
    base = analysis.reference(found)[1.0][0]["arm"]
    text = (
        f"On CPU cores (size S), the composed arm with 50% of the data {SAID[half.reached]} the validation "
        f"loss of the best baseline with all of it, {titled(base)}: {_loss(half.own)} against "
        f"{half.base} nats a token ({half.own.seeds} and {half.base.seeds} seeds)."
        + _needs("composed", found)
    )
    of_first = [
        run
        for run in found
        if (run["fraction"], run["seed"]) == (0.5, CHOSEN_BY) and run["arm"].startswith("composed")
    ]
    by_layers = [run for run in of_first if run["arm"].endswith("_layers")]
    by_tokens = [run for run in of_first if not run["arm"].endswith("_layers")]
    if len(by_tokens) > 1:
        best = _best(by_tokens)
        text += (
            f" Of {len(by_tokens)} settings of it at 50%, {titled(best)} is best, which drops "
            f"{_dropped(best, found)} of the tokens that blocks would process: it {_held(best, found)}."
        )
        text += _needs(best, found)
    if by_layers:
        text += _by_layers(by_layers, found)
    return text


def _needs(arm: str, found: Sequence[Result]) -> str:
    """How many times less; "" where that is not known."""
    factors = {words: str(analysis.factor(found, arm, axis) or "") for axis, words in AXES.items()}
    known = [f"of {words} {own}" for words, own in factors.items() if own]
    return (
        f" How many times less it needs for that loss, over all seeds: {', '.join(known)}." if known else ""
    )


SAID = {True: "reaches", False: "does **not** reach", None: "cannot yet be held against"}


def _by_layers(of_first: Sequence[Result], found: Sequence[Result]) -> str:
    """The same where a token counts as much as blocks process it."""
    best = _best(of_first)
    plain = [analysis.loss(run) for run in of_first if run["arm"] == "composed_layers"]
    own, base = analysis.grouped(found)[best, 0.5], analysis.reference(found)[1.0]
    tokens, flops = (
        analysis.estimate(map(analysis.consumed(axis), own)).mean
        / analysis.estimate(map(analysis.consumed(axis), base)).mean
        for axis in ("tokens", "flops")
    )
    return (
        " Counted as in the paper, where a token that half of the blocks process is half consumed, "
        + (f"`composed_layers` is at {_loss(analysis.estimate(plain))} with 50%; " if plain else "")
        + f"of {len(of_first)} settings {titled(best)} is best. With {tokens:.0%} of the tokens and "
        f"{flops:.0%} of the FLOPs it {_held(best, found)}.{_needs(best, found)}"
    )


def _held(best: str, found: Sequence[Result]) -> str:
    """An arm that was chosen, against the baseline with all of the data."""
    others = [run for run in found if run["arm"] != best or run["seed"] != CHOSEN_BY]
    fresh = analysis.reaches(others, best, 0.5)
    held = fresh or analysis.reaches(found, best, 0.5)
    assert held is not None
    by = (
        f"{held.own.seeds} seeds that it was not chosen by" if fresh else "the one seed that it was chosen by"
    )
    beside = signed(held.difference)
    return f"{SAID[held.reached]} that loss, at {_loss(held.own)} ({by}), so {beside} beside it"


def _best(runs: Sequence[Result]) -> str:
    """The arm of the run with the least loss; one that diverged is no such run."""
    return str(min(runs, key=lambda run: analysis.mean_loss([run]))["arm"])


def _loss(own: Estimate) -> str:
    return str(own) or "no loss, as it diverged"


def _dropped(arm: str, found: Sequence[Result]) -> str:
    """What of the tokens bypassed blocks."""
    return f"{analysis.estimate(map(analysis.dropped, analysis.grouped(found)[arm, 0.5])).mean:.1%}"
