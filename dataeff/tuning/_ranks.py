"""What the first rank does for all, and what all must be asked alike."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

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


def same_on_all(asked: Mapping[str, Any]) -> None:
    """Raise ValueError, on every rank, unless all ranks ask for the same: they would wait for each other.

    Examples:
        >>> same_on_all({"end": 64})
    """
    if world_size_or_own() == 1:
        return
    told: list[Any] = [None] * world_size_or_own()
    distributed.all_gather_object(told, dict(asked))
    for rank, own in enumerate(told):
        for name, value in told[0].items():
            if own[name] != value:
                raise ValueError(
                    f"{name} is {value!r} on the first rank and {own[name]!r} on rank {rank}; "
                    "expected the same search on every rank"
                )
