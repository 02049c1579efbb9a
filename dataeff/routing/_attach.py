"""Routing on a model, by hooks: the model's code, its state dict and its evaluation stay as they are."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import attrs
import torch
from torch import nn
from torch._compile import _disable_dynamo as _compiler_disable

from dataeff import ops, registry
from dataeff._check import whole
from dataeff._distributed import rank_or_own
from dataeff.pacing import constant
from dataeff.routing._adapters import travel
from dataeff.routing._select import layer_tokens


@attrs.define(eq=False, slots=False)
class Route:
    """Token routing on a model; made by `attach`.

    Set `step` before each training step: the kept tokens depend on (seed, step, micro-batch, layer, row).
    Every forward pass of the model in training mode counts as one micro-batch of the step.

    Examples:
        >>> model = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(4)])
        >>> route = attach(model, keep=2, layers=model[1:3], seed=1234)
        >>> route.step = 0
        >>> _ = model(torch.zeros(1, 8, 4))
        >>> {name: tuple(ids.shape) for name, ids in route.kept().items()}
        {'1': (1, 2), '2': (1, 2)}
        >>> route.remove()
    """

    router: Callable[..., torch.Tensor]
    keep: Callable[[int], float]
    seed: int
    layers: dict[str, nn.Module] = attrs.field(repr=lambda layers: repr(list(layers)))
    depth: int
    """The number of blocks in the model, routed or not."""
    token_args: Mapping[str, int | Sequence[int]]
    rank: int
    """Of this process among those that hold other samples of the global batch."""
    _step: int | None = attrs.field(default=None, init=False)
    _micro_batch: int = attrs.field(default=-1, init=False)
    _kept: dict[str, torch.Tensor] = attrs.field(factory=dict, init=False, repr=False)
    _inside: dict[str, tuple[torch.Tensor, torch.Tensor]] = attrs.field(factory=dict, init=False, repr=False)
    _handles: list[Any] = attrs.field(factory=list, init=False, repr=False)

    @property
    def step(self) -> int:
        """The training step, 0 until it is set; another one begins with its first micro-batch."""
        return self._step or 0

    @step.setter
    def step(self, step: int) -> None:
        if whole("step", step, low=0) != self._step:
            self._step = whole("step", step, low=0)
            self._micro_batch = -1

    def keep_at(self, seq: int) -> int:
        """How many of `seq` tokens enter a routed layer at this step: what the pace says, or all."""
        if self._step is None and not isinstance(self.keep, constant):
            raise ValueError(
                "route.step is not set; set it before each training step, for keep to follow its pace"
            )
        keep = self.keep(self.step)
        if keep < 1 or keep != int(keep):
            raise ValueError(
                f"keep is {keep!r} at step {self.step}; expected a whole number of at least 1: "
                "give the pace multiple= (or wrap it in pacing.multiple) and a start of at least 1"
            )
        return min(int(keep), seq)

    def kept(self) -> dict[str, torch.Tensor]:
        """The ids that entered each routed layer in the last forward pass, by layer name. (B, keep) int32.

        A layer that took all tokens is not in it.
        """
        return dict(self._kept)

    def layer_tokens(self, samples: int, seq: int) -> int:
        """The layer tokens that this step consumes over all blocks of the model, for a clock."""
        return layer_tokens(samples, seq, self.keep_at(seq), layers=self.depth, routed=len(self.layers))

    def remove(self) -> None:
        """Take the routing off the model; nothing of it is left there."""
        while self._handles:
            self._handles.pop().remove()

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint needs between steps, in plain numbers."""
        return {"step": self.step, "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`. Raises ValueError for one of another seed."""
        if set(state) != {"step", "seed"} or state["seed"] != self.seed:
            raise ValueError(f"the state is {state!r}; expected a step and the seed {self.seed}")
        self._step = None
        self.step = state["step"]

    def _begin(self, model: nn.Module, args: Any) -> None:
        """The root model's forward begins: a new micro-batch, whatever a layer does or does again later."""
        if model.training:
            self._micro_batch += 1
            self._kept.clear()

    @_compiler_disable
    def _enter(
        self, name: str, names: list[str], layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Before a layer: hand it the kept tokens alone."""
        self._inside.pop(name, None)
        if not layer.training:
            return None
        given = dict(zip(names + [f"*args[{i}]" for i in range(len(args))], args, strict=False)) | kwargs
        first = names[0] if names and names[0] in given else next(iter(given), "none")
        hidden = given.get(first)
        if not isinstance(hidden, torch.Tensor) or hidden.dim() < 3:
            got = tuple(hidden.shape) if isinstance(hidden, torch.Tensor) else type(hidden).__name__
            raise ValueError(f"layer {name!r}: its first argument, {first!r}, is {got}; expected (B, S, C)")
        batch, seq = hidden.shape[:2]
        keep = self.keep_at(seq)
        if keep == seq:
            return None
        key = (self.seed, self.step, max(self._micro_batch, 0), list(self.layers).index(name))
        ids = self.router(batch, seq, keep, key=key, first_row=self.rank * batch, device=hidden.device)
        self._kept[name] = ids
        self._inside[name] = hidden, ids
        moved = {
            argument: ops.gather_tokens(hidden, ids)
            if value is hidden
            else travel(argument, value, ids, seq, self.token_args)
            for argument, value in given.items()
        }
        values = list(moved.values())
        return tuple(values[: len(args)]), dict(zip(kwargs, values[len(args) :], strict=True))

    @_compiler_disable
    def _leave(self, name: str, layer: nn.Module, args: Any, output: Any) -> Any:
        """After a layer: put its output among the tokens that bypassed it."""
        if name not in self._inside:
            return None
        hidden, ids = self._inside.pop(name)
        if isinstance(output, torch.Tensor):
            return ops.scatter_tokens(hidden, output.to(hidden.dtype), ids)
        if isinstance(output, tuple) and output and isinstance(output[0], torch.Tensor):
            return ops.scatter_tokens(hidden, output[0].to(hidden.dtype), ids), *output[1:]
        raise ValueError(
            f"layer {name!r} returns {type(output).__name__}; expected hidden states, alone or in a tuple"
        )


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
