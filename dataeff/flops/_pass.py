"""FLOPs of a pass forward and backward, over a model and over each of its blocks."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from dataeff.routing import Meter
from dataeff.routing._inputs import hidden_states
from dataeff.routing._passes import in_backward


def total_of(model: nn.Module, inputs: Any, named: Mapping[str, Any]) -> int:
    """FLOPs of a pass forward and backward."""
    hooks = [
        module.register_forward_pre_hook(_Once(name or type(model).__name__))
        for name, module in model.named_modules()
    ]
    into = [*model.parameters(), *tensors((inputs, named))]
    try:
        with _counter(model) as counter:
            outputs = _outputs(model(*inputs, **named))
            if not outputs:
                raise ValueError(
                    f"no output of the {type(model).__name__} has a gradient; let some of its parameters "
                    "require one"
                )
            _backward(outputs, into)
    except RuntimeError as error:
        if "checkpoint" not in str(error):
            raise
        raise ValueError("a layer is checkpointed; measure with checkpointing off") from error
    finally:
        for hook in hooks:
            hook.remove()
    return sum(_split(counter))


@attrs.frozen
class _Once:
    """Before a module: refuse to run it again in the backward pass, which would be counted."""

    name: str

    def __call__(self, module: nn.Module, args: Any) -> None:
        if in_backward():
            raise ValueError(f"layer {self.name!r} is checkpointed; measure with checkpointing off")


@contextmanager
def apart(
    blocks: Mapping[str, nn.Module], meter: Meter, counted: dict[str, tuple[int, int]]
) -> Iterator[None]:
    """Each block goes backward by itself, and is counted.

    In a backward pass of the whole model the counter mistakes what is whose where a block has several
    inputs with gradients, as in a decoder.
    """
    before = {name: vars(block).get("forward") for name, block in blocks.items()}
    try:
        for name, block in blocks.items():
            vars(block)["forward"] = _Apart(name, block, block.forward, meter, counted)
        yield
    finally:
        for name, block in blocks.items():
            vars(block).pop("forward", None)
            if before[name] is not None:
                vars(block)["forward"] = before[name]


@attrs.frozen(eq=False)
class _Apart:
    name: str
    block: nn.Module
    forward: Any
    meter: Meter
    counted: dict[str, tuple[int, int]]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        x = hidden_states(args, kwargs)
        for found in tensors((args, kwargs))[:1] if x is None else [x]:
            self.meter.add(self.name, found)
        cut = _Cut({}, {})
        args, kwargs = _mapped(cut, args), _mapped(cut, kwargs)
        with _counter(self.block) as counter:
            out = self.forward(*args, **kwargs)
            _backward(_outputs(out), [*cut.leaves.values(), *self.block.parameters()])
        more = _split(counter)
        so_far = self.counted[self.name]
        self.counted[self.name] = so_far[0] + more[0], so_far[1] + more[1]
        return out


@attrs.frozen
class _Cut:
    """Tensors of a graph as leaves of another, each as often as it comes."""

    leaves: dict[int, torch.Tensor]
    made: dict[int, torch.Tensor]

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.requires_grad:
            return value
        if id(value) not in self.made:
            self.leaves[id(value)] = leaf = value.detach().requires_grad_()
            self.made[id(value)] = leaf.clone()  # which a block may write into
        return self.made[id(value)]


def _mapped(function: Any, values: Any) -> Any:
    """Within tuples, lists and dictionaries; a cache of keys and values stays the same object."""
    return tree_map(function, values, is_leaf=lambda value: not isinstance(value, tuple | list | dict))


def tensors(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def _outputs(value: Any) -> list[torch.Tensor]:
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    return _with_gradient(tensors(value))


def _with_gradient(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    return list({id(x): x for x in tensors if x.requires_grad}.values())


def _backward(outputs: Sequence[torch.Tensor], into: Iterable[torch.Tensor]) -> None:
    """Take the gradients, and leave each `.grad` as it is."""
    into = _with_gradient(into)
    if outputs and into:
        ones = [torch.ones_like(output) for output in outputs]
        torch.autograd.grad(outputs, into, ones, allow_unused=True, retain_graph=True)


@attrs.define(eq=False)
class _Kinds:
    """Whether what runs multiplies by weights, or activations by activations, which is of pairs of tokens.

    In the place of torch's tracker of modules, which fails where a module is given a leaf with a gradient.
    A batched product is one by weights if an operand is made of parameters alone, and in the backward pass
    if it has an operand of such a one.
    """

    count: Any
    weights: dict[int, torch.Tensor]
    """Parameters, and what is made of them alone, by their memory; which is not freed, so no other has it."""
    factors: dict[tuple[int, ...], torch.Tensor] = attrs.field(factory=dict, init=False)
    """Operands of batched products by weights, by their memory and the sizes of the product."""
    parents: tuple[str, ...] = attrs.field(default=(), init=False)
    """What torch adds the FLOPs to."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: Any) -> None: ...

    def __call__(self, op: Any, out: Any, args: Any, kwargs: Any) -> Any:
        given = tensors((args, kwargs))
        of_weights = bool(given) and all(_memory(x) in self.weights for x in given)
        for made in tensors(out):
            if of_weights:
                self.weights[_memory(made)] = made
            else:
                self.weights.pop(_memory(made), None)
        self.parents = (self._kind(str(op), args),)
        return self.count(op, out, args, kwargs)

    def _kind(self, op: str, args: Any) -> str:
        if "bmm" not in op:
            return "pairs" if "attention" in op else "weights"
        left, right = args[-2:]  # (B, M, K), (B, K, N)
        sizes = sorted((*left.shape, right.shape[2]))  # in the backward pass they are the same
        factors = {(_memory(factor), *sizes): factor for factor in (left, right)}
        if any(_memory(factor) in self.weights for factor in (left, right)):
            self.factors |= factors
        return "weights" if factors.keys() & self.factors.keys() else "pairs"


def _memory(x: torch.Tensor) -> int:
    return x.untyped_storage()._cdata if x.layout == torch.strided else id(x)


def _counter(model: nn.Module) -> Any:
    from torch.utils.flop_counter import FlopCounterMode  # which imports Triton

    counter: Any = FlopCounterMode(display=False)
    kinds = _Kinds(counter._count_flops, {_memory(weight): weight for weight in model.parameters()})
    counter.mod_tracker = counter._count_flops = kinds
    return counter


def _split(counter: Any) -> tuple[int, int]:
    """FLOPs of products by weights, and of those of activations, which are of pairs of tokens."""
    counts = counter.get_flop_counts()
    weights, pairs = (sum(counts.get(kind, {}).values()) for kind in ("weights", "pairs"))
    return weights, pairs
