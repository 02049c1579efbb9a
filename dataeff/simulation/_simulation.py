"""What a dry run found."""

from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from dataeff.simulation._text import text

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@attrs.frozen(eq=False)
class Simulation:
    """What a sampler's batches would be, as `simulate` gives it. Arrays have an entry for each of `steps`.

    It prints as a table over time, the totals, and the notes.

    Examples:
        >>> import tempfile
        >>> import dataeff as de
        >>> with tempfile.TemporaryDirectory() as out:
        ...     index = de.index.from_values({"loss": range(100)}, out=out)
        ...     growing = de.Curriculum(index, {"loss": de.paced(de.pacing.linear(9, 99, steps=9))})
        ...     found = de.simulate(de.samplers.curriculum(growing, batch_size=4, seed=1))
        ...     found.pool.tolist(), found.exposures.tolist()
        ([10, 20, 30, 40, 50, 60, 70, 80, 90], [...])
    """

    batch_size: int
    samples: int
    """In the index."""
    run: int
    """How many steps the run has."""
    steps: Ints
    """Those looked at, evenly over the run. (moments,) int64."""
    pool: Ints
    """How many samples are eligible. (moments,) int64."""
    difficulty: dict[str, Floats]
    """Of the batch, by metric: the 10th percentile, the mean, the 90th. (moments, 3) float64."""
    bound: dict[str, Floats]
    """How far the curriculum reaches in each metric, in its own units. (moments,) float64."""
    length: Floats | None
    """Tokens of the batch's samples as trained on: mean and most. (moments, 2) float64; None if not known."""
    exposures: Ints
    """How many samples are drawn 0, 1, 2, ... times in the whole run."""
    cohorts: int
    """How many groups of samples enter together."""
    small_cohorts: int
    """How many of them are smaller than a batch."""
    tokens: int | None
    """Trained on in the whole run."""
    dropped: int | None
    """Cut off by truncation in the whole run."""
    plain_tokens: int | None
    """That as many samples have on average, without curriculum or truncation."""
    notes: tuple[str, ...]
    """What does not fit together, and what to do about it."""

    @property
    def saving(self) -> float | None:
        """The share of tokens that is saved against as many plain batches."""
        return None if self.tokens is None or not self.plain_tokens else 1 - self.tokens / self.plain_tokens

    def to_json(self) -> dict[str, Any]:
        """Everything in plain numbers, lists and strings."""
        told = attrs.asdict(self, value_serializer=lambda _, __, value: _plain(value))
        return told | {"saving": self.saving}

    def __str__(self) -> str:
        return text(self)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
