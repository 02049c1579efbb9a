"""The counts that a clock keeps, and their sum over processes."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import attrs
import torch
from torch import distributed

AXES = ("steps", "samples", "tokens", "loss_tokens", "layer_tokens", "flops")
"""What a pace, a learning rate or the end of a run may be counted by."""

COUNTED = (*AXES, "wall_ns")

Counts = dict[str, int]

_LIMBS, _BITS = 6, 32  # 192 bits: a count is never near them


@attrs.frozen
class Processed:
    """What a model and its layers were given in training.

    Examples:
        >>> Processed(rows=2, tokens=32, layers={"h.0": (32, 512), "h.1": (8, 32)}).layer_tokens
        40
    """

    rows: int
    """Of all batches that the model was called with."""
    tokens: int
    """Of these rows, padding among them, less what was dropped for good: what a head gets."""
    layers: Mapping[str, tuple[int, int]]
    """By layer, the tokens that it processed, and the pairs of tokens of one row: its attention's size."""

    @property
    def layer_tokens(self) -> int:
        """Tokens, summed over layers."""
        return sum(tokens for tokens, _ in self.layers.values())


@runtime_checkable
class Meter(Protocol):
    """What counts the tokens that layers really process: a `Route`.

    Examples:
        >>> isinstance(3, Meter)
        False
    """

    def processed(self) -> Processed:
        """What was processed in this step and not told yet."""


def none() -> Counts:
    """No counts yet.

    Examples:
        >>> sum(none().values())
        0
    """
    return dict.fromkeys(COUNTED, 0)


def added(counts: Mapping[str, int], more: Mapping[str, int]) -> Counts:
    """Two counts together.

    Examples:
        >>> added(none(), none() | {"steps": 1})["steps"]
        1
    """
    return {axis: counts[axis] + more[axis] for axis in COUNTED}


def over_ranks(counts: Counts, group: Any = None) -> Counts:
    """The sum of every process's counts, exact at any size; of steps and wall time the mean.

    Every process of the group must call it. One reduction, of whole numbers. Raises ValueError on each of
    them if they do not have as many steps.

    Examples:
        >>> over_ranks(none() | {"steps": 2, "flops": 10**24})["flops"] == 10**24
        True
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return counts
    told = {**counts, "squares": counts["steps"] ** 2}  # tells all ranks whether their steps differ
    device = "cuda" if "nccl" in distributed.get_backend(group) else "cpu"
    limbs = [[count >> (_BITS * i) & (2**_BITS - 1) for i in range(_LIMBS)] for count in told.values()]
    table = torch.tensor(limbs, dtype=torch.int64, device=device)  # (axes, limbs)
    distributed.all_reduce(table, group=group)
    sums = [sum(limb << (_BITS * i) for i, limb in enumerate(row)) for row in table.tolist()]
    total = dict(zip(told, sums, strict=True))
    world = distributed.get_world_size(group)
    if world * total.pop("squares") != total["steps"] ** 2:
        raise ValueError(
            f"{world} ranks ticked {total['steps']} steps in all since the clock was read, this one "
            f"{counts['steps']}; expected as many on each: a rank without samples ticks with 0 of them"
        )
    return total | {name: total[name] // world for name in ("steps", "wall_ns")}
