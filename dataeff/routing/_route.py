"""A route: the hooks that let only some tokens into some layers, and what they share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import nn
from torch._compile import (
    _disable_dynamo as _out_of_the_graph,
)  # torch.compiler.disable imports all of dynamo

from dataeff import ops
from dataeff._check import whole
from dataeff.pacing import constant
from dataeff.routing._adapters import travel
from dataeff.routing._residual import merge
from dataeff.routing._select import layer_tokens

_REMEMBERED = 4096  # inputs of layers, for recomputation: more than wait for one backward pass


@attrs.define(eq=False, slots=False)
class Route:
    """Token routing on a model; made by `attach`.

    Set `step` before each training step: the kept tokens depend on (seed, step, micro-batch, layer, row).
    Every forward pass of the model in training mode counts as one micro-batch of the step.

    Examples:
        >>> model = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(4)])
        >>> from dataeff.routing import attach
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
    in_place: bool
    """Whether outputs may be written into the hidden states that went in."""
    _step: int | None = attrs.field(default=None, init=False)
    _micro_batch: int = attrs.field(default=-1, init=False)
    _kept: dict[str, torch.Tensor] = attrs.field(factory=dict, init=False, repr=False)
    _inside: dict[str, tuple[torch.Tensor, torch.Tensor]] = attrs.field(factory=dict, init=False, repr=False)
    _drawn: dict[tuple[str, int], tuple[int, int]] = attrs.field(factory=dict, init=False, repr=False)
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

    def keep_at(self, seq: int, step: int | None = None) -> int:
        """How many of `seq` tokens enter a routed layer: what the pace says at `step` (now), or all."""
        if self._step is None and not isinstance(self.keep, constant):
            raise ValueError(
                "route.step is not set; set it before each training step, for keep to follow its pace"
            )
        step = self.step if step is None else step
        keep = self.keep(step)
        if keep < 1 or keep != int(keep):
            raise ValueError(
                f"keep is {keep!r} at step {step}; expected a whole number of at least 1: "
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

    def _moment(self, name: str, hidden: torch.Tensor) -> tuple[int, int]:
        """The step and micro-batch that a layer's input belongs to.

        Activation checkpointing runs a layer again in the backward pass, maybe after other forward passes.
        It keeps the layer's input for that, so the input's address tells which forward pass it was.
        """
        now = self.step, max(self._micro_batch, 0)
        address = name, hidden.data_ptr()
        if torch._C._current_graph_task_id() != -1:  # inside a backward pass
            return self._drawn.get(address, now)
        self._drawn.pop(address, None)
        self._drawn[address] = now
        if len(self._drawn) > _REMEMBERED:
            del self._drawn[next(iter(self._drawn))]
        return now

    @_out_of_the_graph
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
        step, micro_batch = self._moment(name, hidden)
        keep = self.keep_at(seq, step)
        if keep == seq:
            return None
        key = (self.seed, step, micro_batch, list(self.layers).index(name))
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

    @_out_of_the_graph
    def _leave(self, name: str, layer: nn.Module, args: Any, output: Any) -> Any:
        """After a layer: put its output among the tokens that bypassed it."""
        if name not in self._inside:
            return None
        hidden, ids = self._inside.pop(name)
        if isinstance(output, torch.Tensor):
            return merge(hidden, output.to(hidden.dtype), ids, in_place=self.in_place)
        if isinstance(output, tuple) and output and isinstance(output[0], torch.Tensor):
            merged = merge(hidden, output[0].to(hidden.dtype), ids, in_place=self.in_place)
            return merged, *output[1:]
        raise ValueError(
            f"layer {name!r} returns {type(output).__name__}; expected hidden states, alone or in a tuple"
        )
