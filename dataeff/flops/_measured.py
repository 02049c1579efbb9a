"""What a model costs, read off a pass."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.utils._pytree import tree_map

from dataeff.flops._cost import Cost
from dataeff.flops._pass import apart, tensors, total_of
from dataeff.routing import Meter, is_batch_first, named_blocks, whole_input


def measured(model: nn.Module, *inputs: Any, layers: Iterable[str] | None = None, **named: Any) -> Cost:
    """The cost of a model, read off passes forward and backward over `inputs`, one row being enough.

    Whatever the blocks are made of: products by parameters, or by what is made of them alone, cost a token,
    batched products of activations a pair. Counted by torch's FlopCounterMode in evaluation mode, so that a
    route is idle; no gradient is touched. Of a model in `torch.compile` or DistributedDataParallel, the names
    are those of the model inside, as a route has them.

    Ids are tried at half of their length, too, which tells what is outside of the blocks and costs a token,
    as heads do, from what costs a row. Cut are all tensors as long as the first one, and all ids (B, L) of
    another length: the head of a decoder counts by the encoder's tokens, at the ratio of `inputs`. All
    costs a row where the model fails on half of the length (a mask or positions of fixed length), or is
    given states or one token. Attention outside of `layers`, and to another sequence, is as at the lengths
    of `inputs`.

    Args:
        model: with its blocks in a ModuleList or Sequential.
        inputs: what the model is called with, positionally; the first tensor has rows of tokens.
        layers: the names of the blocks; by default those that `attach` finds, or `route.blocks`.
        **named: what it is called with by name.

    Raises:
        ValueError: inputs without rows of tokens, no output with a gradient, a model that is checkpointed in
            evaluation mode, too, or a layer that is no module of the model, is in another, or does not run.

    Examples:
        >>> block = nn.TransformerEncoderLayer(16, 2, 64, batch_first=True)
        >>> model = nn.TransformerEncoder(block, num_layers=3, enable_nested_tensor=False)
        >>> measured(model, torch.randn(1, 8, 16)).layers["layers.1"]
        (18432, 192)
        >>> from dataeff.flops import transformer
        >>> transformer(width=16).layers["*"]
        (18432, 192)
    """
    inner = _inner(model)
    blocks = _blocks(model, inner, layers)
    first = _first(inner, inputs, named)
    with _evaluation(inner):
        costs, rest = _costs(inner, blocks, inputs, named)
        token = _a_token(rest, first, inner, blocks, inputs, named)
    rows, seq = first.shape[:2]
    return Cost(costs, token=token, row=rest // rows - token * seq)


def _inner(model: nn.Module) -> nn.Module:
    """The model that a compiled or a parallel one is made of."""
    around = "module" if isinstance(model, DistributedDataParallel | DataParallel) else "_orig_mod"
    inner = getattr(model, around, None)
    return model if inner is None else _inner(inner)


def _blocks(model: nn.Module, inner: nn.Module, layers: Iterable[str] | None) -> dict[str, nn.Module]:
    """By name, in `inner` or in what is around it."""
    if layers is None:
        return named_blocks(inner)
    if isinstance(layers, str):
        raise ValueError(f"layers is {layers!r}; expected a list of names: write layers=[{layers!r}]")
    names, modules = list(layers), dict(model.named_modules()) | dict(inner.named_modules())
    for name in names:
        if name not in modules:
            raise ValueError(
                f"{name!r} is no module of the {type(inner).__name__}; expected names of modules"
            )
        if outer := next((other for other in names if name.startswith(f"{other}.")), None):
            raise ValueError(f"layer {name!r} is in layer {outer!r}; leave one of them out of layers")
    return {name: modules[name] for name in names}


def _first(model: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> torch.Tensor:
    """The tensor that rows and tokens are counted by, (B, S, ...), as in a route."""
    if torch.is_inference_mode_enabled():
        raise ValueError("inference mode is on; measure outside of torch.inference_mode()")
    found = whole_input(inputs, named)
    if found is None or not found.shape[0] or not found.shape[1]:
        shapes = [tuple(tensor.shape) for tensor in tensors((inputs, named))]
        raise ValueError(
            f"the inputs are tensors of the shapes {shapes}; expected what the {type(model).__name__} is "
            "called with, one row of tokens or more, (B, S): measured(model, ids), of one row ids[None]"
        )
    return found


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    """Nothing random, fused or compiled, which the counter would not see; then all as it was."""
    modes = [(module, module.training) for module in model.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.random.fork_rng())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if hasattr(torch.compiler, "set_stance"):  # since torch 2.6
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            model.eval()
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            for module, mode in modes:
                module.training = mode


def _costs(
    model: nn.Module, blocks: Mapping[str, nn.Module], inputs: Any, named: Mapping[str, Any]
) -> tuple[dict[str, tuple[int, int]], int]:
    """FLOPs of each block, a token and a pair of tokens; and all that are outside of them."""
    total = total_of(model, inputs, named)
    meter, counted = Meter(is_batch_first(blocks.values())), dict.fromkeys(blocks, (0, 0))
    with apart(blocks, meter, counted):
        model(*inputs, **named)
    seen = meter.take(blocks).layers
    costs = {}
    for name, (weights, products) in counted.items():
        tokens, pairs = seen[name]
        if not tokens:
            raise ValueError(
                f"layer {name!r} was given no tokens; expected inputs that it runs on: give such, or leave "
                "it out of layers"
            )
        costs[name] = weights // tokens, products // pairs
    return costs, max(0, total - sum(map(sum, counted.values())))


def _a_token(
    rest: int,
    first: torch.Tensor,
    model: nn.Module,
    blocks: Mapping[str, nn.Module],
    inputs: Any,
    named: Mapping[str, Any],
) -> int:
    """What of `rest`, the FLOPs outside of blocks, a token costs: as they shrink with the length."""
    rows, seq = first.shape[:2]
    if first.is_floating_point() or seq < 2:
        return 0
    half = _Half(seq)
    try:
        _, less = _costs(model, blocks, tree_map(half, inputs), tree_map(half, named))
    except Exception:  # whatever a model raises that knows one length alone
        return 0
    fewer = rows * (seq - seq // 2)
    return max(0, min((rest - less) // fewer, rest // (rows * seq)))  # the latter if it grows with the square


@attrs.frozen
class _Half:
    seq: int

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.dim() < 2:
            return value
        ids = value.dim() == 2 and not value.is_floating_point()
        return value[:, : max(1, value.shape[1] // 2)] if ids or value.shape[1] == self.seq else value
