"""What layers processed, against hooks of the tests' own; and what it cost, against torch's counter."""

import pickle
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
    rows, tokens, layers = 0, 0, {}
    for step in range(steps):
        route.step = step
        run(step)
        done = route.processed()
        rows, tokens = rows + done.rows, tokens + done.tokens
        for name, more in done.layers.items():
            before = layers.get(name, (0, 0))
            layers[name] = before[0] + more[0], before[1] + more[1]
    route.remove()
    count.remove()
    return Processed(rows, tokens, layers), count.layers


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


def test_a_model_s_own_tokens_are_those_of_its_ids_wherever_they_are_given():
    class Batched(nn.Module):
        def __init__(self):
            super().__init__()
            self.gpt = made()

        def forward(self, mask, batch):
            return self.gpt(batch["ids"])

    model = Batched()
    route = attach(model, keep=4, seed=7)
    model(torch.ones(4, 1, 16, 16), {"labels": torch.ones(4), "ids": IDS})
    done = route.processed()
    assert (done.rows, done.tokens) == (4, 64)


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


@pytest.mark.gpu
def test_a_model_that_is_compiled_for_a_device_counts_there():
    torch.compiler.reset()
    gpt, ids = made().cuda(), IDS.cuda()

    def run_with(call):
        clock, route = Clock(), attach(gpt, keep=pacing.linear(4, 16, steps=3, multiple=4), seed=7)
        for step in range(4):
            route.step = step
            call(ids).sum().backward()
            clock.tick(samples=4, tokens=64, route=route)
        route.remove()
        return clock.layer_tokens

    assert run_with(torch.compile(gpt, fullgraph=True)) == run_with(gpt)


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
    assert route.processed().layers["blocks.1"] == (16, 64)
    torch.compiler.reset()


def test_passes_before_a_step_is_set_are_not_counted_into_it():
    gpt, clock = made(), Clock()
    route = attach(gpt, keep=4, seed=7)
    gpt(IDS)
    route.step = 0
    gpt(IDS[:1])
    clock.tick(samples=1, tokens=16, route=route)
    assert clock.layer_tokens == 2 * 16 + 4 * 4
    with pytest.raises(ValueError, match="the route processed nothing in this step: tick after the forward"):
        clock.tick(samples=1, tokens=16, route=route)
    assert clock.steps == 1


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
    assert route.keep_at(16, Clock(tokens=320)) == 8
    with pytest.raises(ValueError, match="keep is paced by tokens, and there is no clock to read: set route"):
        route.keep_at(16, 320)
    twin = pickle.loads(pickle.dumps(route))  # noqa: S301
    with pytest.raises(ValueError, match="there is no clock to read: set route.clock"):
        twin.step = 900
    twin.clock = Clock(tokens=640)
    twin.step = 900
    assert twin.keep_at(16) == 12
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


def test_measuring_leaves_gradients_modes_and_the_global_state_alone():
    gpt = made()
    gpt(IDS).square().sum().backward()
    grads = [weight.grad for weight in gpt.parameters()]
    before, state = [grad.clone() for grad in grads], torch.random.get_rng_state()
    with torch.no_grad():
        flops.measured(gpt, IDS[:1])
    assert all(weight.grad is grad for weight, grad in zip(gpt.parameters(), grads, strict=True))
    assert all(torch.equal(*pair) for pair in zip(before, grads, strict=True))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.backends.mha.get_fastpath_enabled()
    assert not any("forward" in vars(module) for module in gpt.modules())


def test_inputs_with_a_gradient_keep_theirs():
    x = torch.randn(1, 8, 32, requires_grad=True)
    cost = flops.measured(MODELS["encoder"][0]()[1], x)
    assert x.grad is None
    assert cost.layers["layers.0"] == flops.transformer(width=32, feedforward=64).layers["*"]


TWO_STACKS = {
    "t5": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=61, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0
        )
    ),
    "bart": lambda: transformers.BartForConditionalGeneration(
        transformers.BartConfig(
            vocab_size=61,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=64,
            forced_eos_token_id=None,
        )
    ),
}


@pytest.mark.parametrize("lengths", [(16, 16), (16, 8), (9, 14)])
@pytest.mark.parametrize("name", TWO_STACKS)
def test_an_encoder_and_a_decoder_cost_what_each_of_their_blocks_does(name, lengths):
    torch.manual_seed(0)
    model = TWO_STACKS[name]().eval()
    ids = {
        of: torch.randint(3, 61, (1, length))
        for of, length in zip(("input_ids", "decoder_input_ids"), lengths, strict=True)
    }
    cost = flops.measured(model, **ids)
    seen = {
        block: (length, length**2)
        for block in named_blocks(model)
        for length in [lengths["decoder" in block]]
    }
    total = counter_of(lambda: model(**ids).logits.square().sum().backward())
    assert cost(Processed(1, lengths[0], seen)) == pytest.approx(total, rel=0.005)

    width, inner, (source, target) = 32, 64, lengths
    head = 6 * width * 61 * target
    encoder = 6 * (4 * width**2 + 2 * width * inner) * source + 12 * width * source**2
    decoder = 6 * (6 * width**2 + 2 * width * inner) * target + 12 * width * target * (source + target)
    decoder += 6 * 2 * width**2 * source  # keys and values of the encoder's tokens
    assert total == pytest.approx(2 * encoder + 2 * decoder + head, rel=0.005)
    if source == target:
        assert cost.token == pytest.approx(6 * width * 61, rel=0.005)
        assert [
            sum(a * b for a, b in zip(cost.layers[block], seen[block], strict=True)) for block in seen
        ] == [pytest.approx(of, rel=0.005) for of in (encoder, encoder, decoder, decoder)]


def test_frozen_blocks_cost_their_forward_pass():
    torch.manual_seed(0)
    encoder = MODELS["encoder"][0]()
    encoder[0].requires_grad_(False)
    encoder[1].layers[:2].requires_grad_(False)
    cost = flops.measured(encoder, torch.randint(61, (1, 16)))
    weights, pairs = flops.transformer(width=32, feedforward=64).layers["*"]
    for frozen in ("1.layers.0", "1.layers.1"):
        assert cost.layers[frozen] == (weights // 3, pairs // 3)
    assert cost.layers["1.layers.3"] == (weights, pairs)
    first = cost.layers["1.layers.2"]  # takes no gradient of its input
    assert weights * 2 / 3 < first[0] < weights
    assert first[1] == pairs


class Batched(nn.Module):
    """Attention on projections by einsum, and experts in a batch."""

    def __init__(self, width=16, heads=2, experts=4, inner=24):
        super().__init__()
        self.qkv = nn.Parameter(torch.randn(3, width, heads, width // heads))
        self.out = nn.Parameter(torch.randn(heads, width // heads, width))
        self.up = nn.Parameter(torch.randn(experts, width, inner))
        self.down = nn.Parameter(torch.randn(experts, inner, width).double())
        self.bias = nn.Parameter(torch.randn(experts, 1, width))

    def forward(self, x):
        q, k, v = torch.einsum("bsc,pchd->pbhsd", x, self.qkv)
        x = x + torch.einsum("bhsd,hdc->bsc", (q @ k.mT).softmax(-1) @ v, self.out)
        inside = torch.bmm(x.flatten(0, 1).expand(len(self.up), -1, -1), 2 * self.up).relu()
        return x + torch.baddbmm(self.bias, inside, self.down.float()).sum(0).view(x.shape)


@pytest.mark.parametrize("seq", [5, 8, 16, 64])
def test_batched_products_with_weights_cost_a_token(seq):
    x = torch.randn(1, seq, 16, requires_grad=True)
    cost = flops.measured(nn.Sequential(Batched(), Batched()), x)
    assert set(cost.layers.values()) == {(6 * (4 * 16 * 16 + 4 * 2 * 16 * 24), 12 * 16)}


def in_gloo(model):
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    return nn.parallel.DistributedDataParallel(model)


@pytest.mark.parametrize("around", [in_gloo, lambda model: torch.compile(model, backend="eager")])
def test_names_are_those_of_the_model_inside(around):
    gpt = made()
    plain = flops.measured(gpt, IDS[:1])
    try:
        whole = around(gpt)
        inside = "module" if around is in_gloo else "_orig_mod"
        assert flops.measured(whole, IDS[:1]) == plain
        named = flops.measured(whole, IDS[:1], layers=[f"{inside}.blocks.0", "blocks.1"])
        assert list(named.layers) == [f"{inside}.blocks.0", "blocks.1"]
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def test_compiled_blocks_are_measured_as_plain_ones():
    torch.compiler.reset()
    gpt = made(layers=3)
    plain = flops.measured(gpt, IDS[:1])
    for block in gpt.blocks:
        block.compile(backend="eager")
    gpt(IDS)
    assert flops.measured(gpt, IDS[:1]) == plain
    torch.compiler.reset()


class Always(nn.Module):
    """Checkpoints its blocks in evaluation mode, too."""

    def __init__(self, reentrant):
        super().__init__()
        self.gpt, self.reentrant = MODELS["encoder"][0](), reentrant

    def forward(self, ids):
        x = self.gpt[0](ids)
        for block in self.gpt[1].layers:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return x


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_model_that_is_checkpointed_in_evaluation_too_is_refused(reentrant):
    layer = "a layer" if reentrant else "layer 'gpt.1.layers.3'"
    with pytest.raises(ValueError, match=f"{layer} is checkpointed; measure with checkpointing off"):
        flops.measured(Always(reentrant), IDS[:1])


class Fixed(nn.Module):
    """Positions for one length alone."""

    def __init__(self):
        super().__init__()
        self.gpt, self.places = MODELS["encoder"][0](), nn.Parameter(torch.zeros(16, 32))
        self.head = nn.Linear(32, 61)

    def forward(self, ids):
        return self.head(self.gpt[1](self.gpt[0](ids) + self.places))


def test_what_cannot_be_cut_costs_a_row():
    cost = flops.measured(Fixed(), IDS[:1])
    assert (cost.token, cost.row) == (0, 6 * 32 * 61 * 16)


def test_attention_outside_of_the_layers_costs_a_token_at_the_measured_length():
    gpt, seen = made(), {"blocks.0": (16, 256)}
    whole = flops.measured(gpt, IDS[:1])
    one = flops.measured(gpt, IDS[:1], layers=["blocks.0"])
    assert one.row < 16
    everything = dict.fromkeys(whole.layers, (16, 256))
    assert one(Processed(1, 16, seen)) == whole(Processed(1, 16, everything))


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
    for name in ("width", "feedforward", "heads", "key_value_heads", "head_width"):
        with pytest.raises(ValueError, match=f"{name} is 0; expected a whole number of at least 1"):
            flops.transformer(**({"width": 32} | {name: 0}))
    gpt.requires_grad_(False)
    with pytest.raises(ValueError, match="no output of the GPT has a gradient; let some of its parameters"):
        flops.measured(gpt, IDS[:1])


@pytest.mark.parametrize(
    ("inputs", "layers", "words"),
    [
        ((3,), None, r"tensors of the shapes \[\]; expected what the GPT is called with, one row of tokens"),
        (
            (IDS[0],),
            None,
            r"tensors of the shapes \[\(16,\)\]; expected .* \(B, S\): .*, of one row ids\[None\]",
        ),
        ((IDS[:0],), None, r"tensors of the shapes \[\(0, 16\)\]; expected what"),
        (
            (IDS[:1],),
            "blocks.0",
            r"layers is 'blocks.0'; expected a list of names: write layers=\['blocks.0'\]",
        ),
        ((IDS[:1],), ["blocks", "blocks.0"], "layer 'blocks.0' is in layer 'blocks'; leave one of them out"),
        ((IDS[:1],), ["blocks"], "layer 'blocks' was given no tokens; expected inputs that"),
    ],
)
def test_what_is_no_input_and_no_layer_is_refused(inputs, layers, words):
    with pytest.raises(ValueError, match=words):
        flops.measured(made(), *inputs, layers=layers)


def test_inference_mode_is_refused():
    with torch.inference_mode(), pytest.raises(ValueError, match="inference mode is on; measure outside of"):
        flops.measured(made(), IDS[:1])


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


def test_blocks_that_are_called_by_keywords_with_the_mask_first_are_counted_by_their_hidden_states():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x, attention_mask):
            return x + self.linear(x)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(Masked() for _ in range(4))

        def forward(self, x):
            for layer in self.layers:
                x = layer(attention_mask=torch.ones(2, 1, 12, 12), x=x)
            return x

    model, x = Model(), torch.randn(2, 12, 8)
    route = attach(model, keep=6, seed=1)
    model(x)
    layers = route.processed().layers
    assert layers["layers.0"] == (2 * 12, 2 * 12 * 12)
    assert layers["layers.1"] == (2 * 6, 2 * 6 * 6)
    route.remove()
    cost = flops.measured(model, x[:1])
    assert (
        cost(Processed(2, 24, {f"layers.{i}": (24, 288) for i in range(4)})) == 24 * (4 + 3 * 6) * 64
    )  # of the first, x has no gradient
