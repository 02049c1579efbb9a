import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dataeff import ops, rng

SHAPES = [(1, 1, 1), (2, 7, 3), (3, 1023, 1), (1, 123, 431), (4, 16, 2), (0, 5, 2), (2, 5, 0)]


def rows(batch, seq, keep, seed=0):
    return ops.sample_tokens(batch, seq, keep, key=(seed, 0, 0))


@given(batch=st.integers(0, 4), seq=st.integers(0, 70), share=st.floats(0, 1), seed=st.integers(0, 2**63))
def test_ids_are_sorted_distinct_and_the_smallest_words(batch, seq, share, seed):
    keep = round(share * seq)
    ids = ops.sample_tokens(batch, seq, keep, key=(seed, 3, "layer"))
    assert ids.dtype == torch.int32
    assert ids.shape == (batch, keep)
    words = rng.bits(rng.key(seed, 3, "layer"), batch, seq)
    expected = [sorted(sorted(range(seq), key=lambda i, row=row: (row[i], i))[:keep]) for row in words]
    assert ids.tolist() == expected


def test_ids_depend_on_every_part_of_the_key_and_on_the_row():
    base = ops.sample_tokens(2, 64, 16, key=(1, 2, 3))
    for key in [(2, 2, 3), (1, 3, 3), (1, 2, 4), (1, 3, 2)]:
        assert not torch.equal(ops.sample_tokens(2, 64, 16, key=key), base)
    assert not torch.equal(base[0], base[1])
    assert torch.equal(ops.sample_tokens(2, 64, 16, key=(1, 2, 3)), base)


def test_ids_do_not_touch_or_read_the_global_generators():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    state = torch.get_rng_state()
    first = rows(2, 64, 16)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(rows(2, 64, 16), first)


def test_every_position_and_pair_is_as_likely():
    seq, keep, draws = 12, 4, 6000
    ids = ops.sample_tokens(draws, seq, keep, key=(7, 0, 0)).long()
    chosen = torch.zeros(draws, seq).scatter(1, ids, 1.0)
    counts = chosen.sum(0)
    expected = draws * keep / seq
    assert ((counts - expected) ** 2 / expected).sum() < 11 + 5 * 22**0.5
    pairs = (chosen.T @ chosen)[torch.triu(torch.ones(seq, seq), 1).bool()]
    expected = draws * keep * (keep - 1) / (seq * (seq - 1))
    assert ((pairs - expected) ** 2 / expected).sum() < 65 + 5 * 130**0.5


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]
)
def test_gather_and_scatter_are_indexing(shape, dtype):
    batch, seq, _ = shape
    x = torch.randint(0, 2, shape).to(dtype)
    ids = rows(batch, seq, seq // 2)
    kept = ops.gather_tokens(x, ids)
    expected = torch.stack([x[b, ids[b].long()] for b in range(batch)]) if batch else kept
    assert torch.equal(kept, expected)
    y = torch.randint(0, 2, kept.shape).to(dtype)
    before = x.clone()
    out = ops.scatter_tokens(x, y, ids)
    assert torch.equal(x, before)
    assert torch.equal(ops.gather_tokens(out, ids), y)
    untouched = torch.ones(batch, seq, dtype=torch.bool).scatter(1, ids.long(), False)
    assert torch.equal(out[untouched], x[untouched])
    assert torch.equal(ops.scatter_tokens(x, kept, ids), x)


def test_strides_and_more_dimensions_are_fine():
    x = torch.randn(5, 3, 2, 4).transpose(0, 1)[:, :, :, ::2]
    ids = rows(3, 5, 2)
    kept = ops.gather_tokens(x, ids)
    assert torch.equal(kept, torch.stack([x[b, ids[b].long()] for b in range(3)]))
    assert torch.equal(ops.scatter_tokens(x, kept, ids.long()), x)
    flat = torch.arange(15).reshape(3, 5)
    assert torch.equal(ops.gather_tokens(flat, ids), flat.gather(1, ids.long()))


def test_gradients_are_exact():
    ids = rows(2, 5, 3)
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: ops.gather_tokens(x, ids), x)
    assert torch.autograd.gradcheck(lambda x, y: ops.scatter_tokens(x, y, ids), (x, y))
    assert torch.autograd.gradgradcheck(lambda x, y: ops.scatter_tokens(x * x, y * y, ids), (x, y))


@pytest.mark.gpu
def test_ids_and_rows_are_the_same_on_a_gpu():
    for seed in range(1000):
        ids = ops.sample_tokens(2, 64, 16, key=(seed, 0, 0), device="cuda")
        assert torch.equal(ids.cpu(), rows(2, 64, 16, seed))
    x = torch.randn(2, 64, 8)
    assert torch.equal(ops.gather_tokens(x.cuda(), ids).cpu(), ops.gather_tokens(x, ids.cpu()))
    y = torch.randn(2, 16, 8)
    assert torch.equal(ops.scatter_tokens(x.cuda(), y.cuda(), ids).cpu(), ops.scatter_tokens(x, y, ids.cpu()))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: rows(1, 4, 5), "keep is 5; expected at most seq, the 4 tokens"),
        (lambda: rows(1, 4, -1), "keep is -1; expected a whole number of at least 0"),
        (lambda: rows(1, 4, 2.0), "keep is 2.0; expected a whole number"),
        (lambda: rows(-1, 4, 2), "batch is -1; expected a whole number"),
        (lambda: ops.gather_tokens(torch.zeros(4), rows(1, 4, 2)), r"x has shape \(4,\) and ids \(1, 2\)"),
        (
            lambda: ops.gather_tokens(torch.zeros(2, 4), rows(1, 4, 2)),
            r"x has shape \(2, 4\) and ids \(1, 2\)",
        ),
        (
            lambda: ops.gather_tokens(torch.zeros(1, 4), torch.zeros(1, 2)),
            "ids are torch.float32; expected int32 or int64",
        ),
        (
            lambda: ops.gather_tokens(torch.zeros(2, 3), torch.tensor([[0, 3], [0, 1]])),
            r"ids go from 0 to 3; expected them in \[0, 3\)",
        ),
        (
            lambda: ops.gather_tokens(torch.zeros(2, 3), torch.tensor([[0, -1], [0, 1]])),
            "ids go from -1 to 1; expected",
        ),
        (
            lambda: ops.scatter_tokens(torch.zeros(1, 4, 3), torch.zeros(1, 3, 3), rows(1, 4, 2)),
            r"y is torch.float32 of shape \(1, 3, 3\); expected torch.float32 of shape \(1, 2, 3\)",
        ),
        (
            lambda: ops.scatter_tokens(torch.zeros(1, 4), torch.zeros(1, 2).half(), rows(1, 4, 2)),
            "y is torch.float16 .* expected torch.float32",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
