from collections import UserDict

import pytest
import torch

from dataeff.transforms import truncate


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


def test_a_mapping_stays_what_it_is():
    batch = UserDict(input_ids=torch.zeros(2, 6))
    cut = truncate(batch, 4)
    assert type(cut) is UserDict
    assert cut["input_ids"].shape == (2, 4)


@pytest.mark.parametrize(
    ("batch", "length", "said"),
    [
        (
            torch.zeros(2, 6),
            4.0,
            "length is 4.0; expected a whole number: give the pace multiple=, or wrap it in pacing.multiple",
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
