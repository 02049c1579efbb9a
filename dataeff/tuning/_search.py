"""What is searched: the grids, and how a probe is judged."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import attrs

from dataeff._check import is_real, is_seed, is_whole, real, whole
from dataeff.tuning._config import Config
from dataeff.tuning._stability import check_factor


def _grid(values: Any) -> tuple[Any, ...]:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ValueError(f"{values!r} is no grid; expected rising numbers, as range(8, 129, 8) or [1, 5, 25]")
    return tuple(value.item() if hasattr(value, "item") else value for value in values)


@attrs.frozen(kw_only=True)
class Search:
    """What is searched, and how a probe is judged: what `tune` is given, and a log is of.

    Examples:
        >>> search = Search(starts=range(8, 129, 8), durations=[500, 1000, 2000], end=1024, warmup=100)
        >>> search.steps, search.most_probes()
        (300, 12)
    """

    starts: tuple[float, ...] = attrs.field(converter=_grid)
    """First difficulties, rising: the smallest that is stable is sought."""
    durations: tuple[int, ...] = attrs.field(converter=_grid)
    """Durations of the pace in steps, rising: the longest that is stable is sought."""
    end: float = attrs.field(validator=is_real())
    """The last difficulty, above all starts."""
    warmup: int = attrs.field(validator=is_whole(1))
    """Of the learning rate, in steps."""
    warmups: int = attrs.field(default=3, validator=is_whole(1))
    """How many of them a probe trains for."""
    multiple: int | None = attrs.field(default=None, validator=attrs.validators.optional(is_whole(1)))
    """Of the pace."""
    factor: float = attrs.field(default=1.3, validator=is_real())
    """Perplexity over its best so far, above which a probe is unstable."""
    fraction: float = attrs.field(default=0.5, validator=is_real())
    """Of the data that the run is to use: the recipe of arXiv 2212.03597 then scales its learning rate by
    1/fraction. 1 leaves the probes of that rate out."""
    seed: int = attrs.field(default=0, validator=is_seed())
    """Of every probe."""

    def __attrs_post_init__(self) -> None:
        for start in self.starts:
            real("a start", start)
        for duration in self.durations:
            whole("a duration", duration, low=1)
        _check_rising("starts", self.starts)
        _check_rising("durations", self.durations)
        if self.starts[-1] >= self.end:
            raise ValueError(
                f"starts go up to {self.starts[-1]} and end is {self.end}; expected all below the end"
            )
        check_factor(self.factor)
        if not 0 < self.fraction <= 1:
            raise ValueError(
                f"fraction is {self.fraction!r}; expected a part of the data, above 0 and at most 1"
            )
        if self.multiple:
            for start in self.starts:
                whole("a start (with multiple=)", start)
            whole("end (with multiple=)", self.end)

    @property
    def steps(self) -> int:
        """How long a probe trains if it stays stable."""
        return self.warmup * self.warmups

    def config(
        self,
        why: str,
        *,
        start: float | None = None,
        duration: int | None = None,
        learning_rate_scale: float = 1,
        batch_scale: float = 1,
    ) -> Config:
        """A probe of this search: with no pace, and the shortest duration, unless it is said."""
        return Config(
            start=self.end if start is None else start,
            end=self.end,
            duration=self.durations[0] if duration is None else duration,
            steps=self.steps,
            learning_rate_scale=learning_rate_scale,
            batch_scale=batch_scale,
            seed=self.seed,
            multiple=self.multiple,
            why=why,
        )

    def most_probes(self, *, anyway: bool = False) -> int:
        """How many probes the search may take: it grows with the logarithm of the grids."""
        scaled = int(self.fraction < 1)
        sanity = 1 + max(scaled, 2 if anyway else 0)
        beside = int(len(self.starts) > 1) + int(len(self.durations) > 2)
        searched = _most(len(self.starts)) + _most(len(self.durations) - 1) + beside + scaled
        return max(3, sanity + searched)


def _most(candidates: int) -> int:
    """The most wanted first, then halves."""
    return 1 + (candidates - 1).bit_length() if candidates else 0


def _check_rising(name: str, values: tuple[float, ...]) -> None:
    if not values:
        raise ValueError(f"{name} is empty; expected at least one")
    for before, after in pairwise(values):
        if before >= after:
            raise ValueError(f"{name} has {after} after {before}; expected each above the one before")
