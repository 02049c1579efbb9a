"""Routing on a model, by hooks: the model's code, its state dict and its evaluation stay as they are."""

import inspect
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn

from dataeff import registry
from dataeff._check import whole
from dataeff._distributed import rank_or_own
from dataeff.clock import Clock
from dataeff.pacing import axis, constant
from dataeff.routing._adapters import Declared
from dataeff.routing._flow import Flow
from dataeff.routing._guard import TOO_LATE
from dataeff.routing._hook import Hook, Ride
from dataeff.routing._route import Route
from dataeff.routing._stack import blocks, is_batch_first, is_called, parts, siblings, unwrapped


def attach(
    model: nn.Module,
    *,
    router: str | Callable[..., Any] = "random_ltd",
    keep: int | Callable[[int], float],
    layers: Sequence[nn.Module] | None = None,
    skip: tuple[int, int] | None = None,
    seed: int,
    rank: int | None = None,
    token_args: Mapping[str, Declared] | None = None,
    hidden_arg: str | None = None,
    hidden_out: int | str = 0,
    in_place: bool = True,
    batch_first: bool | None = None,
    check: bool = True,
    clock: Clock | None = None,
) -> Route:
    """Let only some tokens enter some layers of `model` while it trains; the others bypass them.

    A routed layer takes hidden states (B, S, C) as its first argument and returns them, alone or first in a
    tuple, a mapping or a dataclass, unless `hidden_arg` and `hidden_out` say otherwise. Tokens stay in order,
    so a causal layer stays causal, and what is aligned to tokens travels with them: masks, positions, rotary
    tables, the boundaries of packed documents. Arguments are known by their names (see the guide), or
    declared. Caches of keys and values are off. Evaluation mode is untouched, and so are the state dict and
    copies of the model, unless the router says otherwise.

    Args:
        model: any module; its forward passes in training mode count as micro-batches.
        router: a name of the registry kind `routers`, one of `dataeff.routers`, or a function like them.
        keep: how many tokens enter, as a number or a pace. All of them where it asks for as many as there
            are or more, at no cost.
        layers: the modules to route, out of `model`, in the order in which they run. By default those of the
            largest ModuleList or Sequential of modules of one class, without its ends; of an encoder and a
            decoder, those of both.
        skip: how many blocks to leave out at the beginning and at the end when `layers` is not given: (1, 1),
            or (0, 0) for a router that drops tokens at the input.
        seed: a whole number of at least 0.
        rank: of this process among those that hold other samples of the global batch; by default
            torch.distributed's, else 0. Ranks that share their samples (tensor parallel) share it.
        token_args: for each argument of a layer that is aligned to tokens and not known by its name, its
            token axes, as `{"attention_mask": (-2, -1), "position_ids": 1}`; `()` for one that is not
            aligned. Or a function of the argument and the ids of the kept tokens, (B, K), or (1, K) where
            all samples keep the same, that gives what they need; it is not called with None.
        hidden_arg: the argument of a layer that is its hidden states, if it is not the first.
        hidden_out: where they stand in what a layer returns, if not alone or first: a place, or the name of
            a field or key. A block of images and text that returns (text, image) has them at 1.
        in_place: whether a layer's output may be written into the hidden states that went in, which saves a
            copy of them. That is done only where autograd allows it and nothing else refers to them, never
            under activation checkpointing; code that kept them in a variable, and uses them later, gets an
            error that names this argument.
        batch_first: False where hidden states are (S, B, C); by default as torch's own attention in the
            layers says, else True.
        check: whether each layer is tried, before it first drops tokens, to see that it knows the places of
            tokens by its arguments alone, and that samples keep theirs apart.
        clock: what `keep` reads, when the step is set, where it is paced by another axis than steps.

    Returns:
        The `Route`: set its `step`, read what was `kept` and what was `processed`, `remove` it.

    Raises:
        ValueError: no layers to route, a module that is not in the model or is routed already, a pace on
            another axis and no clock, or, in the forward pass, a layer that computes places by itself, or a
            tensor argument that looks aligned to tokens and is neither known nor declared.

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
        router = cast(Callable[..., Any], registry.get("routers", router))
    made = router() if isinstance(router, type) else router
    if not isinstance(hidden_out, int | str) or isinstance(hidden_out, bool):
        raise ValueError(f"hidden_out is {hidden_out!r}; expected a place in what layers return, or a name")
    model = getattr(model, "_orig_mod", model)  # of a compiled model, the model
    whole_input = getattr(made, "scope", "layer") == "input"
    ends = skip if skip is not None else (0, 0) if whole_input else (1, 1)
    named = _named(model, list(layers) if layers is not None else blocks(model, ends))
    for name, layer in named.items():
        _check_layer(name, layer)
    _check_declared(named, [*(token_args or {}), *([] if hidden_arg is None else [hidden_arg])])
    _check_shared(made, model)
    for name, block in parts(model, list(named.values())).items():
        warnings.warn(
            f"layer {name!r} is a part of {block!r}. If its input is added to its output outside of it, "
            "tokens that bypass it count twice: name whole blocks",
            stacklevel=2,
        )
    pace = keep if callable(keep) else constant(whole("keep", keep, low=1))
    by_clock = axis(pace) != "steps"
    if by_clock and clock is None:
        raise ValueError(
            f"keep is paced by {axis(pace)}, and there is no clock to read; say attach(..., clock=clock)"
        )
    names = {id(module): name for name, module in model.named_modules()}
    stack = siblings(model, list(named.values()))
    route = Route(
        router=made,
        keep=pace,
        seed=whole("seed", seed, low=0, high=2**64 - 1),
        layers=named,
        blocks=[names[id(block)] for block in stack],
        clock=clock if by_clock else None,
        token_args=dict(token_args or {}),
        hidden_arg=hidden_arg,
        hidden_out=hidden_out,
        rank=whole("rank", rank_or_own(rank), low=0),
        in_place=in_place,
        batch_first=is_batch_first(named.values()) if batch_first is None else batch_first,
        check=check,
    )
    marked = {names[id(block)]: block for block in stack if names[id(block)] not in named}
    if check:
        _check_gaps(route)
    flow = Flow(route, found=layers is None, marked=marked)
    if hasattr(made, "gate"):
        plain = [unwrapped(layer) for layer in named.values()]
        for layer, gate in [(layer, made.gate(layer)) for layer in plain]:
            layer.add_module(type(made).__name__, gate)
    route._rides += [
        Ride(model, Hook(flow, "begin", ""), Hook(flow, "end", "")),
        *(Ride(block, Hook(flow, "mark", name)) for name, block in marked.items() if block is not model),
        *(Ride(named[n], Hook(flow, "enter", n), Hook(flow, "leave", n)) for n in named),
    ]
    for ride in route._rides:
        ride.attach()
    if "torch._dynamo" in sys.modules:  # what was compiled before does not look for hooks
        torch.compiler.reset()
    return route


def _named(model: nn.Module, layers: Sequence[nn.Module]) -> dict[str, nn.Module]:
    names = {id(module): name for name, module in model.named_modules()}
    for layer in layers:
        if id(layer) not in names:
            raise ValueError(f"a {type(layer).__name__} in layers is not a module of the model")
    if not layers:
        raise ValueError("layers is empty; expected at least one module of the model")
    return {names[id(layer)]: layer for layer in layers}


def _check_layer(name: str, layer: nn.Module) -> None:
    """Refuse what would go wrong later, or silently."""
    if any(isinstance(hook, Hook) and hook.method == "enter" for hook in layer._forward_pre_hooks.values()):
        raise ValueError(f"layer {name!r} is routed already; remove() that route first")
    if not is_called(layer):
        raise ValueError(
            f"layer {name!r} is a {type(layer).__name__}, which is never called; name what is: "
            "attach(..., layers=[...])"
        )


def _check_gaps(route: Route) -> None:
    """Refuse blocks that would get the kept tokens alone, and know nothing of it."""
    by_stack: dict[str, list[str]] = {}
    for name in route.blocks:
        by_stack.setdefault(name.rpartition(".")[0], []).append(name)
    for names in by_stack.values():
        routed = [i for i, name in enumerate(names) if name in route.layers]
        end = {"span": max(routed, default=0) + 1, "input": len(names)}.get(route._scope, 0)
        between = [name for name in names[min(routed, default=0) : end] if name not in route.layers]
        if routed and between:
            until = "up to the last that is routed" if route._scope == "span" else "from there on"
            raise ValueError(
                f"{between[0]!r} is not among the layers, and {route.router!r} would give it the kept tokens "
                f"alone, since it stands after {names[routed[0]]!r}: name all blocks {until}, or, if it "
                "knows nothing of places and masks, say check=False"
            )


def _check_shared(router: object, model: nn.Module) -> None:
    """Refuse parameters that come too late for what shares them among processes."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    sharded = fsdp is not None and any(isinstance(module, fsdp.FSDPModule) for module in model.modules())
    if hasattr(router, "gate") and (sharded or isinstance(model, nn.parallel.DistributedDataParallel)):
        raise ValueError(f"{router!r} {TOO_LATE}")


def _check_declared(layers: Mapping[str, nn.Module], arguments: Sequence[str]) -> None:
    """Refuse what no layer takes: an encoder's and a decoder's may differ."""
    takes = {name: inspect.signature(unwrapped(layer).forward).parameters for name, layer in layers.items()}
    if any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for own in takes.values() for p in own.values()):
        return
    known = list(dict.fromkeys(argument for own in takes.values() for argument in own))
    for declared in arguments:
        if declared not in known:
            of = f"the arguments of layer {next(iter(takes))!r}"
            raise ValueError(registry.unknown(declared, known, of=of))
