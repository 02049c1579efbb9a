"""The token operations against their plain meaning: every path, bit for bit."""

import functools
import importlib.util
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounter
from torch._subclasses import FakeTensorMode

from dataeff import ops, rng
from dataeff.ops import _aten, _checks, _layout, reference

SHAPES = [
    (1, 1, 1),
    (2, 7, 3),
    (3, 1023, 1),
    (1, 123, 431),
    (4, 16, 2, 3),
    (5, 33, 130),
    (2, 6),
    (1, 4, 9000),
    (0, 5, 2),
    (2, 5, 0),
    (2, 0, 4),
    (70, 5, 3),
]
DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    *([torch.float8_e8m0fnu] if hasattr(torch, "float8_e8m0fnu") else []),
    torch.complex64,
    torch.int64,
    torch.int32,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.bool,
]
INTERPRETED = torch.float64, torch.bfloat16, torch.complex64, torch.int32, torch.bool
STORED = {1: torch.int8, 2: torch.int16}  # what can hold the bits
ON_CPU, ON_CUDA = "cpu", pytest.param("cuda", marks=pytest.mark.gpu)
triton = pytest.importorskip("dataeff.ops._triton") if sys.platform == "linux" else None


def registered():
    library = torch.ops.dataeff

    def scatter_(x, y, ids):
        library.write_tokens(x, y, ids)
        return x

    return library.gather_tokens, library.scatter_tokens, scatter_


@pytest.fixture(params=["public", "registered", "triton", ON_CUDA])
def path(request, monkeypatch):
    """One way that tokens are moved: what users call, torch's registry, the kernels interpreted, a device."""
    if request.param == "triton":
        if triton is None or torch.cuda.is_available():
            pytest.skip("the interpreter needs Triton, and a machine without a CUDA device")
        monkeypatch.setattr(
            _aten, "gather", lambda x, ids: triton.gather(x, ids, _layout.empty(x, ids.shape[-1]))
        )
        monkeypatch.setattr(_aten, "write", triton.write)
    public = ops.gather_tokens, ops.scatter_tokens, ops.scatter_tokens_
    gather, scatter, scatter_ = registered() if request.param in ("registered", "triton") else public
    device = "cuda" if request.param == "cuda" else "cpu"
    return SimpleNamespace(
        gather=gather,
        scatter=scatter,
        scatter_=scatter_,
        device=device,
        interpreted=request.param == "triton",
    )


def rows(batch, seq, keep, seed=0, **options):
    return ops.sample_tokens(batch, seq, keep, key=(seed, 0, 0), **options)


def some(shape, dtype, device="cpu", seed=0):
    numbers = torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(seed))
    return (numbers % 2 if dtype == torch.bool else numbers).to(dtype).to(device)


def bits(x):
    """What torch.equal can compare, of any dtype."""
    return torch.empty(x.shape, dtype=x.dtype, device=x.device).copy_(x).view(torch.uint8)


def equal(x, y):
    return x.shape == y.shape and x.dtype == y.dtype and torch.equal(bits(x), bits(y))


def layouts(x):
    """The same numbers in other places of memory."""
    return [
        x.clone(),
        x.transpose(0, 1).contiguous().transpose(0, 1).clone(),
        torch.stack([x, x], dim=-1)[..., 1],
        torch.cat([x, x], dim=1)[:, : x.shape[1]],
    ]


# Moving


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_path_moves_what_indexing_moves(path, shape, dtype):
    batch, seq, *rest = shape
    kernels = path.interpreted or path.device == "cuda"
    if path.interpreted and dtype not in INTERPRETED:
        pytest.skip("the kernels know sizes only, and interpreting them takes its time")
    for keep in {seq // 2} if kernels else {0, seq // 2, seq}:
        x, y = some(shape, dtype, path.device), some((batch, keep, *rest), dtype, path.device, seed=1)
        ids = rows(batch, seq, keep).to(path.device)
        stored = STORED.get(dtype.itemsize, dtype)  # torch's indexing knows fewer dtypes on CUDA
        expected = reference.gather(x.view(stored), ids).view(dtype)
        put = x.clone()
        put.view(stored)[torch.arange(batch, device=x.device)[:, None], ids] = y.view(stored)
        for own in layouts(x):
            before = own.clone()
            assert equal(path.gather(own, ids), expected)
            assert equal(path.scatter(own, y, ids), put)
            assert equal(own, before)
            assert equal(path.scatter(own, path.gather(own, ids), ids.long()), x)
            assert path.scatter_(own, y, ids) is own
            assert equal(own, put)


@pytest.mark.parametrize("shape", [(3, 40, 70), (70, 5, 3), (2, 6), (1, 9, 4), (4, 200, 250)])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("device", [ON_CPU, ON_CUDA])
def test_tokens_first_is_rows_first_turned(device, shared, shape):
    batch, seq, *rest = shape
    keep = seq - seq // 3
    ids = rows(1 if shared else batch, seq, keep).to(device)
    x, y = some(shape, torch.float32, device), some((batch, keep, *rest), torch.float32, device, seed=1)
    each = ids.expand(batch, -1)
    gathered, put = reference.gather(x, each), reference.scatter(x, y, each)
    of_x = reference.scatter(torch.ones_like(x), torch.zeros_like(y), each)  # which of its tokens stay
    ids = ids[0] if shared else ids
    for own in layouts(x):
        turned, new = own.transpose(0, 1).requires_grad_(), y.transpose(0, 1).clone().requires_grad_()
        out = ops.gather_tokens(turned, ids, batch_first=False)
        assert equal(out.detach().transpose(0, 1), gathered)
        (grad,) = torch.autograd.grad(out.sum(), turned)
        assert equal(grad.transpose(0, 1), 1 - of_x)
        out = ops.scatter_tokens(turned, new, ids, batch_first=False)
        assert equal(out.detach().transpose(0, 1), put)
        grad, for_new = torch.autograd.grad(out.sum(), (turned, new))
        assert equal(grad.transpose(0, 1), of_x)
        assert equal(for_new, torch.ones_like(new))
        ops.scatter_tokens_(turned.detach(), new.detach(), ids, batch_first=False)
        assert equal(own, put)


@pytest.mark.parametrize("seq_first", [False, True])
def test_the_reference_says_what_it_means(seq_first):
    x, y, ids = some((2, 5, 3), torch.int64), some((2, 2, 3), torch.int64, seed=1), rows(2, 5, 2)
    out = x.clone()
    for b in range(2):
        for k, s in enumerate(ids[b].tolist()):
            assert torch.equal(reference.gather(x, ids)[b, k], x[b, s])
            out[b, s] = y[b, k]
    assert torch.equal(reference.scatter(x, y, ids), out)
    if seq_first:
        x, y = x.transpose(0, 1), y.transpose(0, 1)
        moved = ops.scatter_tokens(x, y, ids, batch_first=False)
        assert torch.equal(moved, out.transpose(0, 1))
        assert torch.equal(ops.gather_tokens(moved, ids, batch_first=False), y)
        assert ops.gather_tokens(x.contiguous(), ids, batch_first=False).is_contiguous()
        held = x.contiguous()
        assert ops.scatter_tokens_(held, y, ids, batch_first=False) is held
        assert torch.equal(held, moved)


@pytest.mark.parametrize("shape", [(3, 40, 70), (1, 9, 4), (4, 6)])
def test_one_row_of_ids_may_serve_all_rows(path, shape):
    x, ids = some(shape, torch.float32, path.device), rows(1, shape[1], 3)[0].to(path.device)
    each = ids.expand(shape[0], -1)
    y = path.gather(x, ids) * 2
    assert equal(path.gather(x, ids), reference.gather(x, each))
    assert equal(path.scatter(x, y, ids), reference.scatter(x, y, each))
    assert equal(path.scatter_(x.clone(), y, ids), reference.scatter(x, y, each))


@pytest.mark.parametrize("shape", [(2, 5, 3), (1, 4, 2), (3, 4), (2, 40, 50)])
def test_gradients_and_their_gradients_are_exact(path, shape):
    batch, seq, *rest = shape
    ids = rows(batch, seq, 3).to(path.device)
    x = torch.randn(shape, dtype=torch.float64, device=path.device, requires_grad=True)
    y = torch.randn((batch, 3, *rest), dtype=torch.float64, device=path.device, requires_grad=True)
    for own in (x, x.transpose(0, 1).contiguous().transpose(0, 1)):
        gathered = path.gather(own * own, ids)
        (grad,) = torch.autograd.grad(gathered, own, y.detach())
        held = own.detach()
        expected = 2 * held * reference.scatter(torch.zeros_like(held), y.detach(), ids)
        torch.testing.assert_close(grad, expected, rtol=0, atol=0)
    if x.numel() < 50:
        fast = {"fast_mode": path.interpreted}
        assert torch.autograd.gradcheck(lambda x: path.gather(x, ids), x, **fast)
        assert torch.autograd.gradcheck(lambda x, y: path.scatter(x, y, ids), (x, y), **fast)
        assert torch.autograd.gradgradcheck(lambda x: path.gather(x * x, ids), x, **fast)
        assert torch.autograd.gradgradcheck(lambda x, y: path.scatter(x * x, y * y, ids), (x, y), **fast)


@pytest.mark.parametrize("device", [ON_CPU, ON_CUDA])
def test_in_place_it_is_what_autograd_knows(device):
    ids = rows(2, 5, 3).to(device)
    x = torch.randn(2, 5, 3, dtype=torch.float64, device=device, requires_grad=True)
    y = torch.randn(2, 3, 3, dtype=torch.float64, device=device, requires_grad=True)

    def scatter(x, y):
        return ops.scatter_tokens_(x * 1, y, ids) ** 2

    assert torch.autograd.gradcheck(scatter, (x, y))
    assert torch.autograd.gradgradcheck(scatter, (x, y))
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        ops.scatter_tokens_(x, y, ids)
    twice = x * 1
    square = twice * twice
    ops.scatter_tokens_(twice, y, ids)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        square.sum().backward()
    twice = x * 1
    added = twice + 1  # keeps nothing of it
    merged = ops.scatter_tokens_(twice, y, ids)
    found = torch.autograd.grad((added * merged).sum(), (x, y))
    other = ops.scatter_tokens(x * 1, y, ids)
    expected = torch.autograd.grad(((x + 1) * other).sum(), (x, y))
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("device", [ON_CPU, ON_CUDA])
def test_beyond_two_to_the_31_numbers(device):
    seq, width = 2**21 + 3, 1031  # 2.2e9 numbers a row, of which few are touched
    x = torch.empty(1, seq, width, dtype=torch.int8, device=device)
    ids = torch.tensor([[0, 5, seq - 2, seq - 1]], dtype=torch.int32, device=device)
    y = some((1, 4, width), torch.int8, device)
    ops.scatter_tokens_(x, y, ids)
    assert torch.equal(ops.gather_tokens(x, ids), y)
    assert torch.equal(x[0, seq - 1], y[0, 3])


# In torch


CALLS = {
    "gather_tokens": lambda x, y, ids: (x, ids),
    "scatter_tokens": lambda x, y, ids: (x, y, ids),
    "spread_tokens": lambda x, y, ids: (y, ids, x.shape[1]),
    "write_tokens": lambda x, y, ids: (x.detach(), y.detach(), ids),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("device", [ON_CPU, ON_CUDA])
@pytest.mark.parametrize("turned", [False, True])
def test_the_operators_pass_the_checks_of_torch(name, device, turned):
    x = torch.randn(2, 5, 3, device=device)
    x = x.transpose(0, 1).contiguous().transpose(0, 1) if turned else x
    y, ids = torch.randn(2, 3, 3, device=device), rows(2, 5, 3).to(device)
    arguments = CALLS[name](x.requires_grad_(), y.requires_grad_(), ids)
    torch.library.opcheck(getattr(torch.ops.dataeff, name).default, arguments)


@pytest.mark.parametrize("device", [ON_CPU, ON_CUDA])
def test_the_sampling_operator_passes_the_checks_of_torch(device):
    valid = torch.arange(16, device=device).view(2, 8) % 3 > 0
    place = torch.device(device)
    weights = torch.rand(8, device=device)
    for masks in [(None, None, None), (None, valid, None), (valid, None, weights)]:
        for moment, after in [(None, None), (torch.tensor([4, -5], device=device), 6)]:
            arguments = 2, 8, 6, [1, -2], moment, after, 3, 5, 0, *masks, place
            torch.library.opcheck(torch.ops.dataeff.sample_tokens.default, arguments)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("device", [ON_CPU, ON_CUDA])
def test_a_compiled_routing_has_no_break_in_its_graph(device, shared):
    layer = torch.nn.Linear(4, 4).to(device)
    valid = torch.ones(16, dtype=torch.bool, device=device)

    def forward(x, step, keep):
        ids = ops.sample_tokens(len(x), x.shape[1], keep, key=("routing", 7, step), valid=valid)
        ids = ids[0] if shared else ids
        kept = ops.gather_tokens(x, ids)
        x = ops.scatter_tokens(x, layer(kept), ids)
        x = ops.scatter_tokens_(x * 1, kept, ids)
        return ops.gather_axes(ops.gather_tokens(x.transpose(0, 1), ids, batch_first=False), ids // 9, (1,))

    torch.compiler.reset()
    compiled = torch.compile(forward, fullgraph=True, backend="aot_eager")
    x = torch.randn(3, 16, 4, device=device, requires_grad=True)
    for step, keep in [(0, 3), (1, 3), (2, 3), (3, 5), (2**40, 6)]:
        x = torch.randn(keep, 16, 4, device=device, requires_grad=True)
        out, expected = compiled(x, step, keep), forward(x, step, keep)
        torch.testing.assert_close(out, expected)
        grads = [torch.autograd.grad(each.square().sum(), x)[0] for each in (out, expected)]
        torch.testing.assert_close(*grads)


def test_sizes_may_be_symbols_of_a_compiler():
    def forward(x):
        ids = ops.sample_tokens(len(x), x.shape[1], x.shape[1] // 2, key=(7,))
        return ops.gather_tokens(x, ids)

    torch.compiler.reset()
    counter = CompileCounter()
    compiled = torch.compile(forward, fullgraph=True, backend=counter, dynamic=True)
    for seq in range(6, 20):
        x = torch.randn(3, seq, 4)
        assert torch.equal(compiled(x), forward(x))
    assert counter.frame_count == 1


@pytest.mark.parametrize("shape", [(4, 3, 6, 2), (4, 3, 40, 60)])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("device", [ON_CPU, ON_CUDA])
def test_under_vmap(device, shape, shared):
    outer, batch, seq, width = shape
    x, y = some(shape, torch.float32, device), some((outer, batch, 3, width), torch.float32, device)
    ids = rows(outer * batch, seq, 3).to(device).view(outer, batch, 3)
    ids, dim = (ids[0], None) if shared else (ids, 0)
    each = ids.expand(outer, batch, 3)
    gathered = torch.vmap(ops.gather_tokens, (0, dim))(x, ids)
    assert torch.equal(gathered, torch.stack([reference.gather(*pair) for pair in zip(x, each, strict=True)]))
    turned = torch.vmap(ops.gather_tokens, (1, dim), 1)(x.transpose(0, 1), ids)
    assert torch.equal(turned.transpose(0, 1), gathered)
    scattered = torch.vmap(ops.scatter_tokens, (0, 0, dim))(x, y, ids)
    expected = [reference.scatter(*each) for each in zip(x, y, each, strict=True)]
    assert torch.equal(scattered, torch.stack(expected))
    grads = torch.func.grad(lambda x: torch.vmap(ops.gather_tokens, (0, dim))(x * x, ids).sum())(x)
    assert torch.equal(grads, 2 * x * torch.stack([reference.scatter(*z) for z in zip(
        torch.zeros_like(x), torch.ones_like(y), each, strict=True)]))  # fmt: skip


def test_the_operators_themselves_are_called_in_turn_under_vmap():
    x, ids = some((3, 4, 6, 2), torch.float32), rows(4, 6, 2)
    out = torch.vmap(torch.ops.dataeff.gather_tokens, (0, None))(x, ids)
    assert torch.equal(out, torch.stack([reference.gather(own, ids) for own in x]))


@pytest.mark.parametrize("device", [ON_CPU, ON_CUDA])
def test_a_batch_of_ids_alone_may_be_mapped(device):
    x, ids = some((3, 6, 2), torch.float32, device), rows(4, 6, 2).to(device)
    out = torch.vmap(ops.gather_tokens, (None, 0))(x, ids)
    assert torch.equal(out, torch.stack([reference.gather(x, own.expand(3, -1)) for own in ids]))


def test_a_mode_that_knows_no_tensors_but_its_own():
    with FakeTensorMode():
        x, y, ids = torch.zeros(2, 6, 4), torch.zeros(2, 3, 4), torch.zeros(2, 3).long()
        assert ops.gather_tokens(x, ids).shape == y.shape
        assert ops.scatter_tokens(x, y, ids).shape == x.shape


def test_what_is_imported_without_autograd_serves_autograd():
    spec = importlib.util.find_spec(_layout.__name__)
    fresh = importlib.util.module_from_spec(spec)
    with torch.inference_mode():
        spec.loader.exec_module(fresh)
    assert not fresh.index(torch.zeros(2, 3).long(), True)[0].is_inference()


# Several axes


@pytest.mark.parametrize("device", [ON_CPU, ON_CUDA])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((3, 1, 8, 8), (-2, -1)),
        ((1, 1, 8, 8), (2, 3)),
        ((3, 4, 8, 8), (3, 2)),
        ((1, 8, 8), (1, 2)),
        ((1, 8, 6), (1,)),
        ((3, 8, 6), (1,)),
        ((3, 8), (1,)),
        ((1, 2, 8, 6), (2,)),
        ((3, 2, 8, 6), (-2,)),
        ((3, 8, 2, 8, 5), (1, 3)),
    ],
)
def test_several_axes_at_once(shape, axes, device):
    ids = rows(3, 8, 3).to(device)
    for dtype in (torch.float64, torch.bool, torch.int32):
        x = some(shape, dtype, device)
        assert equal(ops.gather_axes(x, ids, axes), reference.gather_axes(x, ids, axes))
        strided = torch.stack([x, x], dim=-1)[..., 1]
        assert equal(ops.gather_axes(strided, ids, axes), reference.gather_axes(x, ids, axes))
    x = torch.randn(shape, dtype=torch.float64, device=device, requires_grad=True)
    out = ops.gather_axes(x, ids, axes)
    grads = torch.randn_like(out)
    expected = torch.autograd.grad(reference.gather_axes(x, ids, axes), x, grads)[0]
    torch.testing.assert_close(torch.autograd.grad(out, x, grads)[0], expected)


@pytest.mark.parametrize(
    ("shape", "axes"), [((1, 1, 256, 256), (2, 3)), ((4, 2, 256, 256), (2, 3)), ((1, 256, 32), (1,))]
)
def test_several_axes_make_nothing_larger_than_what_comes_out(shape, axes):
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if (
                isinstance(out, torch.Tensor)
                and out.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
            ):
                self.size = max(self.size, out.untyped_storage().nbytes())
            return out

    x, ids = torch.randn(shape), rows(4, 256, 64)
    with Largest() as seen:
        out = ops.gather_axes(x, ids, axes)
    assert seen.size == out.untyped_storage().nbytes()


# Sampling


@given(batch=st.integers(0, 4), seq=st.integers(0, 70), share=st.floats(0, 1), seed=st.integers(0, 2**64 - 1))
def test_ids_are_sorted_distinct_and_the_smallest_words(batch, seq, share, seed):
    keep = round(share * seq)
    ids = ops.sample_tokens(batch, seq, keep, key=(seed, 3, "layer"))
    assert ids.dtype == torch.int32
    assert ids.shape == (batch, keep)
    words = rng.bits(rng.key(seed, 3, "layer"), batch, seq)
    expected = [sorted(sorted(range(seq), key=lambda i, row=row: (row[i], i))[:keep]) for row in words]
    assert ids.tolist() == expected


def masks_of(kind, batch, seq, device="cpu"):
    generator = torch.Generator().manual_seed(seq)

    def chance(share, *shape):
        return (torch.rand(shape, generator=generator) < share).to(device)

    weights = torch.rand(batch, seq, generator=generator).to(device)
    return {
        "plain": {},
        "prefix": {"always": 2},
        "always": {"always": chance(0.1, batch, seq)},
        "valid": {"valid": chance(0.6, batch, seq)},
        "valid for all rows": {"valid": chance(0.6, seq)},
        "weights": {"weights": weights},
        "weights for all rows": {"weights": weights[0].half()},
        "whole weights": {"weights": chance(0.5, batch, seq).int() * 3},
        "all": {
            "always": chance(0.1, seq),
            "valid": chance(0.5, batch, seq).t().contiguous().t(),
            "weights": weights * chance(0.6, batch, seq),
        },
    }[kind]


KINDS = [
    "plain", "prefix", "always", "valid", "valid for all rows", "weights", "weights for all rows",
    "whole weights", "all",
]  # fmt: skip


def meant(batch, seq, keep, key, layers, first_row, always=0, valid=None, weights=None):
    if not isinstance(always, torch.Tensor):
        always = torch.arange(seq) < always
    drawn = []
    for layer in range(layers):
        words = rng.bits(rng.key(*key, layer), batch, seq, first_row=first_row).astype("int64")
        masks = {"always": always, "valid": valid, "weights": weights}
        masks = {name: None if mask is None else mask.cpu() for name, mask in masks.items()}
        drawn.append(reference.sample(torch.from_numpy(words), keep, **masks))
    return torch.stack(drawn)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("batch", "seq", "keep"), [(2, 1, 1), (3, 70, 29), (2, 300, 290), (1, 64, 64), (2, 50, 9)]
)
@pytest.mark.parametrize("device", [ON_CPU, ON_CUDA])
def test_sampling_is_what_it_means_with_any_masks(kind, batch, seq, keep, device):
    masks = masks_of(kind, batch, seq, device)
    if kind in ("prefix", "always", "all") and seq == 1:
        masks.pop("always")
    key = ("a", 2**64 - 1, 5)
    expected = meant(batch, seq, keep, key, 2, 7, **masks)
    ids = ops.sample_tokens(batch, seq, keep, key=key, layers=2, first_row=7, device=device, **masks)
    assert torch.equal(ids.cpu(), expected)
    own = ops.sample_tokens(batch, seq, keep, key=(*key, 1), first_row=7, device=device, **masks)
    assert torch.equal(own, ids[1])


def by_kernel(batch, seq, keep, key, layers, first_row=0, always=0, valid=None, weights=None, device="cpu"):
    """What the kernel draws; on the CPU in Triton's interpreter."""
    if triton is None or (device == "cpu" and torch.cuda.is_available()):
        pytest.skip("the interpreter needs Triton, and a machine without a CUDA device")
    prefix, always = (0, always) if isinstance(always, torch.Tensor) else (always, None)
    out = torch.full((layers, batch, keep), -1, dtype=torch.int32, device=device)
    return triton.sample(rng.key(*key), True, first_row, prefix, always, valid, weights, seq, out)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("device", [ON_CPU, ON_CUDA])
def test_the_kernel_draws_what_the_cpu_draws_with_any_masks(kind, device):
    key, masks = (3, "b"), masks_of(kind, 2, 50, device)
    expected = ops.sample_tokens(2, 50, 21, key=key, layers=2, first_row=2**31, **masks_of(kind, 2, 50))
    assert torch.equal(by_kernel(2, 50, 21, key, 2, 2**31, **masks, device=device).cpu(), expected)


def test_the_kernel_finds_masks_whose_strides_leave_32_bits():
    valid = torch.empty(2**32, dtype=torch.bool).view(64, 2**26)[
        :, 0
    ]  # memory that is not touched is not there
    valid.copy_(torch.arange(64) % 3 > 0)
    expected = ops.sample_tokens(1, 64, 9, key=(3,), layers=1, valid=valid.contiguous())
    assert torch.equal(by_kernel(1, 64, 9, (3,), 1, valid=valid), expected)


def test_masks_on_another_gpu_are_refused():
    with FakeTensorMode():  # which needs none
        valid = torch.empty(4, dtype=torch.bool, device="cuda:1")
        with pytest.raises(ValueError, match="is on cuda:1, and the ids are for cuda:0"):
            ops.sample_tokens(1, 4, 2, key=(3,), valid=valid, device="cuda:0")


@pytest.mark.parametrize(
    "shares",
    [
        torch.zeros(1, 4, 3).expand(2, 4, 3),
        torch.zeros(2, 1, 3).expand(2, 4, 3),
        torch.zeros(18).as_strided((2, 4, 3), (3, 3, 1)),
        torch.zeros(18).as_strided((2, 4, 3), (1, 4, 2)),
    ],
)
def test_writing_into_rows_that_share_memory_is_refused(shares):
    with pytest.raises(
        ValueError, match=r"shape \(2, 4, 3\), has strides .*, so .* x.clone\(\), or scatter_tokens"
    ):
        ops.scatter_tokens_(shares, torch.ones(2, 1, 3), torch.tensor([[0], [1]]))


@pytest.mark.parametrize("kind", ["plain", "all"])
@pytest.mark.parametrize("device", [ON_CPU, ON_CUDA])
def test_the_kernel_draws_the_same_from_a_row_in_pieces(kind, device, monkeypatch):
    if triton is not None:
        monkeypatch.setattr(triton, "_ROW", 32)
    masks = masks_of(kind, 1, 75, device)
    expected = ops.sample_tokens(1, 75, 41, key=(3,), layers=1, **masks_of(kind, 1, 75))
    assert torch.equal(by_kernel(1, 75, 41, (3,), 1, **masks, device=device).cpu(), expected)


@pytest.mark.parametrize("moment_on", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("device", [ON_CPU, ON_CUDA])
def test_a_tensor_in_the_key_counts_as_its_entries_do(device, moment_on):
    moment = torch.tensor([3, 2**40], device=moment_on)
    draw = functools.partial(ops.sample_tokens, 2, 30, 7, device=device)
    assert torch.equal(draw(key=("a", 1, moment, 5)), draw(key=("a", 1, 3, 2**40, 5)))
    assert torch.equal(draw(key=(moment,), layers=2), draw(key=(3, 2**40), layers=2))
    assert torch.equal(draw(key=(moment[0], "b")), draw(key=(3, "b")))


@pytest.mark.parametrize("after", [None, 6, -7])
@pytest.mark.parametrize("layers", [None, 2])
@pytest.mark.parametrize("device", [ON_CPU, ON_CUDA])
def test_the_kernel_folds_a_tensor_in_the_key(device, layers, after):
    if triton is None or (device == "cpu" and torch.cuda.is_available()):
        pytest.skip("the interpreter needs Triton, and a machine without a CUDA device")
    out = torch.full((layers or 1, 2, 9), -1, dtype=torch.int32, device=device)
    moment = torch.tensor([3, -4], device=device)
    triton.sample(rng.key(8), layers is not None, 0, 0, None, None, None, 40, out, moment=moment, after=after)
    key = [8, 3, 2**64 - 4] + ([] if after is None else [after % 2**64])
    expected = ops.sample_tokens(2, 40, 9, key=key, layers=layers)
    assert torch.equal(out.cpu().view(expected.shape), expected)


def test_the_kernel_draws_the_same_for_a_hundred_keys():
    drawn = by_kernel(1, 21, 5, (9,), 100)
    assert torch.equal(drawn, ops.sample_tokens(1, 21, 5, key=(9,), layers=100))


@pytest.mark.gpu
def test_ids_are_the_same_on_a_device_for_a_thousand_keys():
    for seed in range(1000):
        ids = ops.sample_tokens(2, 64, 16, key=(seed, 0, 0), device="cuda")
        assert torch.equal(ids.cpu(), rows(2, 64, 16, seed))


@pytest.mark.parametrize("device", [ON_CPU, ON_CUDA])
def test_a_million_tokens(device):
    seq, keep = 2**20 + 1, 3**12
    ids = rows(1, seq, keep, device=device)
    word = torch.from_numpy(rng.bits(rng.key(0, 0, 0), 1, seq).astype("int64"))
    assert torch.equal(ids.cpu(), reference.sample(word, keep))
    x = torch.arange(seq, device=device).view(1, seq, 1)
    assert torch.equal(ops.gather_tokens(x, ids)[..., 0], ids.long())
    assert torch.equal(ops.scatter_tokens(x, -x[:, :keep], ids)[0, ids[0].long(), 0], -x[0, :keep, 0])


def test_words_that_tie_are_taken_by_position():
    from dataeff.ops._sample import _choose

    none, nobody = np.empty((0, 0), np.bool_), np.empty((0, 0))
    words = np.array([[5, 3, 5, 5, 9, 5, 2**32 - 1]], np.uint32)
    for keep, expected in [(1, [1]), (3, [0, 1, 2]), (5, [0, 1, 2, 3, 5]), (7, list(range(7)))]:
        ids = np.empty((1, keep), np.int32)
        _choose(words, 0, none, none, nobody, ids)
        assert ids.tolist() == [expected]
        assert reference.sample(torch.from_numpy(words.astype("int64")), keep).tolist() == [expected]


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


def test_weights_are_chances_draw_by_draw():
    draws, weights = 40_000, torch.tensor([1.0, 0.0, 2.0, 3.0, 4.0])
    first = ops.sample_tokens(draws, 5, 1, key=("w",), weights=weights).flatten()
    expected = draws * weights / weights.sum()
    counts = torch.bincount(first, minlength=5)
    assert counts[1] == 0
    assert ((counts - expected)[weights > 0] ** 2 / expected[weights > 0]).sum() < 3 + 5 * 6**0.5
    pairs = ops.sample_tokens(draws, 5, 2, key=("v",), weights=weights)
    p = weights / weights.sum()
    for a in (0, 2, 3):
        for b in range(a + 1, 5):
            share = (p[a] * p[b] / (1 - p[a]) + p[b] * p[a] / (1 - p[b])).item()
            found = ((pairs[:, 0] == a) & (pairs[:, 1] == b)).sum().item()
            assert abs(found - draws * share) < 5 * (draws * share * (1 - share)) ** 0.5 + 1e-9


@given(seed=st.integers(0, 2**32), seq=st.integers(1, 60), share=st.floats(0, 1))
def test_what_must_stay_stays_and_padding_comes_last(seed, seq, share):
    keep = round(share * seq)
    generator = torch.Generator().manual_seed(seed)
    valid = torch.rand(2, seq, generator=generator) < 0.5
    always = torch.rand(2, seq, generator=generator) < 0.2
    always &= always.cumsum(1) <= keep
    ids = ops.sample_tokens(2, seq, keep, key=(seed,), valid=valid, always=always)
    kept = torch.zeros(2, seq, dtype=torch.bool).scatter(1, ids.long(), True)
    assert (kept | ~always).all()
    for row in range(2):
        padding = kept[row] & ~valid[row] & ~always[row]
        left = valid[row] & ~kept[row]
        assert not (padding.any() and left.any())


# Errors


@pytest.fixture
def looking(monkeypatch):
    monkeypatch.setattr(_checks, "DEBUG", True)


X = torch.zeros(2, 3)
MASK = torch.ones(2, 4, dtype=torch.bool)
ONE = torch.tensor([0, 2])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: rows(1, 4, 5), "keep is 5; expected at most seq, the 4 tokens"),
        (lambda: rows(1, 4, -1), "keep is -1; expected a whole number of at least 0"),
        (lambda: rows(1, 4, 2.0), "keep is 2.0; expected a whole number"),
        (lambda: rows(-1, 4, 2), "batch is -1; expected a whole number"),
        (lambda: rows(1, 4, 2, layers=-1), "layers is -1; expected a whole number"),
        (
            lambda: rows(2, 4, 2, first_row=2**32 - 1),
            "first_row is 4294967295; expected a whole number from 0 to",
        ),
        (lambda: rows(2, 4, 2, always=3), "always is 3; expected a whole number from 0 to 2"),
        (
            lambda: rows(2, 4, 2, always=MASK),
            "always marks 4 tokens in a row and keep is 2; expected at most keep: keep more, or mark fewer",
        ),
        (
            lambda: rows(2, 4, 2, always=MASK.float()),
            r"always is torch.float32 of shape \(2, 4\); expected bool of shape \(4,\) or \(2, 4\)",
        ),
        (
            lambda: rows(2, 5, 2, valid=MASK),
            r"valid is torch.bool of shape \(2, 4\); expected bool of shape \(5,\)",
        ),
        (
            lambda: rows(2, 4, 2, weights=MASK.to(torch.complex64)),
            "weights is torch.complex64 .*; expected floats of 16 bits or more, or int64, of shape",
        ),
        (
            lambda: rows(2, 4, 2, weights=torch.tensor([1, 2, -0.5, 3])),
            r"weights, of shape \(4,\), has -0.5; expected finite numbers of at least 0",
        ),
        (
            lambda: rows(2, 4, 2, weights=torch.tensor([1, 2, float("nan"), 3])),
            "has nan; expected finite numbers",
        ),
        (
            lambda: rows(2, 4, 2, valid=MASK.to("meta"), device="cpu"),
            r"valid, of shape \(2, 4\), is on meta, and the ids are for cpu; .*: valid.to\('cpu'\)",
        ),
        (lambda: ops.sample_tokens(1, 4, 2, key=()), r"key is \(\); expected a tuple of all that the choice"),
        (lambda: ops.sample_tokens(1, 4, 2, key="ab"), r"key is 'ab'; expected .*, as \(seed, step, layer\)"),
        (lambda: ops.sample_tokens(1, 4, 2, key=7), "key is 7; expected a tuple"),
        (lambda: ops.sample_tokens(1, 4, 2, key=(-1,)), "a part of key is -1; expected a whole number"),
        (
            lambda: ops.sample_tokens(1, 4, 2, key=(torch.zeros(1).long(), 1, 2)),
            r"key is made of \['torch.int64', 'int', 'int'\]; expected at most one tensor, of int64",
        ),
        (lambda: ops.sample_tokens(1, 4, 2, key=(torch.zeros(1),)), r"key is made of \['torch.float32'\]"),
        (
            lambda: ops.gather_tokens(torch.zeros(4), rows(1, 4, 2)),
            r"ids has shape \(1, 2\), x \(4,\); expected ids \(B, K\) or \(K,\), and x \(B, S, ...\)",
        ),
        (
            lambda: ops.scatter_tokens(torch.zeros(1), torch.zeros(1, 2), rows(1, 4, 2)),
            r"ids has shape \(1, 2\), x \(1,\); expected",
        ),
        (
            lambda: ops.gather_tokens(torch.zeros(2, 4), rows(1, 4, 2)),
            r"ids has shape \(1, 2\), x \(2, 4\); expected",
        ),
        (
            lambda: ops.gather_tokens(torch.zeros(4, 2), rows(1, 4, 2), batch_first=False),
            r"and x \(S, B, ...\) with the same B",
        ),
        (
            lambda: ops.gather_tokens(torch.zeros(1, 4), torch.zeros(1, 2)),
            "ids is torch.float32; expected int32 or int64",
        ),
        (
            lambda: ops.gather_tokens(torch.zeros(1, 4, device="meta"), rows(1, 4, 2)),
            r"ids is on cpu, of shape \(1, 2\), and x on meta, of shape \(1, 4\); .*: ids.to\(x.device\)",
        ),
        (
            lambda: ops.scatter_tokens(torch.zeros(1, 4, 3), torch.zeros(1, 3, 3), rows(1, 4, 2)),
            r"y is torch.float32 of shape \(1, 3, 3\) on cpu; expected torch.float32 of shape \(1, 2, 3\) "
            r".*ids, of shape \(1, 2\), and x, of shape \(1, 4, 3\)",
        ),
        (
            lambda: ops.scatter_tokens_(torch.zeros(1, 4), torch.zeros(1, 2).half(), rows(1, 4, 2)),
            "y is torch.float16 .* expected torch.float32",
        ),
        (lambda: ops.gather_tokens(torch.zeros(4), ONE), r"ids has shape \(2,\), x \(4,\); expected"),
        (lambda: ops.gather_tokens(X, ONE.float()), "ids is torch.float32; expected int32 or int64"),
        (lambda: ops.gather_tokens(X, ONE.to("meta")), r"ids is on meta, of shape \(2,\), and x on cpu"),
        (lambda: ops.scatter_tokens_(X, X[:, :2] + 1, ONE.float()), "ids is torch.float32; expected int32"),
        (
            lambda: ops.scatter_tokens_(X, torch.ones(2, 1), ONE),
            r"y is torch.float32 of shape \(2, 1\) on cpu; expected torch.float32 of shape \(2, 2\)",
        ),
        (lambda: ops.scatter_tokens_(X, torch.ones(()), ONE[:1]), r"y is torch.float32 of shape \(\) on cpu"),
        (lambda: ops.scatter_tokens_(X, torch.ones(2, 2).half(), ONE), "y is torch.float16 .*; expected"),
        (lambda: ops.scatter_tokens_(X, torch.ones(2, 2, device="meta"), ONE), "on meta; expected"),
        (
            lambda: ops.gather_axes(torch.zeros(2, 1, 4, 4), rows(2, 4, 2), (0,)),
            r"axes is \(0,\), of x of shape \(2, 1, 4, 4\); expected axes of tokens, after that of the batch",
        ),
        (lambda: ops.gather_axes(torch.zeros(2, 4), rows(2, 4, 2), ()), r"axes is \(\), of x of shape"),
        (
            lambda: ops.gather_axes(torch.zeros(1, 4, 5), rows(2, 4, 2), (1, 2)),
            r"axes is \(1, 2\), on which x, of shape \(1, 4, 5\), has \[4, 5\] tokens; expected as many",
        ),
        (
            lambda: ops.gather_axes(torch.zeros(3, 4), rows(2, 4, 2), (1,)),
            r"ids has shape \(2, 2\), x \(3, 4\); expected ids \(B, K\), and x \(1, ...\) or \(B, ...\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
    assert not X.any()  # nothing is written


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: ops.gather_tokens(X, torch.tensor([[0, 3], [0, 1]])),
            r"ids, of shape \(2, 2\), go from 0 to 3; expected them in \[0, 3\), the tokens that x has",
        ),
        (lambda: ops.gather_tokens(X, torch.tensor([-1, 1])), r"ids, of shape \(2,\), go from -1 to 1"),
        (
            lambda: ops.scatter_tokens(X, torch.zeros(2, 2), torch.tensor([[0, 1], [2, 1]])),
            r"ids, of shape \(2, 2\), are not rising in row 1: 2 comes before 1; expected each token once",
        ),
        (
            lambda: ops.scatter_tokens_(X.t(), torch.zeros(2, 2), torch.tensor([1, 1]), batch_first=False),
            r"ids, of shape \(2,\), are not rising: 1 comes twice; expected each token once and in order",
        ),
        (lambda: ops.gather_axes(X, torch.tensor([[0, 1], [2, 1]]), (1,)), "are not rising in row 1"),
    ],
)
def test_ids_are_looked_at_in_debug_mode(call, said, looking):
    with pytest.raises(ValueError, match=said):
        call()


def test_ids_that_are_fine_pass_in_debug_mode(looking):
    ids = rows(2, 3, 2)
    assert torch.equal(ops.gather_tokens(X, ids), reference.gather(X, ids))
    assert ops.gather_tokens(X, ids[:, :0]).shape == (2, 0)


@pytest.mark.parametrize(("value", "mode"), [("1", True), ("0", False), ("", False), (None, False)])
def test_debug_mode_is_a_variable_of_the_environment(value, mode):
    environment = {name: own for name, own in os.environ.items() if name != "DATAEFF_CHECK"}
    code = "from dataeff.ops import _checks; print(_checks.DEBUG)"
    if value is not None:
        environment["DATAEFF_CHECK"] = value
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True
    )
    assert done.stdout.strip() == str(mode)


def test_without_debug_mode_ids_are_not_looked_at(monkeypatch):
    monkeypatch.setattr(_checks, "_ids", None)  # calling it would fail
    assert ops.gather_tokens(X, rows(2, 3, 2)).shape == (2, 2)


def test_the_kernels_compile_for_a_device_that_is_not_here():
    if triton is None:
        pytest.skip("Triton is not for this machine")
    environment = {name: own for name, own in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.triton_compiles"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["gather"] == found["write"] == ["ld.global.v4.b32", "st.global.v4.b32"]  # 16 bytes at once
    for kernel, instructions in found.items():
        assert not [own for own in instructions if own.startswith("fma")], kernel  # as on the CPU, to the bit
    assert "div.rn.f64" in found["all masks"]


@pytest.mark.parametrize("device", [ON_CPU, ON_CUDA])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("way", ["a part of it", "turned", "beside it"])
def test_what_is_written_may_be_a_part_of_what_is_written_to(device, way, batch_first, shared):
    """Each is read before it is written over."""
    x = torch.arange(3 * 12 * 2.0, device=device).view(3, 12, 2)
    ids = torch.arange(1, 5, device=device).expand(3, -1)
    y = {"a part of it": x[:, :4], "turned": x.flip(1)[:, :4], "beside it": x[:, 6:10]}[way]
    expected = x.clone()
    expected[:, 1:5] = y.clone()
    turn = (lambda t: t) if batch_first else (lambda t: t.transpose(0, 1))
    ops.scatter_tokens_(turn(x), turn(y), ids[0] if shared else ids, batch_first=batch_first)
    assert torch.equal(x, expected)


def test_under_vmap_what_is_written_may_be_a_part_of_what_is_written_to():
    x = torch.arange(2 * 3 * 12 * 2.0).view(2, 3, 12, 2)
    ids = torch.arange(1, 5).expand(3, -1)
    expected = x.clone()
    expected[:, :, 1:5] = x[:, :, :4]
    out = torch.vmap(lambda x: ops.scatter_tokens_(x.clone(), x[:, :4], ids))(x)
    assert torch.equal(out, expected)
    assert torch.equal(torch.vmap(lambda x: ops.scatter_tokens_(x, x[:, :4], ids))(x), expected)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("axes", [(-2, -1), (1,), (-1,)])
def test_axes_may_be_cut_to_ids_of_all_rows(batch, axes):
    x = torch.randn(batch, 9, 9)
    ids = torch.tensor([0, 3, 4])
    assert torch.equal(ops.gather_axes(x, ids, axes), ops.gather_axes(x, ids.expand(batch, -1), axes))


def test_ids_are_not_looked_at_where_they_cannot_be(monkeypatch):
    """With DATAEFF_CHECK=1, under torch.func, on meta and for fake tensors."""
    monkeypatch.setattr(_checks, "DEBUG", True)
    x, ids = torch.randn(3, 2, 8, 4), torch.tensor([[0, 3], [1, 2]]).expand(3, -1, -1)
    assert torch.vmap(ops.gather_tokens)(x, ids).shape == (3, 2, 2, 4)
    assert ops.gather_tokens(x[0].to("meta"), ids[0].to("meta")).shape == (2, 2, 4)
    with FakeTensorMode():
        assert ops.gather_tokens(torch.zeros(2, 8, 4), torch.zeros(2, 2).long()).shape == (2, 2, 4)
