"""Routing on a model, by hooks: the model's code, its state dict and its evaluation stay as they are."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import nn

from dataeff import registry
from dataeff._check import whole
from dataeff._distributed import rank_or_own
from dataeff.pacing import constant
from dataeff.routing._route import Route


def attach(
    model: nn.Module,
    *,
    router: str | Callable[..., torch.Tensor] = "random_ltd",
    keep: int | Callable[[int], float],
    layers: Sequence[nn.Module] | None = None,
    skip: tuple[int, int] = (1, 1),
    seed: int,
    rank: int | None = None,
    token_args: Mapping[str, int | Sequence[int]] | None = None,
    in_place: bool = True,
) -> Route:
    """Let only some tokens enter some layers of `model` while it trains; the others bypass them.

    A routed layer takes hidden states (B, S, C) as its first argument and returns them, alone or first in a
    tuple. Tokens stay in order, so a causal layer stays causal. Evaluation mode is untouched, and so is the
    state dict.

    Args:
        model: any module; its forward passes in training mode count as micro-batches.
        router: a name of the registry kind `routers`, or a function like `random_ltd()`.
        keep: how many tokens enter, as a number or a pace. All of them where it asks for as many as there
            are or more, at no cost.
        layers: the modules to route, out of `model`. By default those of the largest ModuleList or
            Sequential of modules of one class, without its ends.
        skip: how many blocks to leave out at the beginning and at the end when `layers` is not given.
        seed: a whole number of at least 0.
        rank: of this process among those that hold other samples of the global batch; by default
            torch.distributed's, else 0. Ranks that share their samples (tensor parallel) share it.
        token_args: for each argument of a layer that is aligned to tokens, its token axes, as
            `{"attention_mask": (-2, -1), "position_ids": 1}`.
        in_place: whether a layer's output may be written into the hidden states that went in, which saves a
            copy of them. That is done only where autograd allows it and nothing else refers to them, never
            under activation checkpointing; code that kept them in a variable, and uses them later, gets an
            error that names this argument.

    Returns:
        The `Route`: set its `step`, read what was `kept`, `remove` it.

    Raises:
        ValueError: no layers to route, a module that is not in the model or is routed already, or, in the
            forward pass, a tensor argument that looks aligned to tokens and is not declared.

    Examples:
        >>> block = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        >>> model = torch.nn.TransformerEncoder(block, num_layers=6, enable_nested_tensor=False)
        >>> route = attach(model, keep=4, seed=1234)
        >>> list(route.layers)
        ['layers.1', 'layers.2', 'layers.3', 'layers.4']
        >>> model(torch.zeros(2, 16, 16)).shape, route.kept()["layers.1"].shape
        (torch.Size([2, 16, 16]), torch.Size([2, 4]))
        >>> route.remove()
    """
    if isinstance(router, str):
        router = cast(Callable[..., torch.Tensor], registry.get("routers", router))
    named = _named(model, list(layers) if layers is not None else _find(model, skip))
    for name, layer in named.items():
        _check_layer(name, layer, token_args or {})
    route = Route(
        router=router() if isinstance(router, type) else router,
        keep=keep if callable(keep) else constant(whole("keep", keep, low=1)),
        seed=whole("seed", seed, low=0),
        layers=named,
        depth=_depth(model, list(named.values())),
        token_args=dict(token_args or {}),
        rank=whole("rank", rank_or_own(rank), low=0),
        in_place=in_place,
    )
    enters = {name: functools.partial(route._enter, name, _positional(named[name])) for name in named}
    route._handles.append(model.register_forward_pre_hook(route._begin))
    for name, layer in named.items():
        leave = functools.partial(route._leave, name)
        route._handles.append(layer.register_forward_pre_hook(enters[name], with_kwargs=True))
        route._handles.append(layer.register_forward_hook(leave))
    return route


def _find(model: nn.Module, skip: tuple[int, int]) -> list[nn.Module]:
    if not isinstance(skip, tuple | list) or len(skip) != 2:
        raise ValueError(f"skip is {skip!r}; expected how many blocks to leave out at either end, as (1, 1)")
    first, last = (whole("an entry of skip", blocks, low=0) for blocks in skip)
    stacks = [list(stack) for stack in _stacks(model) if len({type(block) for block in stack}) == 1]
    stacks = [stack for stack in stacks if len({id(block) for block in stack}) == len(stack)]
    largest = max(stacks, key=lambda stack: sum(p.numel() for m in stack for p in m.parameters()), default=[])
    layers = largest[first : len(largest) - last]
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no stack of more than {first + last} like blocks; "
            "name them: attach(..., layers=[...])"
        )
    return layers


def _stacks(model: nn.Module) -> list[nn.ModuleList | nn.Sequential]:
    return [module for module in model.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]


def _depth(model: nn.Module, layers: Sequence[nn.Module]) -> int:
    """How many blocks the stack has that the layers stand in."""
    ids = {id(layer) for layer in layers}
    return max(
        (len(stack) for stack in _stacks(model) if ids <= {id(block) for block in stack}), default=len(layers)
    )


def _named(model: nn.Module, layers: Sequence[nn.Module]) -> dict[str, nn.Module]:
    names = {id(module): name for name, module in model.named_modules()}
    for layer in layers:
        if id(layer) not in names:
            raise ValueError(f"a {type(layer).__name__} in layers is not a module of the model")
    if not layers:
        raise ValueError("layers is empty; expected at least one module of the model")
    return {names[id(layer)]: layer for layer in layers}


def _check_layer(name: str, layer: nn.Module, token_args: Mapping[str, object]) -> None:
    """Refuse what would go wrong later, or silently."""
    hooks = [getattr(hook, "func", None) for hook in layer._forward_pre_hooks.values()]
    if any(isinstance(getattr(hook, "__self__", None), Route) for hook in hooks):
        raise ValueError(f"layer {name!r} is routed already; remove() that route first")
    if any(getattr(module, "batch_first", True) is False for module in layer.modules()):
        raise ValueError(f"layer {name!r} takes (S, B, C) hidden states; make it with batch_first=True")
    parameters = inspect.signature(layer.forward).parameters
    if not any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters.values()):
        for declared in set(token_args) - set(parameters):
            raise ValueError(
                registry.unknown(declared, list(parameters), of=f"the arguments of layer {name!r}")
            )


def _positional(layer: nn.Module) -> list[str]:
    """The names under which a layer takes its positional arguments."""
    parameters = inspect.signature(layer.forward).parameters.values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
