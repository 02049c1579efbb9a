"""The token operations as operators of torch: `torch.ops.dataeff`, for CUDA, autograd and compilers."""

import importlib.util
from typing import Any

import torch

from dataeff import rng
from dataeff.ops import _aten, _checks, _layout, _sample

Tensor = torch.Tensor
_TRITON = importlib.util.find_spec("triton") is not None


@torch.library.custom_op("dataeff::gather_tokens", mutates_args=())
def gather(x: Tensor, ids: Tensor) -> Tensor:
    """The tokens `ids` of each row. (B, S, ...), (B, K) or (K,) -> (B, K, ...)."""
    out = _layout.empty(x, ids.shape[-1])
    return out.copy_(_aten.gather(x, ids))


@torch.library.custom_op("dataeff::scatter_tokens", mutates_args=())
def scatter(x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
    """A copy of `x` with `y` in place of the tokens `ids`. (B, S, ...), (B, K, ...), (B, K) or (K,)."""
    out = x.clone()
    write(out, y, ids)
    return out


@torch.library.custom_op("dataeff::spread_tokens", mutates_args=())
def spread(y: Tensor, ids: Tensor, seq: int) -> Tensor:
    """Zeros with `y` as the tokens `ids`: what gather's gradient is. (B, K, ...) -> (B, seq, ...)."""
    out = _layout.empty(y, seq).zero_()
    write(out, y, ids)
    return out


@torch.library.custom_op("dataeff::write_tokens", mutates_args=("x",))
def write(x: Tensor, y: Tensor, ids: Tensor) -> None:
    """Put `y` in place of the tokens `ids` of `x`, without a trace in autograd."""
    _aten.write(x, y, ids)


if _TRITON:  # else all devices do it by torch's own calls

    @gather.register_kernel("cuda")
    def _(x: Tensor, ids: Tensor) -> Tensor:
        from dataeff.ops import _triton

        return _triton.gather(x, ids, _layout.empty(x, ids.shape[-1]))

    @write.register_kernel("cuda")
    def _(x: Tensor, y: Tensor, ids: Tensor) -> None:
        from dataeff.ops import _triton

        _triton.write(x, y, ids)


@gather.register_fake
def _(x: Tensor, ids: Tensor) -> Tensor:
    return _layout.empty(x, ids.shape[-1])


@scatter.register_fake
def _(x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
    return torch.empty_like(x)


@spread.register_fake
def _(y: Tensor, ids: Tensor, seq: int) -> Tensor:
    return _layout.empty(y, seq)


@write.register_fake
def _(x: Tensor, y: Tensor, ids: Tensor) -> None: ...


def _keep_ids(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(inputs[-1])
    ctx.seq = inputs[0].shape[1]


def _gather_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return spread(grad, *ctx.saved_tensors, ctx.seq), None


def _scatter_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (ids,) = ctx.saved_tensors
    return cleared(grad, ids) if ctx.needs_input_grad[0] else None, gather(grad, ids), None


def cleared(x: Tensor, ids: Tensor) -> Tensor:
    """`x` with zeros in place of the tokens `ids`.

    Examples:
        >>> cleared(torch.ones(1, 3), torch.tensor([[0, 2]])).tolist()
        [[0.0, 1.0, 0.0]]
    """
    zeros = x.new_zeros((1, 1, *x.shape[2:])).expand(x.shape[0], ids.shape[-1], *x.shape[2:])
    put: Tensor = scatter(x, zeros, ids)
    return put


def _spread_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return gather(grad, ctx.saved_tensors[0]), None, None


def _keep_spread_ids(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(inputs[1])


spread.register_autograd(_spread_backward, setup_context=_keep_spread_ids)
gather.register_autograd(_gather_backward, setup_context=_keep_ids)
scatter.register_autograd(_scatter_backward, setup_context=_keep_ids)


class Write(torch.autograd.Function):
    """`write` as autograd knows operations in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
        """Write, and keep nothing but the ids."""
        ctx.mark_dirty(x)
        ctx.save_for_backward(ids)
        write(x, y, ids)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        """To `y` where it was put, to what `x` was elsewhere."""
        return *_scatter_backward(ctx, *grads)[:2], None


@torch.library.custom_op("dataeff::sample_tokens", mutates_args=())
def sample(
    batch: int,
    seq: int,
    keep: int,
    key: list[int],
    moment: Tensor | None,
    after: int | None,
    layers: int | None,
    first_row: int,
    prefix: int,
    always: Tensor | None,
    valid: Tensor | None,
    weights: Tensor | None,
    device: torch.device,
) -> Tensor:
    """Ids of the kept tokens of each layer, or of one, and row. (layers or 1, batch, keep) int32."""
    masks = always, valid, weights
    if device.type == "cpu" or _checks.DEBUG:
        _checks.drawable(keep, always, weights)
    if device.type == "cuda" and _TRITON:
        from dataeff.ops import _triton

        ids = _room(layers, batch, keep, device)
        if moment is not None and moment.device.type == "cuda":  # folded there: reading it would wait
            base, moment = rng.key(*(part % 2**64 for part in key)), moment.to(ids.device)
            return _triton.sample(
                base, layers is not None, first_row, prefix, *masks, seq, ids, moment=moment, after=after
            )
        base = _key(key, moment, after)
        return _triton.sample(base, layers is not None, first_row, prefix, *masks, seq, ids)
    base = _key(key, moment, after)
    keys = [base] if layers is None else rng.fold(base, range(layers)).tolist()
    return _sample.on_cpu(keep, keys, first_row, (batch, seq), prefix, *masks).to(device)


@sample.register_fake
def _(batch: int, seq: int, keep: int, key: Any, moment: Any, after: Any, *others: Any) -> Tensor:
    return _room(others[0], batch, keep, others[-1])


def _key(before: list[int], moment: Tensor | None, after: int | None) -> int:
    parts = [*before, *([] if moment is None else moment.view(-1).tolist())]
    return rng.key(*(part % 2**64 for part in (parts if after is None else [*parts, after])))


def _room(layers: int | None, batch: int, keep: int, device: torch.device) -> Tensor:
    return torch.empty((1 if layers is None else layers, batch, keep), dtype=torch.int32, device=device)
