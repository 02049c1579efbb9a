"""The order of the probes: which is next, from the verdicts on those before."""

from collections.abc import Generator, Iterable, Sequence

import attrs

from dataeff.tuning._config import Config
from dataeff.tuning._probe import Probe
from dataeff.tuning._search import Search

RECIPE, RATE, BATCH = "recipe", "half the rate", "twice the batch"
SCALED, PACED = "scaled rate", "scaled rate, paced"
START, DURATION, BESIDE = "start", "duration", "beside"

Asking = Generator[Config, bool, Config | None]


def walk(search: Search, *, anyway: bool = False) -> Asking:
    """Give a probe, be sent whether it is stable, and so on; return the pace that is found, if any.

    Examples:
        >>> walking = walk(Search(starts=[8, 16], durations=[100], end=64, warmup=20, fraction=1))
        >>> next(walking).why, walking.send(True).start, walking.send(False).start
        ('recipe', 8, 16)
    """
    rate = 1 / search.fraction
    sound = yield search.config(RECIPE)
    if not sound:
        yield search.config(RATE, learning_rate_scale=0.5)
        yield search.config(BATCH, batch_scale=2)
        if not anyway:
            return None
    elif rate > 1:
        yield search.config(SCALED, learning_rate_scale=rate)
    shortest = yield from _first_stable([search.config(START, start=start) for start in search.starts])
    if shortest is None:
        return None
    longer = [
        search.config(DURATION, start=shortest.start, duration=duration)
        for duration in reversed(search.durations[1:])
    ]
    found = (yield from _first_stable(longer)) or shortest
    yield from _beside(search, found)
    if rate > 1:
        yield attrs.evolve(found, learning_rate_scale=rate, why=PACED)
    return found


def _first_stable(wanted: Sequence[Config]) -> Asking:
    """The first of `wanted` that is stable, if all after one that is are so too.

    The very first is tried first, since it is the usual answer, and then halves.
    """
    low, high = 0, len(wanted)  # unstable below low, stable from high on
    while low < high:
        middle = 0 if low == 0 and high == len(wanted) else (low + high) // 2
        if (yield wanted[middle]):
            high = middle
        else:
            low = middle + 1
    return wanted[high] if high < len(wanted) else None


def _beside(search: Search, found: Config) -> Generator[Config, bool, None]:
    """The next on the steadier side of each grid, which the search presumes to be stable."""
    larger = search.starts.index(found.start) + 1
    if larger < len(search.starts):
        yield attrs.evolve(found, start=search.starts[larger], why=BESIDE)
    shorter = search.durations.index(found.duration) - 1
    if shorter >= 0:
        yield attrs.evolve(found, duration=search.durations[shorter], why=BESIDE)


def replay(
    search: Search, probes: Iterable[Probe], *, anyway: bool = False
) -> tuple[Config | None, Config | None]:
    """The next probe, if the finished ones leave one to do, and the pace that is found, if they do not.

    Examples:
        >>> search = Search(starts=[8, 16], durations=[100], end=64, warmup=20)
        >>> replay(search, [])[0].why
        'recipe'
    """
    known = {probe.config: probe.stable for probe in probes}
    walking = walk(search, anyway=anyway)
    try:
        asked = next(walking)
        while asked in known:
            asked = walking.send(known[asked])
    except StopIteration as end:
        return None, end.value
    return asked, None


def next_probe(search: Search, probes: Iterable[Probe], *, anyway: bool = False) -> Config | None:
    """The probe to run next, from those that are finished, in any order; None when the search is done.

    A pure function: a search goes on from its log by asking again, and the same log has the same answer. So
    probes may as well be run by a scheduler of your own.

    Args:
        search: what is searched.
        probes: finished ones. What the search would not have asked for is left aside.
        anyway: search even if the recipe is unstable without a pace.

    Examples:
        >>> search = Search(starts=[8, 16, 32], durations=[100, 200], end=64, warmup=20)
        >>> config = next_probe(search, [])
        >>> config.start, config.end, config.steps
        (64, 64, 60)
    """
    return replay(search, probes, anyway=anyway)[0]
