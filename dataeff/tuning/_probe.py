"""Run one probe for as long as it is stable."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs

from dataeff._check import whole
from dataeff.tuning._config import Config
from dataeff.tuning._stability import Stability, stability


class ProbeError(RuntimeError):
    """A probe raised, or gave what is no curve. Its cause is the error itself.

    Examples:
        >>> issubclass(ProbeError, RuntimeError)
        True
    """


@attrs.frozen
class Probe:
    """A finished probe.

    Examples:
        >>> config = Config(start=8, end=256, duration=100, steps=60)
        >>> Probe(config, ((0, 5.0), (20, 3.0), (40, 3.1)), Stability(None, 1.1)).best
        3.0
    """

    config: Config
    losses: tuple[tuple[int, float | None], ...]
    """Pairs of step and validation loss in nats, up to the first instability; None is one not finite."""
    stability: Stability
    seconds: float = attrs.field(default=0.0, eq=False)

    @property
    def stable(self) -> bool:
        """Whether perplexity never rose too far."""
        return self.stability.stable

    @property
    def steps(self) -> int:
        """The step of the last validation loss."""
        return self.losses[-1][0]

    @property
    def best(self) -> float | None:
        """The lowest validation loss; None if none is finite."""
        return min((loss for _, loss in self.losses if loss is not None), default=None)


def run(probe: Callable[[Config], Any], config: Config, *, factor: float) -> Probe:
    """What a probe gives until it ends, has trained its steps, or is unstable; then its iterator is closed.

    Raises ProbeError for whatever the probe raises, and for what is no curve.

    Examples:
        >>> config = Config(start=8, end=256, duration=100, steps=60)
        >>> run(lambda config: [(0, 5.0), (20, 6.0), (40, 3.1)], config, factor=1.3).losses
        ((0, 5.0), (20, 6.0))
    """
    began = time.perf_counter()
    losses: list[tuple[int, float]] = []
    try:
        found = _watched(probe(config), config, losses, factor=factor)
        if found.stable and len(losses) < 2:
            raise ValueError(f"it gave {len(losses)} validation losses; expected at least 2")
    except Exception as error:
        raise ProbeError(f"the probe {config} failed: {type(error).__name__}: {error}") from error
    plain = tuple((step, loss if math.isfinite(loss) else None) for step, loss in losses)
    return Probe(config, plain, found, round(time.perf_counter() - began, 3))


def _watched(given: Any, config: Config, losses: list[tuple[int, float]], *, factor: float) -> Stability:
    if not isinstance(given, Iterable):
        raise ValueError(f"it gave {given!r}; expected an iterator of pairs of step and validation loss")
    iterator = iter(given)
    try:
        return stability(_recorded(iterator, config, losses), factor=factor)
    finally:
        if hasattr(iterator, "close"):
            iterator.close()


def _recorded(
    given: Iterator[Any], config: Config, losses: list[tuple[int, float]]
) -> Iterator[tuple[int, float]]:
    for item in given:
        losses.append(_point(item, after=losses[-1][0] if losses else -1))
        yield losses[-1]
        if losses[-1][0] >= config.steps:
            return


def _point(item: Any, *, after: int) -> tuple[int, float]:
    try:
        step, loss = item
        loss = float(loss)
    except (TypeError, ValueError):
        raise ValueError(f"it gave {item!r}; expected a pair of step and validation loss") from None
    return whole("its step", step, low=after + 1), loss
