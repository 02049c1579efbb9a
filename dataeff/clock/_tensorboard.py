"""Values in TensorBoard, against what was consumed."""

from collections.abc import Iterable, Mapping
from typing import Any

from dataeff.clock._clock import Clock

_UNITS = {"flops": ("gflops", 10**9)}  # TensorBoard's steps have 64 bits


def add_scalars(
    writer: Any, values: Mapping[str, float], clock: Clock, *, on: Iterable[str] = ("steps", "tokens")
) -> None:
    """Add each value as `<name>/by_<axis>` at the clock's count on each axis; FLOPs in units of 10**9.

    Args:
        writer: a `torch.utils.tensorboard.SummaryWriter`, or what has its `add_scalar`.
        values: by name.
        clock: read on every rank since its last tick.
        on: axes of the clock.

    Examples:
        >>> class Writer:
        ...     def add_scalar(self, tag, value, global_step):
        ...         print(tag, value, global_step)
        >>> add_scalars(Writer(), {"loss": 2.5}, Clock(steps=3, tokens=96))
        loss/by_steps 2.5 3
        loss/by_tokens 2.5 96
    """
    for axis in on:
        title, unit = _UNITS.get(axis, (axis, 1))
        for name, value in values.items():
            writer.add_scalar(f"{name}/by_{title}", value, global_step=clock.at(axis) // unit)
