"""Which forward pass a layer's input belongs to, when the layer may be run again in the backward pass."""

import inspect
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

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


class Found(NamedTuple):
    """The pass of a layer that is run again."""

    own: Pass
    first: bool
    """Whether no layer before it is run again with it."""


@attrs.define(eq=False)
class _Call:
    """A layer's call in a forward pass, and the one that came next."""

    name: str
    own: Pass
    after: "_Call | None" = None


class _Input(NamedTuple):
    memory: StorageWeakRef
    call: _Call
    number: int
    """Of the forward pass."""
    told: bool
    """False where another call had the same input and might still be run again."""


@attrs.define(eq=False)
class Passes:
    """The calls of layers that may come again.

    Activation checkpointing runs layers again in the backward pass, maybe after other forward passes, in the
    order of the forward pass. The first of them is known by the checkpoint that torch is in, or, with
    use_reentrant=True, by the address of its input, which is kept; the others come after it.

    Examples:
        >>> x, passes = torch.zeros(1), Passes()
        >>> passes.begin()
        >>> passes.remember("layer", x, Pass(torch.tensor([3, 0]), 5))
        >>> passes.find("layer", x).own.keep
        5
        >>> passes.find("another", x) is None
        True
    """

    _inputs: dict[tuple[str, int], _Input] = attrs.field(factory=dict, init=False)
    _checkpoints: WeakKeyDictionary[Any, _Call] = attrs.field(factory=WeakKeyDictionary, init=False)
    """The first call in each checkpoint."""
    _latest: _Call | None = attrs.field(default=None, init=False)
    _again: _Call | None = attrs.field(default=None, init=False)
    """What was run again last."""
    _under: Any = attrs.field(default=None, init=False)
    """Torch's hook while it was."""
    _number: int = attrs.field(default=0, init=False)
    _done: int = attrs.field(default=0, init=False)
    """The last forward pass after which something was run again."""

    def __reduce__(self) -> Any:  # a copy has none of the passes that are under way
        return Passes, ()

    def begin(self) -> None:
        """A forward pass begins."""
        self._number += 1
        self._latest = self._again = self._under = None

    def remember(self, name: str, x: torch.Tensor, own: Pass) -> None:
        """That `x`, which goes into the layer `name`, is of this pass."""
        call = _Call(name, own)
        if self._latest is not None:
            self._latest.after = call
        self._latest = call
        self._note(_under_way(), call)
        address = _address(x)
        if address is None:
            return
        before = self._inputs.pop((name, address), None)
        memory = StorageWeakRef(x.untyped_storage())  # type: ignore[no-untyped-call]
        told = before is None or before.number <= self._done or before.memory.expired()  # type: ignore[no-untyped-call]
        self._inputs[name, address] = _Input(memory, call, self._number, told)
        if len(self._inputs) > _REMEMBERED:
            del self._inputs[next(iter(self._inputs))]

    def find(self, name: str, x: torch.Tensor) -> Found | None:
        """The pass of a layer that is run again; None if it is not known."""
        self._done = self._number
        under_way = _under_way()
        again = next((checkpoint for checkpoint in under_way if checkpoint.again), None)
        goes_on = again is not None and again.hook is self._under
        call = None if goes_on else self._first(name, x, again)
        first = call is not None
        if (goes_on or again is None) and not first and self._again is not None:
            call = self._again.after
        if call is None or call.name != name:
            return None
        self._note(under_way, call)
        self._under, self._again = again and again.hook, call
        return Found(call.own, first)

    def _note(self, under_way: list["_Checkpoint"], call: _Call) -> None:
        for checkpoint in under_way:
            if not checkpoint.again:
                self._checkpoints.setdefault(checkpoint.frame, call)

    def _first(self, name: str, x: torch.Tensor, again: "_Checkpoint | None") -> _Call | None:
        if again is not None and again.frame in self._checkpoints:
            return self._checkpoints[again.frame]
        found = self._inputs.get((name, _address(x) or 0))
        if found is None or not found.told or found.memory.expired():  # type: ignore[no-untyped-call]
            return None
        return found.call


def in_backward() -> bool:
    """Whether autograd is at work: what runs now runs again.

    Examples:
        >>> in_backward()
        False
    """
    return torch._C._current_graph_task_id() != -1


def _address(x: torch.Tensor) -> int | None:
    """Where a tensor lies; None for one without memory of its own, as those of torch.func."""
    try:
        return x.data_ptr() or None
    except RuntimeError:
        return None


class _Checkpoint(NamedTuple):
    """A checkpoint with use_reentrant=False that is under way."""

    hook: Any
    frame: Any
    again: bool
    """Whether it runs again what it ran."""


def _under_way() -> list[_Checkpoint]:
    """The checkpoints that are under way, the innermost first.

    No public interface tells them, so they are read off the stack of hooks for saved tensors, which is left
    as it was.
    """
    autograd: Any = torch._C._autograd
    found, seen = [], []
    try:
        while (hooks := autograd._top_saved_tensors_default_hooks(True)) is not None:
            found += _checkpoint_of(hooks[0])
            autograd._pop_saved_tensors_default_hooks()
            seen.append(hooks)
    finally:
        for pack, unpack in reversed(seen):
            autograd._push_saved_tensors_default_hooks(pack, unpack)
    return found


def _checkpoint_of(hook: Any) -> list[_Checkpoint]:
    pack = inspect.unwrap(hook)
    names = getattr(getattr(pack, "__code__", None), "co_freevars", ())
    cells = dict(zip(names, getattr(pack, "__closure__", None) or (), strict=False))
    if "target_frame_ref" in cells:
        return [_Checkpoint(hook, cells["target_frame_ref"].cell_contents(), True)]
    frame = cells["frame"].cell_contents if "frame" in cells else None
    return [_Checkpoint(hook, frame, False)] if type(frame).__name__ == "_CheckpointFrame" else []
