"""Putting a layer's output back among the tokens that bypassed it: in place where nobody can tell."""

from typing import Any, NoReturn

import torch

from dataeff import ops


def merge(hidden: torch.Tensor, output: torch.Tensor, ids: torch.Tensor, *, in_place: bool) -> torch.Tensor:
    """`ops.scatter_tokens(hidden, output, ids)`; into the memory of `hidden` if nothing else needs it.

    `hidden` is then of no more use: whoever kept it, and uses it, gets an error.

    Examples:
        >>> hidden = torch.zeros(1, 3, 1, requires_grad=True) * 1
        >>> merged = merge(hidden, torch.ones(1, 1, 1), torch.tensor([[1]]), in_place=True)
        >>> merged.flatten().tolist(), hidden
        ([0.0, 1.0, 0.0], <hidden states that a routed layer has written its output into>)
    """
    if torch.compiler.is_compiling() or not (in_place and _is_free(hidden)):  # it plans memory itself
        return ops.scatter_tokens(hidden, output, ids)
    merged: torch.Tensor = _Overwrite.apply(hidden, output, ids)  # type: ignore[no-untyped-call]
    hidden.__class__ = Overwritten
    return merged


class Overwritten(torch.Tensor):
    """Hidden states that are no more: their memory holds those after the layer.

    Examples:
        >>> hidden = torch.zeros(2)
        >>> hidden.__class__ = Overwritten
        >>> hidden + 1
        Traceback (most recent call last):
        ...
        RuntimeError: these hidden states went into a routed layer, which has written its output into ...
    """

    @classmethod
    def __torch_function__(cls, *_: Any, **__: Any) -> NoReturn:
        """Any use is an error."""
        raise RuntimeError(
            "these hidden states went into a routed layer, which has written its output into them. If they "
            "are now added to that output, as its residual, the layer is only part of a block, and a token "
            "that bypasses it would count twice: leave it out (layers=[...]). For another use of them, route "
            "with attach(..., in_place=False)"
        )

    def __repr__(self) -> str:  # type: ignore[override]
        return "<hidden states that a routed layer has written its output into>"


class _Overwrite(torch.autograd.Function):
    """Scatter into the memory of `x`, as a new tensor; autograd sees that `x` is of another version now."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(ids)
        return ops.scatter_tokens_(x.detach(), y, ids)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (ids,) = ctx.saved_tensors
        passed = grad.new_zeros(()).expand(len(grad), ids.shape[-1], *grad.shape[2:])
        return ops.scatter_tokens(grad, passed, ids), ops.gather_tokens(grad, ids), None


def _references(x: torch.Tensor) -> tuple[int, int]:
    """How often torch itself refers to a tensor, and to its memory: saved for a backward pass, or a view."""
    return x._use_count(), torch._C._storage_Use_Count(x.untyped_storage()._cdata)  # type: ignore[attr-defined]


_ALONE = _references(torch.empty(1))


def _is_free(hidden: torch.Tensor) -> bool:
    """Whether writing into `hidden` can change no gradient, and no value but through `hidden` itself."""
    return (
        type(hidden) is torch.Tensor
        and not torch._C._are_functorch_transforms_active()  # whose tensors have no memory to look at
        and torch.is_grad_enabled()  # else, in training: checkpointing that runs the layer again later
        and hidden.grad_fn is not None  # a leaf is somebody's: data, or a parameter
        and not hidden.retains_grad
        and not hidden._is_view()
        and _references(hidden) == _ALONE
        # Checkpointing of today keeps inputs for recomputation, and tells by hooks on what is saved.
        and torch._C._autograd._top_saved_tensors_default_hooks(True) is None
        and torch._C._current_graph_task_id() == -1  # inside a backward pass: that recomputation
        and torch.autograd.forward_ad._current_level < 0
    )
