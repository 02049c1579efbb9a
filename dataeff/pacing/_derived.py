"""What paces that are made of one other share."""

import abc

import attrs

from dataeff.clock import Clock
from dataeff.pacing._pace import Pace, as_pace, axis


@attrs.frozen
class Derived(abc.ABC):
    """A pace that gives what it makes of another's amount, on that one's axis and until its end.

    Examples:
        >>> from dataeff.pacing import linear, scale
        >>> pace = scale(linear(80, 2048, steps=10**9, on="tokens"), by=0.5)
        >>> isinstance(pace, Derived), pace.on, pace.steps
        (True, 'tokens', 1000000000)
    """

    pace: Pace = attrs.field(converter=as_pace)

    @property
    def on(self) -> str:
        """As the pace's."""
        return axis(self.pace)

    @property
    def steps(self) -> int:
        """As the pace's."""
        return self.pace.steps

    @abc.abstractmethod
    def __call__(self, step: int | Clock) -> float:
        """The amount at `step`."""
