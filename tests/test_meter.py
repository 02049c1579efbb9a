"""What layers processed, against hooks of the tests' own; and what it cost, against torch's counter."""

import random

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from dataeff import Clock, flops, pacing
from dataeff.clock import Processed
from dataeff.demo._model import GPT
from dataeff.routing import attach, named_blocks

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore:The .grad attribute"
)

IDS = torch.arange(64).view(4, 16) * 7 % 32


def made(layers=6, length=16, width=16, heads=2):
    torch.manual_seed(0)
    return GPT(vocabulary=32, length=length, width=width, heads=heads, layers=layers)


class Count:
    """What goes into each block, by a hook that stands behind the route's."""

    def __init__(self, blocks, batch_first=True):
        self.layers, self.batch_first = dict.fromkeys(blocks, (0, 0)), batch_first
        self.hooks = [
            block.register_forward_pre_hook(
                lambda _, args, kwargs, name=name: self.add(name, args, kwargs), with_kwargs=True
            )
            for name, block in blocks.items()
        ]

    def add(self, name, args, kwargs):
        if torch._C._current_graph_task_id() != -1:
            return
        x = args[0] if args else kwargs["hidden_states"]
        rows, seq = x.shape[:2] if self.batch_first else x.shape[:2][::-1]
        tokens, pairs = self.layers[name]
        self.layers[name] = tokens + rows * seq, pairs + rows * seq * seq

    def remove(self):
        for hook in self.hooks:
            hook.remove()


def counted(model, run, steps, **options):
    """What a route says it processed, and what the hooks do."""
    route = attach(model, seed=7, **options)
    count = Count(named_blocks(model), route.batch_first)
    for step in range(steps):
        route.step = step
        run(step)
    route.remove()
    count.remove()
    return route.processed(), count.layers


@pytest.mark.parametrize("router", ["random_ltd", "span", "patch_dropout", "tome", "mixture_of_depths"])
def test_every_router_s_layers_are_counted_by_what_they_processed(router):
    gpt = made()
    done, layers = counted(
        gpt,
        lambda step: gpt(IDS[:, : 8 + step]).sum().backward(),
        6,
        router=router,
        keep=pacing.linear(4, 14, steps=5, multiple=2),
        check=router != "tome",  # which is refused in a causal model
    )
    assert dict(done.layers) == layers
    out = done.layers["blocks.5"][0] if router == "patch_dropout" else 4 * sum(range(8, 14))
    assert (done.rows, done.tokens) == (24, out)
    assert done.layer_tokens == sum(tokens for tokens, _ in layers.values())


def test_micro_batches_of_any_shape_add_up_and_counting_begins_anew_when_taken():
    gpt = made()
    route = attach(gpt, keep=4, seed=7)
    gpt(IDS).sum().backward()
    gpt(IDS[:1, :3]).sum().backward()
    done = route.processed()
    assert done.layers["blocks.0"] == (64 + 3, 4 * 256 + 9)
    assert done.layers["blocks.1"] == (16 + 3, 4 * 16 + 9)
    assert route.processed().layer_tokens == 0
    gpt.eval()(IDS)
    assert route.processed() == Processed(0, 0, dict.fromkeys(done.layers, (0, 0)))


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_checkpointing_runs_again_counts_once(reentrant):
    gpt = made()

    def run(step):
        x = gpt.tokens(IDS) + gpt.positions.weight
        for block in gpt.blocks:
            x = checkpoint(block, x, use_reentrant=reentrant)
        x.sum().backward()

    done, layers = counted(gpt, run, 2, keep=5)
    assert dict(done.layers) == layers
    assert layers["blocks.2"] == (2 * 4 * 5, 2 * 4 * 25)


def test_a_sequence_first_model_is_counted_the_same():
    layer = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0)
    model = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    x = torch.randn(11, 3, 16)
    done, layers = counted(model, lambda _: model(x).sum().backward(), 2, keep=5)
    assert dict(done.layers) == layers
    assert layers["layers.1"] == (2 * 3 * 5, 2 * 3 * 25)


def test_both_stacks_of_an_encoder_and_a_decoder_are_counted_at_their_own_lengths():
    config = transformers.T5Config(
        vocab_size=61, d_model=16, d_kv=8, d_ff=24, num_layers=4, num_heads=2, decoder_start_token_id=0
    )
    model = transformers.T5ForConditionalGeneration(config).train()
    ids = torch.ones(3, 11, dtype=torch.int64)
    done, layers = counted(
        model,
        lambda _: model(input_ids=ids, labels=ids[:, :7].clone()).loss.backward(),
        2,
        keep=5,
        router="random_ltd",
    )
    assert dict(done.layers) == layers
    assert done.layers["encoder.block.0"][0] == 2 * 3 * 11
    assert done.layers["decoder.block.0"][0] == 2 * 3 * 7


@pytest.mark.parametrize("way", ["whole", "dynamic", "blocks"])
def test_compiled_models_count_and_are_not_compiled_more_often(way):
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    keep = pacing.levels(pacing.linear(2, 16, steps=21, multiple=2), k=8)

    def run_with(call):
        clock, route = Clock(), attach(gpt, keep=keep, seed=7)
        for step in range(22):
            route.step = step
            for i in range(2):
                call((IDS + i) % 32).sum().backward()
            clock.tick(samples=8, tokens=128, route=route)
        route.remove()
        return clock.layer_tokens

    gpt = made()
    expected = run_with(gpt)
    counter.clear()
    if way == "blocks":
        for block in gpt.blocks:
            block.compile(backend=counter, fullgraph=True)
        found = run_with(gpt)
    else:
        dynamic = way == "dynamic" or None
        found = run_with(torch.compile(gpt, backend=counter, fullgraph=True, dynamic=dynamic))
    torch.compiler.reset()
    assert found == expected
    assert 1 <= counter.frame_count <= 8 + (2 if way == "dynamic" else 1)  # as without counting


def test_a_chain_of_what_compiled_code_saw_is_gone_at_the_next_step():
    torch.compiler.reset()
    gpt = made(layers=3)
    route = attach(gpt, keep=4, seed=7)
    run = torch.compile(gpt, backend="eager", fullgraph=True)
    for step in range(5):
        route.step = step
        assert route._meter._last.before is None
        run(IDS)
        assert route._meter._last.before is not None
    assert route.processed().layers["blocks.1"] == (5 * 16, 5 * 64)
    torch.compiler.reset()


def test_warmup_counts_nothing():
    gpt = made()
    route = attach(gpt, keep=pacing.linear(4, 8, steps=2, multiple=2), seed=7)
    route.step = 0
    gpt(IDS)
    before = route._meter
    assert route.warmup(lambda: gpt(IDS).sum().backward()) == [8, 6, 4]
    assert route._meter is before
    assert route.processed().rows == 4


# Paces on other axes


def test_a_pace_on_tokens_is_read_from_the_clock_when_the_step_is_set():
    gpt, clock = made(), Clock()
    route = attach(gpt, keep=pacing.linear(4, 12, steps=640, multiple=4, on="tokens"), seed=7, clock=clock)
    kept = []
    for step in range(12):
        route.step = step
        gpt(IDS)
        clock.tick(samples=4, tokens=64, route=route)
        kept.append(len(route.kept()["blocks.1"][0]))
    assert kept == [4, 4, 4, 4, 4, 8, 8, 8, 8, 8, 12, 12]
    with pytest.raises(ValueError, match=r"keep is paced by tokens, and there is no clock.*attach\(.*clock="):
        attach(made(), keep=pacing.linear(4, 12, steps=640, on="tokens"), seed=7)


# FLOPs


def counter_of(run):
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


SMALL = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
MODELS = {
    "gpt2": (
        lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=61, n_embd=32, n_layer=4, n_head=4, n_positions=64)
        ),
        flops.transformer(width=32, vocabulary=61),
    ),
    "llama": (
        lambda: transformers.LlamaForCausalLM(
            transformers.LlamaConfig(**SMALL, num_key_value_heads=2, intermediate_size=88)
        ),
        flops.transformer(width=32, heads=4, key_value_heads=2, feedforward=88, gated=True, vocabulary=61),
    ),
    "bert": (
        lambda: transformers.BertModel(
            transformers.BertConfig(**SMALL, intermediate_size=128), add_pooling_layer=False
        ),
        flops.transformer(width=32),
    ),
    "encoder": (
        lambda: nn.Sequential(
            nn.Embedding(61, 32),
            nn.TransformerEncoder(
                nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 4, enable_nested_tensor=False
            ),
        ),
        flops.transformer(width=32, feedforward=64),
    ),
    "demo": (
        lambda: GPT(vocabulary=61, length=64, width=32, heads=4, layers=4),
        flops.transformer(width=32, vocabulary=61),
    ),
    "vit": (
        lambda: transformers.ViTForImageClassification(
            transformers.ViTConfig(
                hidden_size=32,
                num_hidden_layers=4,
                num_attention_heads=4,
                intermediate_size=64,
                image_size=32,
                patch_size=4,
            )
        ),
        None,
    ),
}


def loss_of(model, inputs):
    out = model(inputs)
    out = out if isinstance(out, torch.Tensor) else out[0]
    return out.square().sum()


@pytest.mark.parametrize("keep", [64, 10])
@pytest.mark.parametrize("name", MODELS)
def test_costs_are_what_torch_counts(name, keep):
    make, formula = MODELS[name]
    torch.manual_seed(0)
    model = make().train()
    inputs = torch.randn(2, 3, 32, 32) if name == "vit" else torch.randint(61, (2, 48))
    before = {path: module.training for path, module in model.named_modules()}
    cost = flops.measured(model, inputs[:1])
    assert before == {path: module.training for path, module in model.named_modules()}
    assert all(weight.grad is None for weight in model.parameters())

    route = attach(model, keep=keep, seed=7)
    loss_of(model, inputs)  # the check of layers, which runs them twice, is done
    route.processed()
    total = counter_of(lambda: loss_of(model, inputs).backward())
    done = route.processed()
    assert cost(done) == pytest.approx(total, rel=0.005)
    if formula is not None:
        assert formula(done) == pytest.approx(total, rel=0.005)


def test_measuring_with_a_route_on_counts_all_tokens():
    gpt = made()
    plain = flops.measured(gpt, IDS[:1])
    attach(gpt, keep=4, seed=7).step = 0
    assert flops.measured(gpt, IDS[:1]) == plain


def test_what_cannot_be_costed_is_refused():
    gpt = made()
    with pytest.raises(ValueError, match="'blocks.9' is no module of the GPT"):
        flops.measured(gpt, IDS[:1], layers=["blocks.9"])
    with pytest.raises(
        ValueError, match="the cost of layer 'h.1' is not known, only of h.0; measure it with"
    ):
        flops.Cost({"h.0": (1, 1)})(Processed(1, 1, {"h.1": (1, 1)}))
    with pytest.raises(ValueError, match="heads is 3 and width 32; expected a divisor, or head_width"):
        flops.transformer(width=32, heads=3)
    gpt.requires_grad_(False)
    with pytest.raises(ValueError, match="no output of the GPT has a gradient"):
        flops.measured(gpt, IDS[:1])


def configuration(draw):
    return {
        "layers": draw.randint(1, 3),
        "skip": draw.choice([(0, 0), (1, 1), (1, 0)]),
        "seq": [draw.randint(2, 24) for _ in range(draw.randint(1, 2))],
        "batch": [draw.randint(1, 4) for _ in range(draw.randint(1, 2))],
        "start": draw.randint(1, 24),
        "end": draw.randint(1, 24),
        "router": draw.choice(["random_ltd", "span", "patch_dropout", "mixture_of_depths"]),
    }


@pytest.mark.parametrize("seed", range(200))
def test_the_clock_is_what_hooks_in_every_layer_count(seed):
    """Curriculum on the length, routing, micro-batches: tokens, layer tokens exactly, FLOPs within 1 %."""
    run = configuration(random.Random(seed))
    gpt = made(layers=run["layers"] + sum(run["skip"]), length=24, width=32)
    cost, clock = flops.transformer(width=32, vocabulary=32), Clock()
    keep = pacing.linear(run["start"], run["end"], steps=3, multiple=1)
    route = attach(gpt, router=run["router"], keep=keep, skip=run["skip"], seed=1, check=False)
    count, tokens, total, gates = Count(named_blocks(gpt)), 0, 0, 0
    for step, seq in enumerate(run["seq"]):
        route.step = step
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            for batch in run["batch"]:
                gpt(torch.arange(batch * seq).view(batch, seq) % 32).square().sum().backward()
                tokens += batch * seq
        total += counter.get_total_flops()
        if run["router"] == "mixture_of_depths" and route.keep_at(seq) < seq:  # a gate is no part of a block
            gates += 6 * 32 * sum(run["batch"]) * seq * run["layers"]
        clock.tick(samples=sum(run["batch"]), tokens=sum(run["batch"]) * seq, route=route, cost=cost)
    assert clock.tokens == tokens
    assert clock.layer_tokens == sum(done for done, _ in count.layers.values())
    assert clock.flops + gates == pytest.approx(total, rel=0.01)
