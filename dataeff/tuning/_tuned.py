"""What a search found."""

from collections.abc import Iterable
from typing import Any

import attrs

from dataeff.config import said
from dataeff.pacing import linear
from dataeff.tuning import _log
from dataeff.tuning._notes import notes_on
from dataeff.tuning._probe import Probe
from dataeff.tuning._search import Search
from dataeff.tuning._text import text
from dataeff.tuning._walk import replay


@attrs.frozen
class Tuned:
    """What a search found, as `tune` gives it. It prints as a table of the probes, the pace, and the notes.

    Examples:
        >>> from dataeff import tuning
        >>> search = tuning.Search(starts=[8, 16], durations=[100], end=64, warmup=20)
        >>> tuned = Tuned(search=search, start=8, duration=100, probes=(), notes=())
        >>> tuned.pace(0), tuned.pace(50), tuned.pace(100)
        (8.0, 36.0, 64.0)
    """

    search: Search
    start: float | None
    """The smallest that is stable; None if there is none."""
    duration: int | None
    """The longest that is stable at that start; None if there is no start."""
    probes: tuple[Probe, ...]
    """In the order in which they ran."""
    notes: tuple[str, ...]
    """What else there is to know, and what to do about it."""
    resumed: str = attrs.field(default="", eq=False)
    """How many of the probes were finished before, and in which log."""

    @property
    def pace(self) -> linear | None:
        """From the start to the end over the duration, linearly."""
        if self.start is None:
            return None
        return self.search.config("", start=self.start, duration=self.duration).pace

    def to_json(self) -> dict[str, Any]:
        """Everything in plain numbers, lists and strings."""
        return {
            "start": self.start,
            "duration": self.duration,
            "pace": None if self.pace is None else said("pacings", self.pace),
            "search": attrs.asdict(self.search),
            "probes": [_log.to_json(probe) for probe in self.probes],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        return text(self)


def conclude(search: Search, probes: Iterable[Probe], *, anyway: bool) -> Tuned:
    """What the finished probes of a search say.

    Examples:
        >>> search = Search(starts=[8, 16], durations=[100], end=64, warmup=20)
        >>> conclude(search, [], anyway=False).notes
        ('the search is not finished: run the same again, and it goes on',)
    """
    probes = tuple(probes)
    left, found = replay(search, probes, anyway=anyway)
    return Tuned(
        search=search,
        start=None if found is None else found.start,
        duration=None if found is None else found.duration,
        probes=probes,
        notes=notes_on(search, probes, found, finished=left is None, anyway=anyway),
    )
