"""What a search says beside the pace that it found, each with what to do about it."""

from collections.abc import Iterator, Sequence
from itertools import permutations

import attrs

from dataeff.tuning._config import Config
from dataeff.tuning._probe import Probe
from dataeff.tuning._search import Search
from dataeff.tuning._walk import BATCH, PACED, RATE, RECIPE, SCALED


def notes_on(
    search: Search, probes: Sequence[Probe], found: Config | None, *, finished: bool, anyway: bool
) -> tuple[str, ...]:
    """Sentences, in the order in which the search came upon them.

    Examples:
        >>> search = Search(starts=[8, 16], durations=[100], end=64, warmup=20)
        >>> notes_on(search, [], None, finished=False, anyway=False)
        ('the search is not finished: run the same again, and it goes on',)
    """
    by_why = {probe.config.why: probe for probe in probes}
    notes = [*_of_recipe(by_why, anyway=anyway), *_of_rate(search, by_why), *contradictions(probes)]
    if not finished:
        notes.append("the search is not finished: run the same again, and it goes on")
    elif found is not None:
        notes += _at_the_edge(search, found)
    elif anyway or by_why[RECIPE].stable:
        notes.append(
            f"no start up to {search.starts[-1]} is stable over {search.durations[0]:,} steps: allow larger "
            "starts, or lower the learning rate"
        )
    return tuple(notes)


def _of_recipe(by_why: dict[str, Probe], *, anyway: bool) -> Iterator[str]:
    recipe = by_why.get(RECIPE)
    if recipe is None or recipe.stable:
        return
    tried = [f"{why} is {_word(by_why[why])}" for why in (RATE, BATCH) if why in by_why]
    said = f" ({', '.join(tried)})" if tried else ""
    yield (
        f"the recipe is unstable without a pace, at step {recipe.steps:,}: lower the learning rate or raise "
        f"the batch{said}"
    )
    if not anyway:
        yield "nothing is searched with it; where the pace is what is to steady it, search anyway"


def _of_rate(search: Search, by_why: dict[str, Probe]) -> Iterator[str]:
    rate = f"{1 / search.fraction:.4g} times the learning rate, for {search.fraction:.4g} of the data,"
    if SCALED in by_why:
        yield f"{rate} is {_word(by_why[SCALED])} without a pace"
    if PACED in by_why:
        yield f"{rate} is {_word(by_why[PACED])} with the pace that is found"


def _word(probe: Probe) -> str:
    return "stable" if probe.stable else f"unstable at step {probe.steps:,}"


def _at_the_edge(search: Search, found: Config) -> Iterator[str]:
    if found.start == search.starts[0]:
        yield f"start {found.start} is the smallest of the grid: a smaller one may be stable too"
    if found.duration == search.durations[-1]:
        yield f"duration {found.duration:,} is the longest of the grid: a longer one may be stable too"


def contradictions(probes: Sequence[Probe]) -> Iterator[str]:
    """Pairs of probes that the search presumes there are none of: a steadier one that is the unstable one.

    A larger start and a shorter duration are presumed to be steadier.

    Examples:
        >>> list(contradictions([]))
        []
    """
    paced = [probe for probe in probes if probe.config.paced]
    for steady, shaken in permutations(paced, 2):
        if not steady.stable or shaken.stable:
            continue
        a, b = steady.config, shaken.config
        if a.start < b.start and b == attrs.evolve(a, start=b.start):
            said = f"start {a.start} is stable and start {b.start} is not, both over {a.duration:,} steps"
        elif a.duration > b.duration and b == attrs.evolve(a, duration=b.duration):
            said = (
                f"duration {a.duration:,} is stable and duration {b.duration:,} is not, both from {a.start}"
            )
        else:
            continue
        yield (
            f"{said}, against what a binary search presumes: the edge is not sharp; keep away from it, or "
            "search again with longer probes or another seed"
        )
