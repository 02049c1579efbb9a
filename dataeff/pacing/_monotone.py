"""Whether a pace is known to rise or fall throughout."""

from typing import Any

from dataeff.pacing._derived import Derived
from dataeff.pacing._given import discrete
from dataeff.pacing._in_steps import in_steps
from dataeff.pacing._pace import constant
from dataeff.pacing._ramps import Ramp


def is_monotone(pace: Any) -> bool:
    """Whether a pace is known to rise or fall throughout. Of what is not known it is False.

    Examples:
        >>> from dataeff.pacing import join, linear, multiple
        >>> up, down = linear(8, 16, steps=9), linear(16, 8, steps=9)
        >>> is_monotone(multiple(up, 8)), is_monotone(join([up, down], boundaries=[9]))
        (True, False)
    """
    if isinstance(pace, Derived | in_steps):
        return is_monotone(pace.pace)
    if isinstance(pace, discrete):
        rising = sorted(pace.values)
        return list(pace.values) in (rising, rising[::-1])
    return isinstance(pace, constant | Ramp)
