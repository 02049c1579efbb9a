"""Which forward pass a layer's input belongs to, when the layer may be run again in the backward pass."""

from typing import NamedTuple

import attrs
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from dataeff.routers import Chosen

_REMEMBERED = 4096  # inputs of layers: more than wait for one backward pass


class Pass(NamedTuple):
    """What a forward pass asks of a layer."""

    moment: torch.Tensor
    """The step and the micro-batch. (2,) int64."""
    keep: int
    call: int = 0
    """How often the layer ran before in this pass."""
    chosen: Chosen | None = None
    """What was chosen where this layer's segment began, of `seq` tokens, if that was at another layer."""
    seq: int = 0


@attrs.define(eq=False)
class Passes:
    """The passes of inputs that may come again.

    Activation checkpointing runs a layer again in the backward pass, maybe after other forward passes. It
    keeps the input of the first layer that it runs for that, so the input's address tells the pass; layers
    that follow belong to the same.

    Examples:
        >>> x, passes = torch.zeros(1), Passes()
        >>> passes.remember("layer", x, Pass(torch.tensor([3, 0]), 5))
        >>> passes.find("layer", x).keep
        5
    """

    _known: dict[tuple[str, int], tuple[StorageWeakRef, Pass]] = attrs.field(factory=dict, init=False)
    again: Pass | None = attrs.field(default=None, init=False)
    """The pass that was found last."""

    def remember(self, name: str, x: torch.Tensor, own: Pass) -> None:
        """That `x`, which goes into the layer `name`, is of this pass."""
        address = name, x.data_ptr()
        self._known.pop(address, None)
        self._known[address] = StorageWeakRef(x.untyped_storage()), own  # type: ignore[no-untyped-call]
        if len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]

    def find(self, name: str, x: torch.Tensor) -> Pass | None:
        """The pass of an input that was remembered."""
        memory, found = self._known.get((name, x.data_ptr()), (None, None))
        if memory is None or memory.expired():  # type: ignore[no-untyped-call]  # another tensor is there
            return None
        self.again = found
        return found


def in_backward() -> bool:
    """Whether autograd is at work: what runs now runs again.

    Examples:
        >>> in_backward()
        False
    """
    return torch._C._current_graph_task_id() != -1
