"""What would go wrong without a word between the layers of a forward pass."""

from collections.abc import Iterable
from threading import get_ident
from typing import Any
from weakref import ref

import attrs
import torch
from torch.utils._pytree import tree_leaves

from dataeff.routing._given import Moved

Tensor = torch.Tensor


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

    def begin(self) -> None:
        """A forward pass of the model begins."""
        self._thread = get_ident()
        self._left.clear()
        self._stacks.clear()

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
