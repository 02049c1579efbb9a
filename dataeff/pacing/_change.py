"""When a pace changes next."""

from dataeff.pacing._monotone import is_monotone
from dataeff.pacing._pace import Pace


def next_change(pace: Pace, place: int) -> int | None:
    """The first place after `place` at which a pace may give another amount; None if it stays.

    Of a pace that rises or falls throughout it is found by bisection, of others it is the next place.

    Examples:
        >>> from dataeff.pacing import linear
        >>> pace = linear(80, 2048, steps=10**9, multiple=8, on="tokens")
        >>> next_change(pace, 0), pace(4_065_040), pace(4_065_041), next_change(pace, 10**9)
        (4065041, 80, 88, None)
    """
    if place >= pace.steps:
        return None
    if not is_monotone(pace):
        return place + 1
    now, low, high = pace(place), place, pace.steps
    while low < high:  # bisect takes no range of 2**63 places, as a pace by FLOPs has
        middle = (low + high) // 2
        low, high = (middle + 1, high) if pace(middle) == now else (low, middle)
    return low
