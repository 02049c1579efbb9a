"""What a routed layer is called with."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

Tensor = torch.Tensor


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
    """The same as the model has them."""
    values: dict[str, Any]
    """All arguments by name, the first of them by position."""
    by_position: int

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


def refuse_written(layer: str, moved: Sequence[Moved]) -> None:
    """Raise ValueError where a layer put something into what was made for it, which nobody else is to see.

    Examples:
        >>> made = {"mask": torch.ones(1, 2)}
        >>> moved = Moved("context", {"mask": torch.ones(1, 4)}, made, entries(made))
        >>> made["seen"] = 1
        >>> refuse_written("h.0", [moved])
        Traceback (most recent call last):
        ...
        ValueError: layer 'h.0' writes into its argument 'context', of which ...
    """
    for own in moved:
        now = entries(own.after)
        alike = len(now) == len(own.entries) and all(a is b for a, b in zip(now, own.entries, strict=True))
        if own.after is not own.before and not alike:
            raise ValueError(
                f"layer {layer!r} writes into its argument {own.argument!r}, of which it gets a copy, since "
                "some of it is aligned to the tokens: what it wrote would be lost; give what is written "
                "into as an argument of its own"
            )


def given_to(
    name: str,
    layer: nn.Module,
    names: Sequence[str],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    batch_first: bool,
) -> Given:
    """The arguments of a layer that takes those by position under such `names`, hidden states first.

    Raises ValueError where the first is none.

    Examples:
        >>> given_to("0", nn.Identity(), ["x"], (), {"x": torch.zeros(2, 3)}, batch_first=True)
        Traceback (most recent call last):
        ...
        ValueError: layer '0': its first argument, 'x', is (2, 3); expected (B, S, C). A ...
    """
    at = [*names, *(f"*args[{i}]" for i in range(len(args)))]
    values = dict(zip(at, args, strict=False)) | dict(kwargs)
    first = names[0] if names and names[0] in values else next(iter(values), "none")
    hidden = values.get(first)
    if not isinstance(hidden, Tensor) or hidden.dim() != 3 or hidden.is_nested:
        got = tuple(hidden.shape) if isinstance(hidden, Tensor) else type(hidden).__name__
        raise ValueError(
            f"layer {name!r}: its first argument, {first!r}, is {got}; expected (B, S, C). A layer of other "
            "hidden states cannot be routed: leave it out (layers=[...])"
        )
    x = hidden if batch_first else hidden.transpose(0, 1)
    return Given(name, layer, x, hidden, values, len(args))
