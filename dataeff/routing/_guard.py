"""What would go wrong without a word between the layers of a forward pass."""

from collections.abc import Callable, Iterable
from threading import get_ident
from typing import Any
from weakref import ref

import attrs
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from dataeff.routing._given import Moved
from dataeff.routing._route import Route
from dataeff.routing._stack import unwrapped

Tensor = torch.Tensor
TOO_LATE = (
    "adds a parameter to each layer, of which DistributedDataParallel or fully_shard, applied before, does "
    "not know, so that processes would go apart: attach first"
)


@attrs.define(eq=False)
class Guard:
    """Refuses two threads, kept tokens that a layer hands to another, and parts of blocks that run in turn.

    Not under a compiler, which cannot tell one tensor from another.

    Examples:
        >>> guard, keys = Guard(), torch.zeros(1, 2, 8)
        >>> guard.begin()
        >>> kept = torch.zeros(1, 2, 4)
        >>> guard.remember("h.1", (kept, keys), kept, keep=2, moved=())
        >>> guard.refuse_left("h.2", (torch.zeros(1, 6, 4), keys))
        Traceback (most recent call last):
        ...
        ValueError: layer 'h.2' is given what layer 'h.1' returned of its own kept tokens, (1, 2, 8), and ...
    """

    _thread: int | None = attrs.field(default=None, init=False)
    """That began the last pass."""
    _left: dict[int, tuple[ref[Tensor], str]] = attrs.field(factory=dict, init=False)
    """What layers returned of their kept tokens beside the hidden states, by id; and which."""
    _stacks: list[str] = attrs.field(factory=list, init=False)
    """Those of layers that ran in this pass."""
    _merged: tuple[str, Any, Any] | None = attrs.field(default=None, init=False)
    """The layer that ended last, if it was not looked at so before, and what autograd has of what went in and
    came out."""
    _shared: bool = attrs.field(default=False, init=False)
    """Whether DistributedDataParallel was seen to know a router's parameters."""
    _whole: set[str] = attrs.field(factory=set, init=False)
    """Layers that were seen to be whole blocks."""

    def begin(self) -> None:
        """A forward pass of the model begins."""
        self._thread = get_ident()
        self._left.clear()
        self._stacks.clear()
        self._merged = None

    def end(self) -> None:
        """It ends; nothing of its graph is kept."""
        self._merged = None

    def refuse_unshared(self, route: Route) -> None:
        """Raise RuntimeError where a router's parameters came after DistributedDataParallel."""
        ddp: Any = nn.parallel.DistributedDataParallel._active_ddp_module
        if ddp is None or self._shared or not hasattr(route.router, "gate"):
            return
        known = set(map(id, ddp._module_parameters))
        gates = [getattr(unwrapped(layer), type(route.router).__name__) for layer in route.layers.values()]
        if any(p.requires_grad and id(p) not in known for gate in gates for p in gate.parameters()):
            raise RuntimeError(f"{route.router!r} {TOO_LATE}")
        self._shared = True

    def refuse_another_thread(self) -> None:
        """Raise RuntimeError in a pass that another thread's has cut into."""
        if self._thread is not None and self._thread != get_ident():
            raise RuntimeError(
                "two threads run this routed model at once, and each would get the other's tokens: give each "
                "a copy of the model with a route of its own (DistributedDataParallel has processes for "
                "that), or a lock around its forward pass"
            )

    def remember(self, name: str, output: Any, hidden: Tensor, *, keep: int, moved: Iterable[Moved]) -> None:
        """What a layer returns of its `keep` tokens beside hidden states, but for what it hands on.

        What it makes of another stream, which came whole, is of that.
        """
        if isinstance(output, Tensor):
            return
        came = [leaf for own in moved for leaf in tree_leaves(own.after) if isinstance(leaf, Tensor)]
        whole = [leaf for own in moved if own.after is own.before for leaf in tree_leaves(own.after)]
        handed_on = {id(leaf) for leaf in [hidden, *came]}
        streams = {leaf.shape for leaf in whole if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(output):
            if (
                isinstance(leaf, Tensor)
                and keep in leaf.shape
                and id(leaf) not in handed_on
                and leaf.shape not in streams
            ):
                self._left[id(leaf)] = ref(leaf), name

    def refuse_left(self, name: str, given: Any) -> None:
        """Raise ValueError where a layer is given what another returned of tokens of its own."""
        for leaf in tree_leaves(given) if self._left else ():
            left, by = self._left.get(id(leaf), (None, ""))
            if isinstance(leaf, Tensor) and left is not None and left() is leaf:
                raise ValueError(
                    f"layer {name!r} is given what layer {by!r} returned of its own kept tokens, "
                    f"{tuple(leaf.shape)}, and has others: leave out {by!r} (layers=[...]), or drop the same "
                    "tokens in all layers (router='span')"
                )

    def merged(self, name: str, before: Any, after: Any) -> None:
        """A layer has ended; nodes of autograd's graph are what came in and what came out."""
        if name not in self._whole and before is not None and after is not None:
            self._merged = name, before, after

    def refuse_added(self, block: str, x: Tensor) -> None:
        """Raise ValueError where what went into the last block was added to `x`, which goes into the next."""
        if self._merged is None:
            return
        (name, before, after), self._merged = self._merged, None
        if block.rpartition(".")[0] != name.rpartition(".")[0] or x.grad_fn is None:
            return
        if added(x.grad_fn, before, after):
            raise ValueError(
                f"the input of layer {name!r} is added to its output outside of it, so that tokens that "
                "bypass it count twice: name modules that have their residual within, attach(..., "
                "layers=[...]), or, if that is meant, say check=False"
            )
        self._whole.add(name)

    def refuse_in_turn(self, name: str, *, again: bool) -> None:
        """Raise ValueError for lists of parts of blocks: one of attentions, say, and one of their mates.

        Of a layer that runs `again` in a pass, another pass has begun, of which only the blocks are seen.
        """
        stack = name.rpartition(".")[0]
        if again:
            self._stacks.clear()
        if stack in self._stacks[:-1]:
            raise ValueError(
                f"blocks of {stack!r} and {self._stacks[-1]!r} run in turn, so each may be a part of a block "
                "only, to which its input is added outside of it, so that tokens that bypass it would count "
                "twice; name those that are whole: attach(..., layers=[...])"
            )
        if stack not in self._stacks:
            self._stacks.append(stack)


def added(node: Any, before: Any, after: Any) -> bool:
    """Whether a sum on the way to `node` is of what came after a layer and of what went into it, in a graph.

    What went in may have been normalised first, and is added as it was, or scaled.

    Examples:
        >>> x = torch.ones(2, requires_grad=True) * 1
        >>> h = x * 2
        >>> y = h * 3
        >>> added((x + y).grad_fn, h.grad_fn, y.grad_fn), added((y + 1).grad_fn, h.grad_fn, y.grad_fn)
        (True, False)
    """
    inputs = _behind(before, past=lambda each: len(_computed(each)) < 2 or not _is_sum(each))
    for each in filter(_is_sum, _behind(node, past=lambda each: each is not after)):
        ways = {way: _behind(way, past=lambda each: each is not after) for way in _computed(each)}
        others = {way for way, found in ways.items() if after not in found}
        if len(others) < len(ways) and any(inputs & {way, *_computed(way)} for way in others):
            return True
    return False


_NEAR = 8
"""Steps in a graph: a norm written out has five."""


def _behind(node: Any, *, past: Callable[[Any], bool]) -> set[Any]:
    """What a node was computed of, itself among it, some steps back and not `past` what is said."""
    found, edge = {node}, {node}
    for _ in range(_NEAR):
        edge = {way for each in edge if past(each) for way in _computed(each)} - found
        found |= edge
    return found


def _computed(node: Any) -> list[Any]:
    """What a node was computed of, but for parameters."""
    return [way for way, _ in node.next_functions if way is not None and way.next_functions]


def _is_sum(node: Any) -> bool:
    return str(node.name()).startswith("AddBackward")
