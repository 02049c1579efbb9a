"""What is what among the arguments that a model or a block is called with."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

_NO_IDS = {
    "attention_mask",
    "bbox",
    "cache_position",
    "decoder_attention_mask",
    "key_padding_mask",
    "labels",
    "mask",
    "padding_mask",
    "position_ids",
    "src_key_padding_mask",
    "targets",
    "token_type_ids",
}
"""Whole numbers of tokens that are no vocabulary ids."""


def first_tensor(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """The first argument that is a tensor.

    Examples:
        >>> first_tensor((3, torch.tensor(5)), {})
        tensor(5)
    """
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)


def whole_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """What a model's rows and tokens are counted by: the first ids, (B, S), else the first tensor.

    Batches that are mappings are looked into.

    Examples:
        >>> ids, mask = torch.zeros(2, 16, dtype=torch.int64), torch.ones(2, 1, 16, 16)
        >>> whole_input((mask,), {"batch": {"input_ids": ids}}) is ids
        True
    """
    top = [*args, *kwargs.values()]
    leaves = [leaf for value in top for leaf in (value.values() if isinstance(value, Mapping) else [value])]
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.dim() > 1]
    ids = [t for t in tensors if t.dim() == 2 and not t.is_floating_point() and t.dtype != torch.bool]
    return next(iter([*ids, *tensors]), None)


def hidden_states(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    names: Sequence[str] = (),
    hidden_arg: str | None = None,
) -> torch.Tensor | None:
    """What goes through a block that takes those by position under such `names`.

    It is `hidden_arg`; else what is called hidden_states, else the first tensor (B, S, C), else the first.

    Examples:
        >>> x, mask = torch.zeros(2, 16, 8), torch.ones(2, 1, 16, 16)
        >>> hidden_states((), {"attention_mask": mask, "x": x}) is x
        True
    """
    if hidden_arg is not None:
        return (dict(zip(names, args, strict=False)) | dict(kwargs)).get(hidden_arg)
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    named = kwargs.get("hidden_states")
    if isinstance(named, torch.Tensor):
        return named
    return next(iter([*(t for t in tensors if t.dim() == 3), *tensors]), None)


def vocabulary_ids(
    names: Sequence[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> torch.Tensor | None:
    """The vocabulary ids that a model with arguments of such `names` is called with; None if not to be told.

    Examples:
        >>> ids, mask = torch.tensor([[5, 6]]), torch.tensor([[1, 1]])
        >>> vocabulary_ids(["input_ids"], (), {"attention_mask": mask, "input_ids": ids}) is ids
        True
    """
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    known = {
        name: value
        for name, value in given.items()
        if isinstance(value, torch.Tensor)
        and value.dim() == 2
        and not value.is_floating_point()
        and value.dtype != torch.bool
        and name not in _NO_IDS
    }
    if "input_ids" in known:
        return known["input_ids"]
    by_position = [name for name in names[: len(args)] if name in known]
    names = by_position or list(known)
    return known[names[0]] if by_position or len(names) == 1 else None
