"""What a log holds, as columns of numbers."""

from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat, TypeGuard

import attrs
import numpy as np
from numpy.typing import NDArray

Moments = Sequence[Mapping[str, Any]]

AXES = ("steps", "samples", "tokens", "layer_tokens", "flops", "seconds")
"""What training consumes, as a log calls it."""


@attrs.frozen
class Curve:
    """Finite values against an axis that never falls, where both were logged."""

    x: NDArray[np.float64] = attrs.field(eq=attrs.cmp_using(np.array_equal))
    y: NDArray[np.float64] = attrs.field(eq=attrs.cmp_using(np.array_equal))

    @property
    def end(self) -> float:
        """Where it ends on the axis; nan if nothing was logged."""
        return float(self.x[-1]) if len(self.x) else float("nan")


def column(moments: Moments, key: str, *, run: str) -> NDArray[np.float64]:
    """The value of each moment; nan where it is missing. ValueError for what is no number.

    Examples:
        >>> column([{"loss": 3}, {}, {"loss": 2.5}], "loss", run="ltd").tolist()
        [3.0, nan, 2.5]
        >>> column([{"loss": "high"}], "loss", run="ltd")
        Traceback (most recent call last):
        ...
        ValueError: run 'ltd', moment 1: loss is 'high'; expected a number
    """
    return np.array([_number(moment.get(key), key, run, i) for i, moment in enumerate(moments)], np.float64)


def curve(moments: Moments, axis: str, key: str, *, run: str) -> Curve:
    """`key` against `axis`, of the moments that have both. ValueError for an axis that falls.

    Examples:
        >>> curve([{"steps": 1}, {"steps": 2, "loss": 3.5}], "steps", "loss", run="ltd").x.tolist()
        [2.0]
    """
    x, y = column(moments, axis, run=run), column(moments, key, run=run)
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if (falls := np.flatnonzero(np.diff(x) < 0)).size:
        before, after = x[falls[0] : falls[0] + 2]
        raise ValueError(
            f"run {run!r}: {axis} falls from {before:,.6g} to {after:,.6g}; expected all that was consumed "
            "since the beginning: load the clock's state when a run is resumed"
        )
    return Curve(x, y)


def logs(moments: Moments, key: str) -> bool:
    """Whether any moment has a finite number called `key`.

    Examples:
        >>> logs([{"steps": 1}, {"loss": 3.5}], "loss"), logs([{"loss": float("nan")}], "loss")
        (True, False)
    """
    return any(_is_number(value := moment.get(key)) and np.isfinite(float(value)) for moment in moments)


def _is_number(value: Any) -> TypeGuard[SupportsFloat]:
    if type(value) in (int, float):  # nearly always, and a long log has a million of them
        return True
    return hasattr(value, "__float__") and not isinstance(value, bool) and np.ndim(value) == 0


def _number(value: Any, key: str, run: str, place: int) -> float:
    if value is None:
        return np.nan
    if not _is_number(value):
        raise ValueError(f"run {run!r}, moment {place + 1}: {key} is {value!r}; expected a number")
    return float(value)
