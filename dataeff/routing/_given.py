"""What a routed layer is called with."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from dataeff.routing._adapters import is_packed

Tensor = torch.Tensor


class Layout(NamedTuple):
    """How hidden states lie where a layer gets them and gives them.

    Examples:
        >>> turned = Layout(batch_first=False)
        >>> turned.rows(torch.zeros(5, 2, 3)).shape, turned.given(torch.zeros(2, 5, 3)).shape
        (torch.Size([2, 5, 3]), torch.Size([5, 2, 3]))
    """

    batch_first: bool = True
    is_flat: bool = False
    """Whether they are (S, C), of packed documents."""

    def rows(self, x: Tensor) -> Tensor:
        """As (B, S, C)."""
        if self.is_flat:
            return x.unsqueeze(0)
        return x if self.batch_first else x.transpose(0, 1)

    def given(self, x: Tensor) -> Tensor:
        """(B, S, C) as the layer has it."""
        if self.is_flat:
            return x.squeeze(0)
        return x if self.batch_first else x.transpose(0, 1)


class Given(NamedTuple):
    """A layer's arguments.

    Examples:
        >>> given = given_to("0", nn.Identity(), ["x"], (torch.zeros(1, 2, 3), 4), {}, batch_first=True)
        >>> args, _ = given.with_tokens(given.hidden[:, :1], lambda name, value: value)
        >>> args[0].shape, args[1]
        (torch.Size([1, 1, 3]), 4)
    """

    name: str
    layer: nn.Module
    x: Tensor
    """Its hidden states, (B, S, C)."""
    hidden: Tensor
    """The same as the model has them: (B, S, C), (S, B, C), or (S, C) of packed documents."""
    values: dict[str, Any]
    """All arguments by name, the first of them by position."""
    by_position: int
    layout: Layout = Layout()

    def with_tokens(
        self, hidden: Tensor, travels: Callable[[str, Any], Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments for other hidden states; `travels` gives what the others become."""
        made = {
            argument: hidden if value is self.hidden else travels(argument, value)
            for argument, value in self.values.items()
        }
        values, names = list(made.values()), list(made)
        n = self.by_position
        return tuple(values[:n]), dict(zip(names[n:], values[n:], strict=True))


class Moved(NamedTuple):
    """An argument, and what was made of it for the kept tokens.

    Examples:
        >>> Moved("position_ids", before=torch.arange(4), after=torch.tensor([0, 2])).after
        tensor([0, 2])
    """

    argument: str
    before: Any
    after: Any
    entries: tuple[Any, ...] = ()
    """Of what was made, as a layer got it."""


def entries(value: Any) -> tuple[Any, ...]:
    """What stands in a list or a dictionary, keys too; nothing for another value.

    Examples:
        >>> entries({"a": 1}), entries([1, 2]), entries(torch.ones(1))
        (('a', 1), (1, 2), ())
    """
    if isinstance(value, Mapping):
        return (*value, *value.values())
    return tuple(value) if isinstance(value, list) else ()


def apart(value: Any) -> Any:
    """The same in lists and mappings of its own, so that what a layer puts there is seen by nobody.

    Examples:
        >>> given = {"losses": [1]}
        >>> apart(given)["losses"].append(2)
        >>> given
        {'losses': [1]}
    """
    return tree_map(lambda leaf: copy.copy(leaf) if isinstance(leaf, Mapping) else leaf, value)


def refuse_written(layer: str, moved: Sequence[Moved], keep: int) -> None:
    """Raise ValueError where a layer put something into what was made for it, which nobody else is to see.

    Or where it put something of its `keep` tokens into what others share, who would take them for all tokens.

    Examples:
        >>> made = {"mask": torch.ones(1, 2)}
        >>> moved = Moved("context", {"mask": torch.ones(1, 4)}, made, entries(made))
        >>> made["seen"] = 1
        >>> refuse_written("h.0", [moved], keep=2)
        Traceback (most recent call last):
        ...
        ValueError: layer 'h.0' writes into its argument 'context', of which ...
    """
    for own in moved:
        now = entries(own.after)
        alike = len(now) == len(own.entries) and all(a is b for a, b in zip(now, own.entries, strict=True))
        if own.after is own.before:
            known = set(map(id, own.entries))
            new = tree_leaves([entry for entry in now if id(entry) not in known])
            if any(isinstance(leaf, Tensor) and keep in leaf.shape[1:] for leaf in new):
                raise ValueError(
                    f"layer {layer!r} puts something of its {keep} kept tokens into its argument "
                    f"{own.argument!r}, where others would take them for all: leave it out (layers=[...])"
                )
        elif not alike:
            raise ValueError(
                f"layer {layer!r} writes into its argument {own.argument!r}, of which it gets a copy, since "
                "some of it is aligned to the tokens: what it wrote would be lost; give what is written "
                "into as an argument of its own"
            )


def as_many(layer: str, made: Tensor, taken: Tensor) -> Tensor:
    """`made`, if it is as many tokens, and as wide, as were `taken`; else ValueError.

    Examples:
        >>> as_many("h.0", torch.zeros(1, 1, 4), torch.zeros(1, 2, 4))
        Traceback (most recent call last):
        ...
        ValueError: layer 'h.0' makes (1, 1, 4) of the kept tokens; expected as many and as wide as they ...
    """
    if made.shape != taken.shape:
        raise ValueError(
            f"layer {layer!r} makes {tuple(made.shape)} of the kept tokens; expected as many and as wide as "
            f"they came, {tuple(taken.shape)}, alone or first in what it returns, or where hidden_out=... "
            "says"
        )
    return made


def given_to(
    name: str,
    layer: nn.Module,
    names: Sequence[str],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    batch_first: bool,
    shape: tuple[int, ...] | None = None,
    hidden_arg: str | None = None,
) -> Given:
    """The arguments of a layer that takes those by position under such `names`.

    Hidden states are the first, or `hidden_arg`.

    Those of packed documents may lack an axis of samples, and those of several streams have one more, where
    the model was called with (B, S) as in `shape`. Raises ValueError where the argument is none.

    Examples:
        >>> given_to("0", nn.Identity(), ["x"], (), {"x": torch.zeros(2, 3)}, batch_first=True)
        Traceback (most recent call last):
        ...
        ValueError: layer '0': its first argument, 'x', is (2, 3); expected (B, S, C). If ...
    """
    at = [*names, *(f"*args[{i}]" for i in range(len(args)))]
    values = dict(zip(at, args, strict=False)) | dict(kwargs)
    first = names[0] if names and names[0] in values else next(iter(values), "none")
    argument = hidden_arg or first
    hidden = values.get(argument)
    if not isinstance(hidden, Tensor) or hidden.is_nested or not _fits(hidden, values, shape):
        got = tuple(hidden.shape) if isinstance(hidden, Tensor) else type(hidden).__name__
        raise ValueError(
            f"layer {name!r}: its {'' if hidden_arg else 'first '}argument, {argument!r}, is {got}; expected "
            "(B, S, C). If its hidden states are another argument, say which (hidden_arg=...); a layer of "
            "others cannot be routed: leave it out (layers=[...])"
        )
    layout = Layout(batch_first, is_flat=hidden.dim() == 2)
    return Given(name, layer, layout.rows(hidden), hidden, values, len(args), layout)


def _fits(hidden: Tensor, values: Mapping[str, Any], shape: tuple[int, ...] | None) -> bool:
    if hidden.dim() == 2:
        return is_packed(values)
    of_ids = torch.compiler.is_compiling() or hidden.shape[:2] == shape  # else a map of features, say
    return hidden.dim() == 3 or (hidden.dim() == 4 and of_ids)
