"""What travels with a token, by the names of arguments: against each row by itself."""

import pytest
import torch
from torch import nn

from dataeff.routing import Kept, padding, travel
from dataeff.routing._adapters import heads, torch_heads, without_cache

BATCH, SEQ, HEADS = 3, 8, 2
IDS = torch.tensor([[0, 3, 7], [1, 2, 5], [2, 3, 4]])


def numbers(*shape):
    return torch.arange(torch.Size(shape).numel()).view(shape)


def by_rows(value, axes, batch_axis=0):
    """Each row's own tokens along `axes`; one row serves all."""
    rows = []
    for b, own in enumerate(IDS):
        each = max(value.shape[batch_axis] // BATCH, 1)
        row = value.narrow(batch_axis, b * each if value.shape[batch_axis] > 1 else 0, each)
        for axis in axes:
            row = row.index_select(axis, own)
        rows.append(row)
    return torch.cat(rows, batch_axis)


CASES = [
    ("attention_mask", (BATCH, SEQ), (1,), 0),
    ("attention_mask", (BATCH, 1, 1, SEQ), (3,), 0),
    ("attention_mask", (BATCH, HEADS, SEQ, SEQ), (2, 3), 0),
    ("attention_mask", (1, 1, SEQ, SEQ), (2, 3), 0),
    ("attention_mask", (BATCH, 1, SEQ, 1), (2,), 0),
    ("attn_mask", (BATCH, SEQ, SEQ), (1, 2), 0),
    ("attn_mask", (BATCH * HEADS, SEQ, SEQ), (1, 2), 0),
    ("alibi", (BATCH * HEADS, 1, SEQ), (2,), 0),
    ("position_bias", (1, HEADS, SEQ, SEQ), (2, 3), 0),
    ("encoder_attention_mask", (BATCH, 1, SEQ, 5), (2,), 0),
    ("encoder_attention_mask", (BATCH, 1, SEQ, SEQ), (2,), 0),
    ("memory_mask", (BATCH * HEADS, SEQ, 5), (1,), 0),
    ("key_padding_mask", (BATCH, SEQ), (1,), 0),
    ("position_ids", (1, SEQ), (1,), 0),
    ("position_ids", (3, BATCH, SEQ), (2,), 1),
    ("position_ids", (4, 1, SEQ), (2,), 1),
    ("position_embeddings", (1, SEQ, 6), (1,), 0),
    ("position_embeddings", (BATCH, SEQ, 6), (1,), 0),
    ("position_embeddings", (BATCH, 1, SEQ, 6), (2,), 0),
    ("position_embeddings", (BATCH, SEQ, 1, 6), (1,), 0),
    ("position_embeddings", (3, BATCH, SEQ, 6), (2,), 1),
    ("freqs_cos", (1, SEQ, 6), (1,), 0),
    ("per_layer_input", (BATCH, SEQ, 6), (1,), 0),
]


@pytest.mark.parametrize(("name", "shape", "axes", "batch_axis"), CASES)
def test_known_arguments_are_cut_for_each_row(name, shape, axes, batch_axis):
    value = numbers(*shape)
    moved = travel(name, value, Kept(IDS, BATCH, SEQ, any_heads=HEADS), {})
    assert torch.equal(moved, by_rows(value, axes, batch_axis))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("attention_mask", (BATCH, 1, 1, 1)),
        ("encoder_attention_mask", (BATCH, 1, 1, 5)),
        ("encoder_attention_mask", (BATCH, 5)),
        ("encoder_hidden_states", (BATCH, SEQ, 4)),
        ("memory_key_padding_mask", (BATCH, SEQ)),
        ("something", (BATCH, 5)),
    ],
)
def test_what_is_not_aligned_stays(name, shape):
    value = numbers(*shape)
    assert travel(name, value, Kept(IDS, BATCH, SEQ), {}) is value


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("attention_mask", (BATCH, 1, 2, 5)),
        ("position_ids", (BATCH, 5)),
        ("positions", (BATCH, 2, SEQ)),
        ("position_embeddings", (5, 6)),
        ("position_embeddings", (BATCH, 5, 6)),
        ("encoder_attention_mask", (BATCH, 1, 5, 4)),
        ("per_layer_input", (BATCH, 5, 6)),
    ],
)
def test_a_known_argument_of_another_shape_is_refused_by_name(name, shape):
    cure = rf"leave the layer out \(layers=\[...\]\), or say token_args={{'{name}': \(\)}} if it has none"
    if SEQ in shape or name == "position_embeddings":
        cure = "declare its token axes: attach\\("
    with pytest.raises(ValueError, match=f"the argument '{name}' has shape .*; {cure}"):
        travel(name, numbers(*shape), Kept(IDS, BATCH, SEQ), {})


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("attn_mask", (SEQ, SEQ)),
        ("cos", (SEQ, 6)),
        ("alibi", (2, 1, SEQ)),
        ("alibi", (BATCH, SEQ, SEQ)),  # of as many heads as there are samples
        ("attn_mask", (2 * BATCH, SEQ, SEQ)),  # of heads, or of samples and heads: nothing tells
    ],
)
def test_one_for_all_rows_without_a_batch_axis_is_refused(name, shape):
    with pytest.raises(ValueError, match=f"'{name}' has shape .* and no batch axis of 3 or 1"):
        travel(name, numbers(*shape), Kept(IDS, BATCH, SEQ), {})


def test_heads_are_known_by_the_layers_attributes():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.n_heads = 6

    assert heads(nn.Sequential(nn.Linear(2, 2), Attention())) == 6
    assert torch_heads(Attention()) is None


def test_a_mask_of_numbers_tells_padding_as_one_of_whole_numbers_does():
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    for same in (mask.float(), mask.float() * 1e4 - 1e4, mask.bool()):
        assert torch.equal(padding({"attention_mask": same}, 2, 3), mask.bool())


def test_a_mask_is_flat_or_square_by_its_name_where_shapes_do_not_tell():
    value, kept = numbers(3, 3), Kept(torch.tensor([[0, 1], [1, 2], [0, 2]]), 3, 3)
    assert travel("attention_mask", value, kept, {}).tolist() == [[0, 1], [4, 5], [6, 8]]
    with pytest.raises(ValueError, match="no batch axis"):
        travel("attn_mask", value, kept, {})
    square = travel("src_mask", value, kept._replace(heads=2), {})
    assert square.shape == (6, 2, 2)
    assert square[0].tolist() == square[1].tolist() == [[0, 1], [3, 4]]


def test_tables_of_a_model_that_takes_tokens_first_have_them_first():
    table = numbers(SEQ, 1, 1, 6)
    moved = travel("rotary_pos_emb", table, Kept(IDS, BATCH, SEQ, batch_first=False), {})
    assert torch.equal(moved, table[:, 0][IDS.long()].transpose(0, 1))


def test_documents_of_packed_rows_begin_where_their_kept_tokens_do():
    packed = torch.tensor([0, 2, 8, 11, 16, 24], dtype=torch.int32)  # of three rows of 8
    moved = travel("cu_seq_lens_q", packed, Kept(IDS, BATCH, SEQ), {})
    assert moved.dtype == torch.int32
    document = torch.bucketize(torch.arange(24), packed[1:], right=True)
    own = document[(IDS + torch.arange(0, 24, 8)[:, None]).flatten()]
    assert moved.tolist() == [0, *[int((own <= d).sum()) for d in range(5)]]


@pytest.mark.parametrize("name", ["past_key_values", "cache"])
def test_a_cache_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name} is given, .*generate in .* \(model.eval\(\)\)"):
        without_cache(nn.Linear(2, 2), (), {name: object()})


def test_caches_are_off_and_their_places_shorter():
    kept = Kept(IDS, BATCH, SEQ)
    assert travel("past_key_values", object(), kept, {}) is None
    assert travel("cache", object(), kept, {}) is None
    assert travel("use_cache", True, kept, {}) is False
    assert travel("cache_position", torch.arange(SEQ), kept, {}).tolist() == [0, 1, 2]


def test_a_declaration_goes_before_a_name():
    value = numbers(BATCH, SEQ, SEQ)
    assert torch.equal(travel("mask", value, Kept(IDS, BATCH, SEQ), {"mask": 1}), by_rows(value, (1,)))


def test_nested_tensors_are_refused():
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged)
    with pytest.raises(ValueError, match="'mask' is a nested tensor; expected a padded one"):
        travel("mask", nested, Kept(IDS, BATCH, SEQ), {})


@pytest.mark.parametrize("ids", [IDS, IDS[:1]])
def test_a_mask_of_flex_attention_is_made_anew_of_its_rule(ids):
    from torch.nn.attention.flex_attention import create_block_mask, create_mask

    documents = torch.tensor([[0, 0, 1, 1, 1, 2, 2, 2], [0] * 8, [0, 1] * 4])

    def rule(b, h, q, k):
        return (q >= k) & (documents[b, q] == documents[b, k])

    mask = create_block_mask(rule, BATCH, None, SEQ, SEQ, device="cpu")
    moved = travel("attention_mask", mask, Kept(ids, BATCH, SEQ), {})
    assert moved.shape == (BATCH, 1, 3, 3)
    dense = create_mask(moved.mask_mod, BATCH, 1, 3, 3, device="cpu")
    whole = create_mask(rule, BATCH, 1, SEQ, SEQ, device="cpu")
    for b, own in enumerate(ids.expand(BATCH, -1)):
        assert torch.equal(dense[b, 0], whole[b, 0][own][:, own])


REAL = torch.arange(SEQ) < torch.tensor([[SEQ], [5], [2]])


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("attention_mask", REAL.long()),
        ("attention_mask", REAL),
        ("attention_mask", REAL.float()),
        ("attention_mask", REAL[:, None, None]),
        ("attention_mask", torch.where(REAL, 0.0, -1e4)[:, None, None]),
        ("attention_mask", REAL[:, None, None] & torch.ones(SEQ, SEQ).tril().bool()),
        (
            "attention_mask",
            torch.where(REAL[:, None, None] & torch.ones(SEQ, SEQ).tril().bool(), 0.0, -torch.inf),
        ),
        ("src_key_padding_mask", ~REAL),
        ("key_padding_mask", torch.where(REAL, 0.0, -torch.inf)),
    ],
)
def test_padding_is_read_off_a_mask(name, mask):
    assert torch.equal(padding({name: mask}, BATCH, SEQ), REAL)


def test_masks_that_all_rows_share_tell_of_no_padding():
    assert padding({"attention_mask": torch.ones(1, 1, SEQ, SEQ)}, BATCH, SEQ) is None
    assert padding({}, BATCH, SEQ) is None
