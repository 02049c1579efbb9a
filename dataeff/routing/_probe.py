"""Does a layer know where its tokens stand but by its arguments?"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

_SHARE = {torch.float64: 1e-3, torch.float32: 1e-2}  # of a layer's change; of 16 bits, a tenth


def check(
    name: str,
    layer: nn.Module,
    hidden: torch.Tensor,
    run: Callable[[torch.Tensor], torch.Tensor],
    *,
    router: Any,
) -> None:
    """Raise ValueError for a layer that would take kept tokens for neighbours; as `reads_places`.

    Or, for a router that lets tokens see later ones, for a causal one.

    Examples:
        >>> x = torch.randn(1, 5, 4)
        >>> check("rnn", nn.Identity(), x, lambda ids: x[:, ids[0]].roll(1, 1), router=None)
        Traceback (most recent call last):
        ...
        ValueError: layer 'rnn' knows by itself where its tokens stand: with the others in another order, ...
    """
    if reads_places(layer, hidden, run):
        raise ValueError(
            f"layer {name!r} knows by itself where its tokens stand: with the others in another order, "
            "its last token comes out differently. It would take kept tokens for neighbours (it computes "
            "positions, a window, a convolution or a recurrence). Give it positions as an argument, "
            "leave it out (layers=[...]), or, if that is meant, say attach(..., check=False)"
        )
    if getattr(router, "looks_ahead", False) and is_causal(layer, hidden, run):
        raise ValueError(
            f"layer {name!r} is causal, and {router!r} lets tokens see later ones; take another one"
        )


def reads_places(layer: nn.Module, hidden: torch.Tensor, run: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    """Whether the last token's output changes when all others change places, and what goes with them too.

    A layer that attends, causally or not, gives the last token the same: it sees the same tokens. One that
    computes rotary positions, a window, a recurrence or a convolution by itself does not, and would take
    kept tokens for neighbours.

    `run(ids)` gives what `layer` makes of the tokens `ids` of `hidden`, (B, S, C). Nothing is recorded: no
    gradient, no statistics, no dropout.

    Examples:
        >>> x = torch.randn(1, 5, 4)
        >>> reads_places(nn.Identity(), x, lambda ids: x[:, ids[0]] + x.mean(1, keepdim=True))
        False
        >>> reads_places(nn.Identity(), x, lambda ids: x[:, ids[0]] + x[:, ids[0]].roll(1, 1))
        True
    """
    order = torch.arange(hidden.shape[1], device=hidden.device)
    return _differs(layer, hidden, run, torch.cat([order[:-1].flip(0), order[-1:]]), -1)


def is_causal(layer: nn.Module, hidden: torch.Tensor, run: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    """Whether the first token's output stays as it is when all others become the first; as `reads_places`.

    Examples:
        >>> x = torch.randn(1, 5, 4)
        >>> is_causal(nn.Identity(), x, lambda ids: x[:, ids[0]].cumsum(1))
        True
        >>> is_causal(nn.Identity(), x, lambda ids: x[:, ids[0]].sum(1, keepdim=True).expand_as(x))
        False
    """
    return not _differs(layer, hidden, run, torch.zeros(hidden.shape[1]).long().to(hidden.device), 0)


def _differs(
    layer: nn.Module,
    hidden: torch.Tensor,
    run: Callable[[torch.Tensor], torch.Tensor],
    order: torch.Tensor,
    token: int,
) -> bool:
    """Whether the output at a place changes with the tokens in another order; more than rounding does."""
    usual = torch.arange(hidden.shape[1], device=hidden.device)
    with torch.no_grad(), _disable_current_modes(), _evaluating(layer):
        before, after = (run(ids.expand(len(hidden), -1))[:, token].double() for ids in (usual, order))
    change = (before - hidden.detach()[:, token].double()).norm(dim=-1)
    half = torch.is_autocast_enabled(hidden.device.type) or hidden.dtype not in _SHARE
    noise = 64 * torch.finfo(hidden.dtype).eps * before.norm(dim=-1)
    share = 0.1 if half else _SHARE[hidden.dtype]
    return bool(((after - before).norm(dim=-1) > share * change + noise).any())


@contextmanager
def _evaluating(layer: nn.Module) -> Iterator[None]:
    training = [module for module in layer.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True
