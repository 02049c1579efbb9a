"""What the first rank does for all."""

from collections.abc import Callable
from typing import TypeVar

from torch import distributed

from dataeff._distributed import rank_or_own, world_size_or_own

_Made = TypeVar("_Made")


def from_first(make: Callable[[], _Made]) -> _Made:
    """What `make` gives on the first rank, or what it raises there: on every rank.

    Examples:
        >>> from_first(lambda: 3)
        3
    """
    if world_size_or_own() == 1:
        return make()
    told = [_tried(make) if rank_or_own() == 0 else None]
    distributed.broadcast_object_list(told, src=0)
    given, error = told[0] or (None, None)
    if error is not None:
        raise error
    return given  # type: ignore[return-value]


def _tried(make: Callable[[], _Made]) -> tuple[_Made | None, Exception | None]:
    """What `make` gives, and what it raises.

    Examples:
        >>> _tried(lambda: 3)
        (3, None)
    """
    try:
        return make(), None
    except Exception as error:
        return None, error
