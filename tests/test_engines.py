"""Routing under what runs models: checkpointing, compilers, several processes, autocast."""

import copy
import os

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from dataeff import routers
from dataeff.demo._model import GPT
from dataeff.pacing import levels, linear
from dataeff.routing import attach

SEQ = 12
PACE = linear(4, 10, steps=6, multiple=2)


def made(layers=6, length=SEQ):
    torch.manual_seed(0)
    return GPT(vocabulary=32, length=length, width=16, heads=2, layers=layers).double()


@pytest.fixture
def gpt():
    return made()


@pytest.fixture
def ids():
    return torch.randint(0, 32, (4, SEQ), generator=torch.Generator().manual_seed(1))


class Checkpointed(nn.Module):
    """A GPT whose blocks are run again in the backward pass, `together` as one."""

    def __init__(self, gpt, together, reentrant):
        super().__init__()
        self.gpt, self.together, self.reentrant = gpt, together, reentrant

    def forward(self, ids):
        x = self.gpt.tokens(ids) + self.gpt.positions.weight[: ids.shape[1]]
        blocks = list(self.gpt.blocks)
        for i in range(0, len(blocks), self.together):
            x = checkpoint(nn.Sequential(*blocks[i : i + self.together]), x, use_reentrant=self.reentrant)
        return self.gpt.head(self.gpt.norm(x))


def grads_of(model, gpt, ids, forwards, **options):
    """Gradients of several forward passes, all before the one backward pass."""
    options = {"router": "random_ltd", "keep": PACE, "seed": 7, "layers": list(gpt.blocks[1:5])} | options
    route = attach(model, **options)
    gpt.zero_grad()
    loss = 0
    for i in range(forwards):
        route.step = 2 + i // 2
        loss = loss + model((ids + i) % 32).square().sum()
    route.step = 5
    loss.backward()
    route.remove()
    return [p.grad.clone() for p in gpt.parameters()]


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("together", [1, 2, 3, 6])
@pytest.mark.parametrize("forwards", [1, 3])
def test_recomputation_draws_the_tokens_of_its_own_pass(gpt, ids, reentrant, together, forwards):
    model = Checkpointed(gpt, together, reentrant)
    for found, expected in zip(
        grads_of(model, gpt, ids, forwards), grads_of(gpt, gpt, ids, forwards), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("together", [1, 6])
@pytest.mark.parametrize("forwards", [1, 3])
@pytest.mark.parametrize("router", ["span", "token_bypass", "patch_dropout"])
def test_so_it_does_where_tokens_go_around_several_layers(gpt, ids, together, forwards, router):
    if router == "token_bypass":
        router = routers.token_bypass(vocabulary=32)
    options = {"router": router} | ({"layers": None} if router == "patch_dropout" else {})
    model = Checkpointed(gpt, together, False)
    for found, expected in zip(
        grads_of(model, gpt, ids, forwards, **options),
        grads_of(gpt, gpt, ids, forwards, **options),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("together", "reentrant"), [(1, True), (2, True), (2, False), (3, False)])
def test_a_span_that_checkpointing_would_cut_is_refused(gpt, ids, together, reentrant):
    with pytest.raises(
        RuntimeError,
        match=r"layer 'gpt.blocks.4' is run again without those before it, and span\(.*\) has .*one",
    ):
        grads_of(Checkpointed(gpt, together, reentrant), gpt, ids, 1, router="span")


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_around_the_whole_model_is_one_micro_batch(gpt, ids, reentrant):
    def run(call):
        gpt.zero_grad()
        route = attach(gpt, keep=PACE, seed=7)
        route.step = 1
        losses = [call(ids).square().sum(), call((ids + 1) % 32).square().sum()]
        kept = route.kept()
        sum(losses).backward()
        route.remove()
        return kept, [p.grad.clone() for p in gpt.parameters()]

    again = torch.zeros(1, dtype=torch.float64, requires_grad=True)  # reentrant checkpointing wants one

    def whole(ids):
        return checkpoint(lambda ids, _: gpt(ids), ids, again, use_reentrant=reentrant)

    (kept, expected), (found_kept, found) = run(gpt), run(whole)
    assert kept
    assert all(torch.equal(found_kept[name], kept[name]) for name in kept)
    for grad, meant in zip(found, expected, strict=True):
        torch.testing.assert_close(grad, meant, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_of_transformers(reentrant, ids):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=32, n_embd=16, n_layer=6, n_head=2, n_positions=SEQ,
                                     resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)  # fmt: skip
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config).double().train()

    def run():
        model.zero_grad()
        route = attach(model, keep=PACE, seed=7)
        loss = 0
        for i in range(3):
            route.step = i
            loss = loss + model(ids, labels=ids).loss
        loss.backward()
        route.remove()
        return [p.grad.clone() for p in model.parameters()]

    expected = run()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    for found, meant in zip(run(), expected, strict=True):
        torch.testing.assert_close(found, meant, rtol=1e-11, atol=1e-11)


def test_micro_batches_of_a_step_add_up_in_any_grouping(gpt, ids):
    def grads(together):
        gpt.zero_grad()
        route = attach(gpt, keep=5, seed=7)
        route.step = 3
        losses = [gpt(ids[i : i + 1]).square().sum() for i in range(4)]
        for i in range(0, 4, together):
            sum(losses[i : i + together]).backward()
        route.remove()
        return [p.grad.clone() for p in gpt.parameters()]

    for found, expected in zip(grads(1), grads(4), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


# Compilers


def steps_of(model, run, ids, pace, steps, **options):
    """Losses, kept tokens and gradients of some steps of two micro-batches each."""
    route = attach(model, keep=pace, seed=7, **options)
    seen = []
    for step in range(steps):
        route.step = step
        model.zero_grad()
        out = [run((ids + i) % 32) for i in range(2)]
        sum(o.square().sum() for o in out).backward()
        seen.append((out[-1].detach(), route.kept(), [p.grad.clone() for p in model.parameters()]))
    route.remove()
    return seen


def same(found, expected):
    for (out, kept, grads), (meant, own, theirs) in zip(found, expected, strict=True):
        torch.testing.assert_close(out, meant, rtol=1e-10, atol=1e-10)
        assert kept.keys() == own.keys()
        assert all(torch.equal(kept[name], own[name]) for name in kept)
        for grad, other in zip(grads, theirs, strict=True):
            torch.testing.assert_close(grad, other, rtol=1e-8, atol=1e-8)


@pytest.fixture
def counter():
    torch.compiler.reset()
    yield CompileCounterWithBackend("aot_eager")
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute")
@pytest.mark.parametrize(
    ("router", "way"),
    [
        ("random_ltd", "wrapped"),
        ("random_ltd", "in place"),
        ("span", "wrapped"),
        ("mixture of depths", "wrapped"),
    ],
)
def test_a_compiled_model_has_one_graph_for_each_level_of_its_pace(counter, router, way):
    gpt, ids = made(length=16), torch.arange(64).view(4, 16) * 7 % 32
    pace = levels(linear(2, 16, steps=21, multiple=2), k=8)
    if router == "mixture of depths":
        router = Fixed()
    expected = steps_of(gpt, gpt, ids, pace, 22, router=router)
    counter.clear()
    compiled = gpt
    if way == "wrapped":
        compiled = torch.compile(gpt, backend=counter, fullgraph=True)
    else:
        gpt.compile(backend=counter, fullgraph=True)
    found = steps_of(gpt, compiled, ids, pace, 22, router=router, check=False)  # as they were before
    same(found, expected)
    assert len({len(next(iter(kept.values()), [[]])[0]) for _, kept, _ in expected}) == 8
    assert counter.frame_count <= 8 + 1


class Fixed:
    """A mixture of depths whose scores are not learned, so both runs have the same."""

    scope, evaluates = "layer", False

    def __call__(self, batch, seq, keep, *, hidden, valid=None):
        scores = hidden.sum(-1)
        ids = routers.top_tokens(scores.detach(), keep)
        return routers.Chosen(ids, weights=scores.gather(1, ids))


def test_sequences_of_any_length_are_compiled_once(counter):
    gpt = made(length=32)
    attach(gpt, keep=4, seed=7)
    compiled = torch.compile(gpt, backend=counter, dynamic=True)
    for length in range(8, 20):
        compiled(torch.randint(0, 32, (4, length))).sum().backward()
        if length == 8:
            compilations = counter.frame_count
    assert counter.frame_count == compilations


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute")
@pytest.mark.parametrize("first", ["attach", "compile"])
@pytest.mark.parametrize("way", ["in place", "wrapped"])
def test_blocks_that_are_compiled_one_by_one_share_their_code(counter, first, way):
    gpt, ids = made(length=16), torch.arange(64).view(4, 16) * 7 % 32
    pace = levels(linear(2, 16, steps=21, multiple=2), k=8)
    expected = steps_of(gpt, gpt, ids, pace, 22)

    def compile_blocks():
        for i, block in enumerate(gpt.blocks):
            if way == "in place":
                block.compile(backend=counter, fullgraph=True)
            else:
                gpt.blocks[i] = torch.compile(block, backend=counter, fullgraph=True)
        gpt(ids)  # before there is a route

    if first == "compile":
        compile_blocks()
        found = steps_of(gpt, gpt, ids, pace, 22)
    else:
        if way == "wrapped":
            pytest.skip("the modules are other ones")
        attach(gpt, keep=3, seed=1).remove()
        compile_blocks()
        found = steps_of(gpt, gpt, ids, pace, 22)
    found = [
        (out, {n.replace("_orig_mod.", ""): own for n, own in kept.items()}, g) for out, kept, g in found
    ]
    same(found, expected)
    assert counter.frame_count <= 8 + 1
    torch.testing.assert_close(gpt(ids), made(length=16)(ids))  # the route is gone


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute")
def test_a_whole_model_is_compiled_after_its_blocks_were(gpt, ids, counter):
    route = attach(gpt, keep=5, seed=7)
    route.step = 0
    expected, kept = gpt(ids), route.kept()
    for block in gpt.blocks:
        block.compile(backend="eager")
    for run in (gpt, torch.compile(gpt, backend=counter, fullgraph=True), gpt):
        route.step = 1
        route.step = 0
        assert torch.equal(run(ids), expected)
        assert all(torch.equal(route.kept()[name], own) for name, own in kept.items())
    route.remove()
    plain = made()(ids)
    assert torch.equal(gpt(ids), plain)
    assert torch.equal(torch.compile(gpt, backend=counter, fullgraph=True)(ids), plain)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute")
def test_a_copy_of_blocks_that_are_compiled_is_routed_where_the_model_would_not_be_the_same(gpt, ids):
    attach(gpt, router=routers.mixture_of_depths(), keep=5, seed=7)
    gpt.eval()
    expected = gpt(ids)
    for block in gpt.blocks:
        block.compile(backend="eager")
    assert torch.equal(gpt(ids), expected)
    assert torch.equal(copy.deepcopy(gpt)(ids), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute")
def test_what_was_compiled_before_is_routed_and_what_is_removed_is_gone(gpt, ids, counter):
    compiled = torch.compile(gpt, backend=counter)
    plain = compiled(ids)
    route = attach(compiled, keep=5, seed=7)
    routed = compiled(ids)
    assert list(route.kept()) == ["blocks.1", "blocks.2", "blocks.3", "blocks.4"]
    assert not torch.allclose(routed, plain)
    assert torch.equal(gpt.eval()(ids), plain)
    gpt.train()
    route.remove()
    assert torch.equal(compiled(ids), plain)


def test_warmup_runs_each_amount_once_from_the_largest_and_changes_nothing(gpt, ids):
    route = attach(gpt, keep=linear(4, 10, steps=6, multiple=2), seed=7)
    route.step = 3
    gpt(ids)
    second = attach(made(), keep=linear(4, 10, steps=6, multiple=2), seed=7)
    second.step = 3
    state, seen = torch.random.get_rng_state(), []

    def run():
        gpt(ids).sum().backward()
        gpt.zero_grad()
        seen.append({own.shape[1] for own in route.kept().values()})
        torch.rand(3)

    assert route.warmup(run) == [10, 8, 6, 4]
    assert seen == [{10}, {8}, {6}, {4}]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert route.step == 3
    gpt(ids)
    own = route.kept()
    other = made()
    expected = attach(other, keep=linear(4, 10, steps=6, multiple=2), seed=7)
    expected.step = 3
    other(ids)
    other(ids)
    assert all(torch.equal(own[name], ids) for name, ids in expected.kept().items())


def test_autocast(gpt, ids):
    gpt = gpt.float()
    route = attach(gpt, keep=5, seed=7)
    exact = gpt(ids)
    route.step = 1
    route.step = 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = gpt(ids)
    assert route.kept().keys() == route.layers.keys()
    torch.testing.assert_close(out.float(), exact, rtol=0.1, atol=0.1)
    out.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in gpt.parameters())


# Several processes


def in_processes(run, *args, tmp_path):
    """`run(rank, *args)` in two processes; what each returns."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        file = f"file://{tmp_path / run.__name__}"
        jobs = [pool.apply_async(_process, (run, rank, file, args)) for rank in range(2)]
        return [job.get(timeout=240) for job in jobs]


def _process(run, rank, file, args):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=file, rank=rank, world_size=2)
    try:
        return run(rank, *args)
    finally:
        distributed.destroy_process_group()


def train(model, route, batches, parameters):
    optimizer = torch.optim.SGD(parameters, lr=0.01)
    losses = []
    for step, micro_batches in enumerate(batches):
        route.step = step
        for ids in micro_batches:
            loss = model(ids).square().mean()
            loss.backward()
            losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    return losses


def batches_of(rank=None):
    """Three steps of two micro-batches of four samples; a rank has every second half."""
    whole = torch.randint(0, 32, (3, 2, 4, SEQ), generator=torch.Generator().manual_seed(1))
    return whole if rank is None else whole[:, :, 2 * rank : 2 * rank + 2]


def whole_of(tensor):
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach()


def with_ddp(rank, attach_first):
    gpt = made()
    route = attach(gpt, keep=PACE, seed=7) if attach_first else None
    model = DistributedDataParallel(gpt)
    route = route or attach(model, keep=PACE, seed=7)
    losses = train(model, route, batches_of(rank), model.parameters())
    return losses, [p.detach() for p in gpt.parameters()]


def with_fsdp(rank, attach_first):
    gpt = made()
    route = attach(gpt, keep=PACE, seed=7) if attach_first else None
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
    for block in gpt.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(gpt, mesh=mesh)
    route = route or attach(gpt, keep=PACE, seed=7)
    losses = train(gpt, route, batches_of(rank), gpt.parameters())
    return losses, [whole_of(p) for p in gpt.parameters()]


@pytest.mark.parametrize("attach_first", [True, False])
@pytest.mark.parametrize("way", [with_ddp, with_fsdp])
def test_two_processes_train_as_one(way, attach_first, tmp_path):
    gpt = made()
    route = attach(gpt, keep=PACE, seed=7)
    expected = train(gpt, route, batches_of(), gpt.parameters())
    results = in_processes(way, attach_first, tmp_path=tmp_path)
    mean = [(a + b) / 2 for a, b in zip(*(losses for losses, _ in results), strict=True)]
    assert mean == pytest.approx(expected, rel=1e-10)
    for _, parameters in results:
        for found, meant in zip(parameters, gpt.parameters(), strict=True):
            torch.testing.assert_close(found, meant.detach(), rtol=1e-9, atol=1e-9)
