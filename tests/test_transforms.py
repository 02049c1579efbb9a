from collections import OrderedDict, UserDict, defaultdict, namedtuple
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dataeff.transforms import reshape, trim_to_longest, truncate


@pytest.mark.parametrize("shape", [(2, 6), (1, 6, 3), (0, 6)])
def test_the_first_tokens_stay(shape):
    batch = torch.arange(torch.Size(shape).numel()).reshape(shape)
    assert torch.equal(truncate(batch, 4), batch[:, :4])


@pytest.mark.parametrize("length", [6, 7, 10**6])
def test_a_length_beyond_the_sequence_changes_nothing(length):
    batch = torch.zeros(2, 6)
    assert torch.equal(truncate(batch, length), batch)


def test_a_dict_is_cut_where_it_is_aligned():
    batch = {
        "input_ids": torch.arange(12).reshape(2, 6),
        "attention_mask": torch.ones(2, 6),
        "labels": torch.arange(12).reshape(2, 6),
        "position_ids": torch.arange(6)[None],
        "domain": torch.tensor([3, 4]),
        "score": torch.zeros(2, 3),
        "name": ["a", "b"],
    }
    before = {
        name: value.clone() if isinstance(value, torch.Tensor) else list(value)
        for name, value in batch.items()
    }
    cut = truncate(batch, 4)
    assert {name: tuple(value.shape) for name, value in cut.items() if name != "name"} == {
        "input_ids": (2, 4),
        "attention_mask": (2, 4),
        "labels": (2, 4),
        "position_ids": (1, 4),
        "domain": (2,),
        "score": (2, 3),
    }
    assert cut["name"] == ["a", "b"]
    assert all(torch.equal(batch[n], before[n]) for n in batch if n != "name")


@pytest.mark.parametrize("made", [UserDict, OrderedDict, partial(defaultdict, list)])
def test_a_mapping_stays_what_it_is(made):
    batch = made({"input_ids": torch.zeros(2, 6), "name": "a"})
    cut = truncate(batch, 4)
    assert type(cut) is type(batch)
    assert cut["input_ids"].shape == (2, 4)
    assert cut["name"] == "a"
    assert batch["input_ids"].shape == (2, 6)


@pytest.mark.parametrize(
    ("batch", "length", "said"),
    [
        (
            torch.zeros(2, 6),
            4.0,
            r"length is 4.0; expected a whole number of at least 1: give the pace multiple= \(or wrap it in ",
        ),
        (torch.zeros(2, 6), 0, "length is 0; expected a whole number of at least 1"),
        (torch.zeros(6), 4, r"the batch has shape \(6,\); expected \(samples, length, ...\)"),
        ([1, 2], 4, "cannot truncate a list; expected a tensor or a dict with input_ids"),
        ({"x": torch.zeros(2, 6)}, 4, "cannot truncate a dict; expected a tensor or a dict with input_ids"),
        (
            {"input_ids": torch.zeros(2, 6), "attention_mask": torch.zeros(2, 1, 6, 6)},
            4,
            r"attention_mask has shape \(2, 1, 6, 6\): which axis is the sequence",
        ),
    ],
)
def test_what_cannot_be_cut_is_refused(batch, length, said):
    with pytest.raises(ValueError, match=said):
        truncate(batch, length)


@given(rows=st.integers(1, 3), size=st.integers(1, 30), length=st.integers(1, 12), overlap=st.integers(0, 11))
def test_pieces_hold_every_token_once_but_for_the_overlap(rows, size, length, overlap):
    overlap = min(overlap, length - 1)
    batch = torch.arange(1, rows * size + 1).reshape(rows, size)
    pieces = reshape(batch, length, overlap=overlap, padding=0)
    if size <= length:
        assert pieces is batch
        return
    assert pieces.shape[1] == length
    per_row = pieces.reshape(rows, -1, length)
    for row, own in zip(batch.tolist(), per_row.tolist(), strict=True):
        joined = own[0] + [token for piece in own[1:] for token in piece[overlap:]]
        assert joined[:size] == row
        assert set(joined[size:]) <= {0}
        assert any(token for token in own[-1][overlap:])  # no piece that says nothing new


def test_pieces_of_a_dict_keep_their_company():
    batch = {
        "input_ids": torch.arange(10).reshape(2, 5),
        "attention_mask": torch.ones(2, 5, dtype=torch.int64),
        "labels": torch.arange(10).reshape(2, 5),
        "position_ids": torch.arange(5)[None],
        "domain": torch.tensor([3, 4]),
        "name": ["a", "b"],
    }
    pieces = reshape(batch, 3)
    assert pieces["input_ids"].tolist() == [[0, 1, 2], [3, 4, 0], [5, 6, 7], [8, 9, 0]]
    assert pieces["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]] * 2
    assert pieces["labels"].tolist() == [[0, 1, 2], [3, 4, -100], [5, 6, 7], [8, 9, -100]]
    assert pieces["position_ids"].tolist() == [[0, 1, 2], [3, 4, 0]] * 2
    assert pieces["domain"].tolist() == [3, 3, 4, 4]
    assert pieces["name"] == ["a", "a", "b", "b"]


def test_pieces_of_hidden_states_are_cut_along_the_sequence():
    batch = torch.arange(24.0).reshape(1, 6, 4)
    assert torch.equal(reshape(batch, 2), batch.reshape(3, 2, 4))
    for seven in (7, 7.0, np.int64(7), np.float32(7)):
        assert reshape(batch, 4, padding=seven)[1, 2:].unique().tolist() == [7]


def test_a_named_tuple_beside_the_rows_stays_what_it_is():
    Shown = namedtuple("Shown", "size scale")
    batch = {"input_ids": torch.zeros(2, 4), "shown": Shown(3, 4)}
    assert reshape(batch, 2)["shown"] == Shown(3, 4)


@pytest.mark.parametrize(
    ("batch", "options", "said"),
    [
        (torch.zeros(2, 5), {}, "the batch: 5 tokens in pieces of 3 leave a last one that is not full; give"),
        ({"input_ids": torch.zeros(2, 5)}, {}, "input_ids: 5 tokens in pieces of 3 leave"),
        (
            {"input_ids": torch.zeros(2, 5), "labels": torch.zeros(2, 5), "token_types": torch.zeros(2, 5)},
            {},
            "token_types: 5 tokens in pieces of 3 leave",
        ),
        (torch.zeros(2, 5), {"overlap": 3}, "overlap is 3; expected a whole number from 0 to 2"),
        ([1], {}, "cannot reshape a list; expected a tensor or a dict with input_ids"),
    ],
)
def test_what_cannot_be_split_is_refused(batch, options, said):
    with pytest.raises(ValueError, match=said):
        reshape(batch, 3, **options)


@pytest.mark.parametrize(
    ("mask", "multiple", "kept"),
    [
        ([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]], 1, [0, 1, 2]),
        ([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]], 2, [0, 1, 2, 3]),
        ([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]], 8, [0, 1, 2, 3, 4]),
        ([[0, 0, 0, 1, 1], [0, 0, 0, 0, 1]], 1, [3, 4]),
        ([[0, 0, 0, 1, 1], [0, 0, 0, 0, 1]], 3, [2, 3, 4]),
        ([[0, 1, 1, 0, 0], [0, 1, 0, 0, 0]], 1, [0, 1, 2]),
        ([[0, 0, 0, 0, 0], [0, 0, 0, 0, 0]], 2, [0, 1]),
        ([[1, 1, 1, 1, 1], [0, 0, 0, 1, 1]], 1, [0, 1, 2, 3, 4]),
    ],
)
def test_padding_of_either_side_is_trimmed(mask, multiple, kept):
    mask = torch.tensor(mask)
    ids = torch.arange(5).expand(2, 5)
    batch = {"input_ids": ids, "attention_mask": mask, "domain": torch.tensor([1, 2])}
    trimmed = trim_to_longest(batch, multiple=multiple)
    assert trimmed["input_ids"].tolist() == [kept, kept]
    assert trimmed["attention_mask"].tolist() == mask[:, kept].tolist()
    assert trimmed["domain"].tolist() == [1, 2]
    padded = torch.where(mask == 1, ids, -1)
    assert trim_to_longest(padded, multiple=multiple, padding=-1).tolist() == padded[:, kept].tolist()


@pytest.mark.parametrize("batch", [torch.zeros(2, 5), {"input_ids": torch.zeros(2, 5)}])
def test_trimming_needs_to_know_what_padding_is(batch):
    with pytest.raises(ValueError, match="nothing says what is padding: give padding="):
        trim_to_longest(batch)


@pytest.mark.parametrize("batch", [torch.zeros(2, 6, 4), {"input_ids": torch.zeros(2, 6, 4)}])
def test_padding_is_looked_for_in_ids_alone(batch):
    with pytest.raises(ValueError, match=r"padding= tells it from ids of shape \(2, 6, 4\); expected \(samp"):
        trim_to_longest(batch, padding=0)
