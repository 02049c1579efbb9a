"""Which of how many processes this one is."""

import os

from torch import distributed


def rank_or_own(rank: int | None = None) -> int:
    """`rank` if it is given, else that of torch.distributed, else 0.

    Raises ValueError where a launcher started several processes but torch.distributed is not initialized
    yet: each of them would take itself for the only one.

    Examples:
        >>> rank_or_own(3), rank_or_own()
        (3, 0)
    """
    return (distributed.get_rank() if _initialized() else 0) if rank is None else rank


def world_size_or_own(world_size: int | None = None) -> int:
    """`world_size` if it is given, else that of torch.distributed, else 1. Errors as for `rank_or_own`.

    Examples:
        >>> world_size_or_own(8), world_size_or_own()
        (8, 1)
    """
    return (distributed.get_world_size() if _initialized() else 1) if world_size is None else world_size


def _initialized() -> bool:
    if distributed.is_available() and distributed.is_initialized():
        return True
    if (launched := os.environ.get("WORLD_SIZE", "1")) not in ("", "1"):
        raise ValueError(
            f"WORLD_SIZE is {launched}, but torch.distributed is not initialized; "
            "call init_process_group first, or give rank= and world_size="
        )
    return False
