"""When a run counts as unstable."""

import math
from collections.abc import Iterable

import attrs

from dataeff._check import real

_ROUNDING = 1e-9  # nats: what is exactly at the factor is not above it, however its logarithm was rounded


@attrs.frozen
class Stability:
    """How steady a curve of validation losses is.

    Examples:
        >>> Stability(None, 1.02).stable
        True
    """

    unstable_at: int | None
    """The step at which perplexity rose too far, or the loss was not finite; None if it never did."""
    rise: float
    """The largest perplexity over the best before it: 1 if it never rose, inf if it was not finite."""

    @property
    def stable(self) -> bool:
        """Whether it never rose too far."""
        return self.unstable_at is None


def stability(losses: Iterable[tuple[int, float]], *, factor: float = 1.3) -> Stability:
    """Whether validation perplexity stays within `factor` times its best so far.

    As perplexity is exp(loss), that is loss <= best + ln(factor). A loss that is not finite is unstable at
    once. Nothing is read beyond the first instability, so `losses` may be a run that is still going on.

    Args:
        losses: pairs of step and validation loss, in nats.
        factor: above 1. 1.3 is recalled from arXiv 2108.06084.

    Examples:
        >>> stability([(0, 5.0), (10, 4.0), (20, 4.2)]).stable
        True
        >>> stability([(0, 5.0), (10, 4.0), (20, 4.3), (30, 3.9)]).unstable_at
        20
    """
    allowed, best, rise = math.log(check_factor(factor)), math.inf, 1.0
    for step, loss in losses:
        if not math.isfinite(loss):
            return Stability(step, math.inf)
        rise = max(rise, _perplexity(loss - best))
        if loss > best + allowed + _ROUNDING:
            return Stability(step, rise)
        best = min(best, loss)
    return Stability(None, rise)


def check_factor(factor: float) -> float:
    """`factor`, if perplexity can rise by it.

    Examples:
        >>> check_factor(1)
        Traceback (most recent call last):
        ...
        ValueError: factor is 1; expected a number above 1, as 1.3: perplexity over its best so far
    """
    if real("factor", factor) <= 1:
        raise ValueError(
            f"factor is {factor!r}; expected a number above 1, as 1.3: perplexity over its best so far"
        )
    return factor


def _perplexity(loss: float) -> float:
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
