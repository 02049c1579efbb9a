"""The section `data_routing`: which layers drop tokens, how many they keep, and a learning rate by them."""

from typing import Any

import attrs

from dataeff.migration import _schedule
from dataeff.migration._section import Section
from dataeff.pacing import Pace

_KEYS = (
    "enabled",
    "total_layer_num",
    "random_ltd_layer_num",
    "random_ltd_layer_id",
    "model_mask_name",
    "model_type",
    "hidden_state_order",
    "random_ltd_schedule",
    "layer_token_lr_schedule",
    "micro_batch_size",  # the engine writes these two into its config
    "global_batch_size",
)
_KNOWN_MASKS = ("attention_mask", "attn_mask", "causal_mask", "mask", "src_mask", "tgt_mask")


@attrs.frozen
class Routing:
    """What a section `data_routing` says.

    Examples:
        >>> Routing().keep is None
        True
    """

    keep: Pace | None = None
    layers: tuple[int, ...] = ()
    depth: int | None = None
    batch_first: bool = True
    token_args: dict[str, tuple[int, ...]] = attrs.field(factory=dict)
    lr: dict[str, Any] = attrs.field(factory=dict)
    notes: tuple[str, ...] = ()


def routing(section: Section) -> Routing:
    """What the section says, and what is different about it.

    Examples:
        >>> routing(Section("data_routing", {"enabled": False}))
        Routing(keep=None, layers=(), depth=None, batch_first=True, token_args={}, lr={}, notes=())
    """
    section.only("enabled", "random_ltd").flag("enabled")
    ltd = section.inner("random_ltd").only(*_KEYS)
    if not ltd.flag("enabled"):
        return Routing()
    keep, notes = _schedule.kept(ltd.inner("random_ltd_schedule", needed=True))
    layers, depth = _layers(ltd)
    decoder = ltd.one_of("model_type", ("encoder", "decoder")) == "decoder"
    mask = ltd.text("model_mask_name")
    lr, more = _layer_token_lr(ltd.inner("layer_token_lr_schedule"))
    notes += [
        f"{ltd.at('random_ltd_layer_id')}: are numbers of blocks here; DeepSpeed looks for the digits in "
        "their names, so that 2 is also found in gpt2: see which layers it wrapped",
        f"{ltd.path}: layer tokens are counted at the actual length of a step here; DeepSpeed counts "
        "max_value for the layers that drop nothing",
    ]
    batch_first = ltd.one_of("hidden_state_order", ("batch_seq_dim", "seq_batch_dim")) == "batch_seq_dim"
    if not batch_first:
        notes.append(
            f"{ltd.at('hidden_state_order')}: the table routing does not hold it; `attach` of what is "
            "imported gives it on, a route from the table needs attach(..., batch_first=False)"
        )
    if mask and decoder:
        notes.append(
            f"{ltd.at('model_mask_name')}: the rows and columns of the kept tokens are taken from a mask "
            "here; DeepSpeed takes the first ones in a decoder, whatever was kept, which is wrong but for a "
            "plain causal mask"
        )
    return Routing(
        keep=keep,
        layers=layers,
        depth=depth,
        batch_first=batch_first,
        token_args={} if mask is None or mask in _KNOWN_MASKS else {mask: (-2, -1)},
        lr=lr,
        notes=(*notes, *more),
    )


def _layers(ltd: Section) -> tuple[tuple[int, ...], int]:
    depth = ltd.whole("total_layer_num", low=1)
    ids = sorted(ltd.wholes("random_ltd_layer_id", low=0))
    at = ltd.at("random_ltd_layer_id")
    if not ids or len(set(ids)) < len(ids) or ids[-1] >= depth:
        raise ValueError(f"{at} is {ids}; expected different numbers from 0 to {depth - 1}, at least one")
    if (count := ltd.whole("random_ltd_layer_num", low=1)) != len(ids):
        raise ValueError(f"{ltd.at('random_ltd_layer_num')} is {count}; expected as many as ids, {len(ids)}")
    return tuple(ids), depth


def _layer_token_lr(section: Section) -> tuple[dict[str, Any], list[str]]:
    section.only("enabled", "total_layer_tokens", "warmup_type", "warmup_layer_tokens")
    if not section.flag("enabled"):
        return {}, []
    total = section.whole("total_layer_tokens", low=1)
    warmup = section.whole("warmup_layer_tokens", low=0)
    if warmup >= total:
        raise ValueError(
            f"{section.at('warmup_layer_tokens')} is {warmup}; expected less than total_layer_tokens, {total}"
        )
    notes = [f"{section.path}: works here; DeepSpeed stops with NotImplementedError where it is enabled"]
    if section.one_of("warmup_type", ("linear", "log"), default="linear") == "log":
        notes.append(f"{section.at('warmup_type')}: the warmup is linear here")
    return {"schedule": "linear", "on": "layer_tokens", "warmup": warmup, "total": total}, notes
