"""Floating-point operations of training, from the tokens that layers processed.

A matrix of n weights costs 2n a token forward, and twice that backward: for the gradient of its input, and
for its own. Attention costs 4w a pair of tokens of one row forward, w being the width of all its heads
together: for queries times keys, and weights times values. Norms, activations and the optimizer are left out,
as is usual, and so is what activation checkpointing runs again.
"""

import collections
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from dataeff._check import is_whole, whole
from dataeff.clock import Processed
from dataeff.routing import Meter, is_batch_first, named_blocks

_PAIRS = ("bmm", "baddbmm", "attention")  # products of activations: of pairs of tokens
_ANY = "*"


def _layers(costs: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    return dict(costs)


@attrs.frozen
class Cost:
    """FLOPs, forward and backward, of what the layers of a model processed; give it to `Clock.tick`.

    Attributes:
        layers: by name of a layer, FLOPs a token and a pair of tokens of one row; "*" for any other.
        token: FLOPs outside of them, a token that the model was given.
        row: FLOPs outside of them, a row.

    Examples:
        >>> cost = Cost({"*": (100, 1)}, token=10)
        >>> cost(Processed(rows=1, tokens=8, layers={"h.0": (8, 64), "h.1": (4, 16)}))
        1360
    """

    layers: Mapping[str, tuple[int, int]] = attrs.field(converter=_layers)
    token: int = attrs.field(default=0, kw_only=True, validator=is_whole(0))
    row: int = attrs.field(default=0, kw_only=True, validator=is_whole(0))

    def __call__(self, processed: Processed) -> int:
        """The FLOPs. Raises ValueError for a layer that it does not know."""
        total = self.row * processed.rows + self.token * processed.tokens
        for name, (tokens, pairs) in processed.layers.items():
            a_token, a_pair = self._of(name)
            total += a_token * tokens + a_pair * pairs
        return total

    def _of(self, name: str) -> tuple[int, int]:
        found = self.layers.get(name, self.layers.get(_ANY))
        if found is None:
            raise ValueError(
                f"the cost of layer {name!r} is not known, only of {', '.join(self.layers)}; measure it with "
                "layers=route.blocks"
            )
        return found


def transformer(
    *,
    width: int,
    feedforward: int | None = None,
    vocabulary: int = 0,
    heads: int | None = None,
    key_value_heads: int | None = None,
    head_width: int | None = None,
    gated: bool = False,
) -> Cost:
    """The cost of a transformer of like blocks by formula, without a model.

    Args:
        width: of hidden states.
        feedforward: of the inner layer, 4 * width by default.
        vocabulary: entries that each token's next one is predicted among; 0 for no such head.
        heads: of queries; with `head_width` by default width in all.
        key_value_heads: as many as `heads` by default; fewer with grouped queries.
        head_width: width / heads by default.
        gated: whether the feed-forward has a third matrix, as in SwiGLU.

    Examples:
        >>> cost = transformer(width=2048, vocabulary=50_257)  # GPT-3 1.3B has 24 blocks
        >>> seen = {f"h.{i}": (2048, 2048**2) for i in range(24)}
        >>> f"{cost(Processed(rows=1, tokens=2048, layers=seen)):.2e}"
        '1.86e+13'
    """
    numbers = {"width": width, "feedforward": feedforward or 4 * width, "heads": heads or 1}
    numbers = {name: whole(name, number, low=1) for name, number in numbers.items()}
    width, inner, heads = numbers.values()
    if head_width is None and width % heads:
        raise ValueError(f"heads is {heads} and width {width}; expected a divisor, or head_width")
    head = whole("head_width", head_width or width // heads, low=1)
    queries = heads * head
    keys = whole("key_value_heads", key_value_heads or heads, low=1) * head
    weights = 2 * width * queries + 2 * width * keys + (3 if gated else 2) * width * inner
    return Cost({_ANY: (6 * weights, 12 * queries)}, token=6 * width * whole("vocabulary", vocabulary, low=0))


def measured(model: nn.Module, *inputs: Any, layers: Iterable[str] | None = None, **named: Any) -> Cost:
    """The cost of a model, read off one pass forward and backward over `inputs`, one row being enough.

    Whatever the blocks are made of. Counted by torch's FlopCounterMode in evaluation mode, so that a route
    is idle; gradients are afterwards what they were. Ids are tried at half of their length, too, which tells
    what heads cost a token from what they cost a row.

    Args:
        model: with its blocks in a ModuleList or Sequential.
        inputs: what the model is called with, positionally.
        layers: the names of the blocks; by default those that `attach` finds, or `route.blocks`.
        **named: what it is called with by name.

    Raises:
        ValueError: an output without a gradient, or a layer that is no module of the model.

    Examples:
        >>> block = nn.TransformerEncoderLayer(16, 2, 64, batch_first=True)
        >>> model = nn.TransformerEncoder(block, num_layers=3, enable_nested_tensor=False)
        >>> measured(model, torch.randn(1, 8, 16)).layers["layers.1"]
        (18432, 192)
        >>> transformer(width=16).layers["*"]
        (18432, 192)
    """
    blocks = list(layers) if layers is not None else list(named_blocks(model))
    modules = dict(model.named_modules())
    if strange := sorted(set(blocks) - set(modules)):
        raise ValueError(f"{strange[0]!r} is no module of the {type(model).__name__}")
    first = next(leaf for leaf in tree_leaves((inputs, named)) if isinstance(leaf, torch.Tensor))
    rows, seq = len(first), first.shape[1]
    counted, meter = _counted(model, inputs, named, {name: modules[name] for name in blocks})
    seen = meter.take(blocks)
    costs = {name: _split(counted[name], *seen.layers[name]) for name in blocks}
    rest = _outside(counted, blocks)
    if first.is_floating_point() or seq < 2:
        return Cost(costs, row=rest // rows)

    def cut(value: Any) -> Any:
        aligned = isinstance(value, torch.Tensor) and value.dim() > 1 and value.shape[1] == seq
        return value[:, : seq // 2] if aligned else value

    less, _ = _counted(model, tree_map(cut, inputs), tree_map(cut, named), {})
    token = (rest - _outside(less, blocks)) // (rows * (seq - seq // 2))
    return Cost(costs, token=token, row=rest // rows - token * seq)


def _counted(
    model: nn.Module, inputs: Any, named: Mapping[str, Any], layers: Mapping[str, nn.Module]
) -> tuple[dict[str, dict[str, int]], Meter]:
    """By name of a module, "" for the model, FLOPs by operation; and what the layers were given."""
    meter = Meter(is_batch_first(layers.values()))
    grads = [(weight, weight.grad) for weight in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    hooks = [
        layer.register_forward_pre_hook(_Note(meter, name), with_kwargs=True)
        for name, layer in layers.items()
    ]
    try:
        model.eval()
        with torch.random.fork_rng(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            leaves = tree_leaves(model(*inputs, **named))
            outputs = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
            if not outputs:
                raise ValueError(f"no output of the {type(model).__name__} has a gradient; expected one")
            sum(output.sum() for output in outputs).backward()  # type: ignore[union-attr]
    finally:
        for module, mode in modes:
            module.training = mode
        for hook in hooks:
            hook.remove()
        for weight, grad in grads:
            weight.grad = grad
    told = {path.partition(".")[2]: counts for path, counts in counter.get_flop_counts().items()}
    told[""] = counter.get_flop_counts()["Global"]
    plain = {path: {str(op): count for op, count in counts.items()} for path, counts in told.items()}
    return collections.defaultdict(dict, plain), meter


@attrs.frozen(eq=False)
class _Note:
    meter: Meter
    name: str

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        x = next(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor))
        self.meter.add(self.name, x)


def _split(counts: Mapping[str, int], tokens: int, pairs: int) -> tuple[int, int]:
    """FLOPs a token and a pair of tokens: products of activations are of pairs, those with weights not."""
    of_pairs = sum(count for op, count in counts.items() if any(part in op for part in _PAIRS))
    return (sum(counts.values()) - of_pairs) // max(tokens, 1), of_pairs // max(pairs, 1)


def _outside(counted: Mapping[str, Mapping[str, int]], blocks: Iterable[str]) -> int:
    return sum(counted[""].values()) - sum(sum(counted[name].values()) for name in blocks)
