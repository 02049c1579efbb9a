"""What travels with a token: the tensors aligned to tokens that a layer takes beside the hidden states."""

import copy
import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from dataeff.routing._rules import RULES, Kept, packed
from dataeff.routing._stack import unwrapped

Tensor = torch.Tensor
Declared = int | Sequence[int] | Callable[[Any, Tensor], Any]
"""Of an argument: its token axes, or what makes of it and the ids, (B, K) or (1, K), what they need."""
_MASKED = -5000.0  # an additive mask at or below it hides a token: -1e4 is the largest that is in use


def travel(name: str, value: Any, kept: Kept, token_args: Mapping[str, Declared]) -> Any:
    """The argument `name` of a layer as the kept tokens need it.

    By its declaration in `token_args`, else by its name where that is a known one. Raises ValueError for
    another tensor with an axis as long as the sequence, and for one that is not as its declaration or name
    promises.

    Examples:
        >>> kept = Kept(torch.tensor([[0, 2]]), batch=1, seq=4)
        >>> travel("position_ids", torch.arange(4)[None], kept, {})
        tensor([[0, 2]])
    """
    declared = token_args.get(name)
    if callable(declared):
        return None if value is None else declared(value, kept.ids)
    if isinstance(value, tuple | list):  # rotary (cos, sin), say
        parts = [travel(name, each, kept, token_args) for each in value]
        if all(part is each for part, each in zip(parts, value, strict=True)):
            return value  # what a layer adds to a list of it is not lost
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, Mapping):
        changed = {key: travel(name, each, kept, token_args) for key, each in value.items()}
        return value if all(changed[key] is each for key, each in value.items()) else changed
    if type(value).__name__ == "BlockMask":
        return _block_mask(value, kept)
    if name in _ABSENT:  # what was there before is not trained on, and what is made here has no use
        return False if isinstance(value, bool) else None
    if not isinstance(value, Tensor):
        return _object(name, value, kept, token_args)
    if value.is_nested:
        raise ValueError(f"the argument {name!r} is a nested tensor; expected a padded one")
    if declared is not None:
        return _declared(name, value, kept, declared)
    rule = RULES.get(name)
    if rule is not None:
        return rule(name, value, kept)
    if kept.seq not in value.shape:
        return value
    looks = tuple(axis - value.dim() for axis, size in enumerate(value.shape) if size == kept.seq)
    raise ValueError(
        f"the argument {name!r} has shape {tuple(value.shape)} and looks aligned to the {kept.seq} tokens; "
        f"declare its token axes, as in attach(..., token_args={{{name!r}: {looks}}}), or () if it is not"
    )


def _object(name: str, value: Any, kept: Kept, token_args: Mapping[str, Declared]) -> Any:
    """A dataclass or namespace with what is aligned in it cut; another object if nothing is."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        before = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif type(value) is SimpleNamespace:
        before = vars(value)
    else:
        for key, each in getattr(value, "__dict__", {}).items():
            if isinstance(each, Tensor) and kept.seq in each.shape and not isinstance(value, nn.Module):
                raise ValueError(
                    f"the argument {name!r} is a {type(value).__name__}, whose {key!r} has shape "
                    f"{tuple(each.shape)} and looks aligned to the {kept.seq} tokens; give, as "
                    f"attach(..., token_args={{{name!r}: ...}}), a function of it and of the ids of the kept "
                    "tokens that makes of it what they need"
                )
        return value
    parts = {key: travel(name, each, kept, token_args) for key, each in before.items()}
    if all(parts[key] is each for key, each in before.items()):
        return value
    return with_attributes(value, parts)


def with_attributes(value: Any, parts: Mapping[str, Any]) -> Any:
    """A copy of an object, frozen or not, with other attributes.

    Examples:
        >>> with_attributes(SimpleNamespace(a=1, b=2), {"b": 3})
        namespace(a=1, b=3)
    """
    changed = copy.copy(value)
    for name, part in parts.items():
        object.__setattr__(changed, name, part)
    return changed


def arguments(layer: nn.Module) -> list[str]:
    """The names under which a layer takes its positional arguments.

    Examples:
        >>> arguments(nn.Linear(2, 2))
        ['input']
    """
    parameters = inspect.signature(unwrapped(layer).forward).parameters.values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def torch_heads(layer: nn.Module) -> int | None:
    """The heads of torch's own attention in a layer, if it is what the layer is made of.

    Examples:
        >>> torch_heads(nn.TransformerEncoderLayer(8, 2, 8)), torch_heads(nn.Linear(2, 2))
        (2, None)
    """
    attention = (module for module in layer.modules() if isinstance(module, nn.MultiheadAttention))
    return next((module.num_heads for module in attention), None)


def heads(layer: nn.Module) -> int | None:
    """The heads of any attention in a layer, as its attributes are called in the field.

    Examples:
        >>> heads(nn.TransformerEncoderLayer(8, 2, 8)), heads(nn.Linear(2, 2))
        (2, None)
    """
    known = (getattr(module, name, None) for module in layer.modules() for name in _HEADS)
    return next((count for count in known if isinstance(count, int)), None)


def is_packed(given: Mapping[str, Any]) -> bool:
    """Whether arguments say where packed documents begin.

    Examples:
        >>> is_packed({"cu_seqlens": torch.tensor([0, 3, 5])})
        True
    """
    return any(value is not None and RULES.get(name) is packed for name, value in given.items())


def without_cache(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The arguments of a model, to make no cache of keys and values; None if it takes no such argument.

    Raises ValueError for one that is given: it holds tokens already, or is to hold those of this pass.

    Examples:
        >>> without_cache(nn.Linear(2, 2), (), {}) is None
        True
    """
    for name in ("past_key_values", "cache"):  # of transformers, up to 5.23 and since
        if kwargs.get(name) is not None:
            raise ValueError(
                f"{name} is given, a cache of keys and values, and routing drops some of the tokens that it "
                "is for; train on whole sequences, or keep all tokens; generate in evaluation mode "
                "(model.eval()), with use_cache=False if that is routed, too"
            )
    names = arguments(model)
    if "use_cache" not in names or "use_cache" in names[: len(args)]:
        return None
    return args, {**kwargs, "use_cache": False}


def padding(given: Mapping[str, Any], batch: int, seq: int) -> Tensor | None:
    """Which tokens are no padding, as a layer's masks tell: (batch, seq) bool, or None if they do not.

    Examples:
        >>> padding({"attention_mask": torch.tensor([[1, 1, 0]])}, 1, 3).tolist()
        [[True, True, False]]
    """
    for name in _PADDING:
        mask = given.get(name)
        if not isinstance(mask, Tensor) or len(mask) != batch or mask.shape[-1] != seq:
            continue
        if name != "attention_mask":  # torch's own: True, or -inf, is padding
            return ~mask if mask.dtype == torch.bool else mask > _MASKED
        if mask.dim() == 2:
            not_zero = mask != 0
            if not mask.is_floating_point():
                return not_zero
            return torch.where((mask == 1).any(), not_zero, mask > _MASKED)
        if mask.dim() == 4 and mask.shape[2] in (1, seq):  # a token of padding may not attend to itself
            own = mask[:, 0].diagonal(dim1=1, dim2=2) if mask.shape[2] == seq else mask[:, 0, 0]
            return own > _MASKED if own.is_floating_point() else own != 0
    return None


def _declared(name: str, value: Tensor, kept: Kept, declared: int | Sequence[int]) -> Tensor:
    axes = (declared,) if isinstance(declared, int) else tuple(declared)
    if not axes:
        return value
    fits = all(-value.dim() <= axis < value.dim() and value.shape[axis] == kept.seq for axis in axes)
    if not fits:
        raise ValueError(
            f"token_args declares {name!r} aligned to tokens on {axes}, but it has shape "
            f"{tuple(value.shape)}; expected {kept.seq} on those axes"
        )
    return kept.along(name, value, axes)


def _block_mask(mask: Any, kept: Kept) -> Any:
    """A mask of flex_attention, made anew of its own rule at the kept tokens' places."""
    from torch.nn.attention.flex_attention import create_block_mask

    ids, rule = kept.ids.long(), mask.mask_mod
    rows = torch.arange(kept.batch, device=ids.device) if len(ids) > 1 else torch.zeros_like(ids[:, 0])

    def at_their_places(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        row = rows[b] if len(ids) > 1 else b * 0
        return rule(b if mask.shape[0] > 1 else b * 0, h, ids[row, q], ids[row, k])  # type: ignore[no-any-return]

    keep = ids.shape[1]
    return create_block_mask(at_their_places, kept.batch, mask.shape[1], keep, keep, device=str(ids.device))


_ABSENT = {
    "cache",
    "layer_past",
    "layer_state",
    "output_cache",
    "past_key_value",
    "past_key_values",
    "use_cache",
}
"""Caches of keys and values, which are off while tokens are routed."""

_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")

_PADDING = ("attention_mask", "src_key_padding_mask", "tgt_key_padding_mask", "key_padding_mask")
