"""How arguments of layers are aligned to tokens, by the names that they have in the field."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from dataeff import ops

Tensor = torch.Tensor


class Kept(NamedTuple):
    """The tokens that enter a layer, for what travels with them.

    Examples:
        >>> kept = Kept(torch.tensor([[0, 2], [1, 2]]), batch=2, seq=3)
        >>> kept.along("bias", torch.tensor([[7, 8, 9]]), (1,)).tolist()
        [[7, 9], [8, 9]]
    """

    ids: Tensor
    """(B, K), or (1, K) for all rows."""
    batch: int
    seq: int
    heads: int | None = None
    """Of torch's own attention in the layer, which takes one mask a head."""
    batch_first: bool = True
    any_heads: int | None = None
    """Of any attention in the layer."""
    prefix: int = 0
    """How many tokens at the beginning are always among them."""

    def after_prefix(self) -> "Kept":
        """Those after the prefix, for what has entries for these alone.

        Examples:
            >>> Kept(torch.tensor([[0, 2, 4]]), batch=1, seq=5, prefix=1).after_prefix().ids.tolist()
            [[1, 3]]
        """
        ids = self.ids[:, self.prefix :] - self.prefix
        return self._replace(ids=ids, seq=self.seq - self.prefix, prefix=0)

    def along(self, name: str, value: Tensor, axes: Sequence[int], *, batch_axis: int = 0) -> Tensor:
        """`value` with the kept tokens alone along `axes`; others do not count as a batch axis.

        Raises ValueError for rows that the kept tokens cannot be found for.
        """
        axes = [axis % value.dim() for axis in axes]
        if (
            len(self.ids) == 1
        ):  # of all rows the same: the batch axis does not matter, or whether there is one
            for axis in axes:
                value = value.index_select(axis, self.ids[0])
            return value
        if not self.batch_first and 0 in axes and value.dim() > 1:  # (S, B, ...)
            batch_axis = 1
        rows = value.shape[batch_axis]
        if batch_axis in axes or rows not in (1, self.batch, self.batch * (self.any_heads or 1)):
            given = "value[None, None]" if len(axes) == value.dim() == 2 else "value[None]"
            raise ValueError(
                f"the argument {name!r} has shape {tuple(value.shape)} and no batch axis of {self.batch} or "
                f"1, but each sample keeps other tokens; give it one, as {given} does, or let all samples "
                "keep the same: router=random_ltd(shared=True)"
            )
        ids = self.ids if rows == 1 else self.ids.repeat_interleave(rows // self.batch, 0)
        moved = value.movedim(batch_axis, 0)
        axes = [axis + 1 if axis < batch_axis else axis for axis in axes]
        return ops.gather_axes(moved, ids, axes).movedim(0, batch_axis)


def _misfit(name: str, value: Tensor, kept: Kept, more: str = "") -> ValueError:
    cure = (
        f"leave the layer out (layers=[...]), or say token_args={{{name!r}: ()}} if it has none, or give "
        "there a function of it and of the ids of the kept tokens that makes of it what they need"
    )
    if more or kept.seq in value.shape:
        cure = f"declare its token axes: attach(..., token_args={{{name!r}: ...}}){more}"
    return ValueError(
        f"the argument {name!r} has shape {tuple(value.shape)}, in which the {kept.seq} tokens are not to be "
        f"found as is usual for it; {cure}"
    )


def _mask(name: str, value: Tensor, kept: Kept) -> Tensor:
    """(B, S), (B, S, S), (B * heads, S, S), (B, heads, S, S), any of them broadcast; (S, S) in torch."""
    seq = kept.seq
    square = value.dim() == 2 and value.shape == (seq, seq)
    if square and not (name in _FLAT and len(value) == kept.batch):
        if len(kept.ids) == 1 or not kept.heads:
            return kept.along(name, value, (0, 1))
        moved = ops.gather_axes(value[None], kept.ids, (1, 2))
        return moved.repeat_interleave(kept.heads, 0)
    a_head = name == "alibi" and value.dim() == 3 and 1 < kept.batch == len(value) and kept.any_heads != 1
    if a_head and len(kept.ids) > 1:  # (heads, S, S): as many as there are samples, by chance
        return kept.along(name, value, (0, -2, -1))
    last = (-1,) if value.dim() == 2 else (-2, -1)
    axes = [axis for axis in last if value.shape[axis] == seq]
    if any(value.shape[axis] not in (1, seq) for axis in last) or value.dim() < 2:
        raise _misfit(name, value, kept)
    return kept.along(name, value, axes) if axes else value


def _cross(name: str, value: Tensor, kept: Kept) -> Tensor:
    """(B, ..., S, M), or (S, M) in torch: tokens are on the axis before the last. (B, M) has none."""
    if value.dim() == 2 and name != "memory_mask":
        return value
    if value.dim() < 2 or value.shape[-2] not in (1, kept.seq):
        raise _misfit(name, value, kept)
    if value.shape[-2] == 1:
        return value
    if value.dim() == 2 and kept.heads and len(kept.ids) > 1:
        return ops.gather_axes(value[None], kept.ids, (1,)).repeat_interleave(kept.heads, 0)
    return kept.along(name, value, (-2,))


def _entries(name: str, value: Tensor, kept: Kept) -> Tensor:
    """(B, S), or (n, B, S) of n kinds of position, or (B, S, n)."""
    if value.dim() == 3 and value.shape[:2] in ((kept.batch, kept.seq), (1, kept.seq)):
        return _features(name, value, kept)
    either = value.dim() == 3 and name != "position_ids" and 1 < kept.batch == value.shape[0]
    if value.shape[-1:] != (kept.seq,) or either:
        raise _misfit(name, value, kept)
    return kept.along(name, value, (-1,), batch_axis=1 if value.dim() == 3 else 0)


def _features(name: str, value: Tensor, kept: Kept) -> Tensor:
    """(B, S, ...)."""
    if value.dim() < 2 or value.shape[1] != kept.seq:
        raise _misfit(name, value, kept)
    return kept.along(name, value, (1,))


def _table(name: str, value: Tensor, kept: Kept) -> Tensor:
    """(B, S, D), (B, heads, S, D), (B, S, heads, D), or (3, B, S, D) of three kinds of position; (S, D)."""
    if (
        value.dim() == 4
        and value.shape[0] == 3
        and value.shape[2] == kept.seq
        and (kept.batch == value.shape[1] or kept.batch != 3)
    ):
        return kept.along(name, value, (2,), batch_axis=1)
    if not kept.batch_first and value.dim() > 2 and value.shape[0] == kept.seq:  # (S, 1, 1, D)
        return kept.along(name, value, (0,))
    where = [
        axis for axis in range(max(value.dim() - 3, 0), value.dim() - 1) if value.shape[axis] == kept.seq
    ]
    if len(where) > 1 and 0 in where:
        where.remove(0)
    if not where and kept.prefix:
        return _table(name, value, kept.after_prefix())
    if len(where) != 1:
        short = max((kept.seq - size for size in value.shape[:-1] if size < kept.seq), default=0)
        entries = f"; if the first {short} tokens have no entry in it, router=random_ltd(prefix={short})"
        raise _misfit(name, value, kept, entries * (0 < short < kept.seq - 1))
    return kept.along(name, value, where)


def packed(name: str, value: Tensor, kept: Kept) -> Tensor:
    """(n + 1,): where documents begin in all rows as one, as attention over packed sequences takes them."""
    rows = torch.arange(kept.batch, device=kept.ids.device).unsqueeze(1) * kept.seq
    begins = torch.searchsorted((kept.ids + rows).flatten(), value.to(kept.ids.device)).to(value.dtype)
    return begins if torch.compiler.is_compiling() else torch.unique(begins)  # without empty documents


def _as_it_is(name: str, value: Tensor, kept: Kept) -> Tensor:
    return value


def _shorter(name: str, value: Tensor, kept: Kept) -> Tensor:
    """(S,): places in a cache, which is off."""
    return value[: kept.ids.shape[1]]


RULES: dict[str, Callable[[str, Tensor, Kept], Tensor]] = {
    **dict.fromkeys(
        (
            "attention_mask",
            "attn_mask",
            "causal_mask",
            "mask",
            "position_bias",
            "relative_pos",
            "self_attention_mask",
            "src_mask",
            "tgt_mask",
            "alibi",
        ),
        _mask,
    ),
    **dict.fromkeys(
        ("encoder_attention_mask", "cross_attention_mask", "memory_mask", "encoder_decoder_position_bias"),
        _cross,
    ),
    **dict.fromkeys(
        (
            "key_padding_mask",
            "src_key_padding_mask",
            "tgt_key_padding_mask",
            "padding_mask",
            "position_ids",
            "positions",
            "token_type_ids",
            "input_ids",
        ),
        _entries,
    ),
    **dict.fromkeys(("per_layer_input",), _features),
    **dict.fromkeys(
        (
            "position_embeddings",
            "position_embeddings_global",
            "position_embeddings_local",
            "rotary_pos_emb",
            "image_rotary_emb",
            "rotary_emb",
            "rope",
            "sinusoidal_pos",
            "freqs_cis",
            "freqs",
            "freqs_cos",
            "freqs_sin",
            "cos",
            "sin",
        ),
        _table,
    ),
    **dict.fromkeys(("cu_seqlens", "cu_seqlens_q", "cu_seqlens_k", "cu_seq_lens_q", "cu_seq_lens_k"), packed),
    **dict.fromkeys(
        (
            "encoder_hidden_states",
            "memory",
            "memory_key_padding_mask",
            "encoder_attn_mask",
            "head_mask",
            "layer_head_mask",
            "cross_attn_layer_head_mask",
        ),
        _as_it_is,
    ),
    "cache_position": _shorter,
}
"""How arguments of layers are aligned to tokens, by the names that they have in the field."""

_FLAT = {"attention_mask", "mask"}
"""Masks that are (B, S) rather than (S, S) where B = S."""
