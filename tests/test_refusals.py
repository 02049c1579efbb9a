"""What routing would do wrong without a word, and so refuses, or does right."""

import dataclasses
import os
from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.parallel import DistributedDataParallel

from dataeff import routers
from dataeff.routing import attach
from dataeff.routing._probe import Looks

SEQ, WIDTH = 12, 8


class Block(nn.Module):
    """Attention and a feed-forward layer, with their residuals."""

    def __init__(self):
        super().__init__()
        self.norm, self.qkv, self.inner = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 24), nn.Linear(WIDTH, WIDTH)

    def attended(self, x, mask=None):
        q, k, v = self.qkv(self.norm(x))[:, None].chunk(3, -1)
        return scaled_dot_product_attention(q, k, v, attn_mask=mask)[:, 0]

    def forward(self, x, mask=None):
        x = x + self.attended(x, mask)
        return x + self.inner(self.norm(x)).tanh()


class Model(nn.Module):
    def __init__(self, make=Block, layers=4):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(make() for _ in range(layers))

    def forward(self, x, *given, **named):
        for block in self.blocks:
            x = block(x, *given, **named)
        return x


@pytest.fixture
def x():
    return torch.randn(3, SEQ, WIDTH, generator=torch.Generator().manual_seed(1))


def half(batch=3):
    """Half of each row are tokens, the rest is padding."""
    return (torch.arange(SEQ) < SEQ // 2).expand(batch, -1)


# What has no effect at first


class Biased(Block):
    """A relative bias of its own, of zeros at first."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(2 * SEQ))

    def forward(self, x):
        places = torch.arange(x.shape[1])
        x = x + self.attended(x, self.bias[places[:, None] - places + SEQ])
        return x + self.inner(self.norm(x))


def test_a_bias_that_is_zero_at_first_is_noticed_once_it_is_learned(x):
    model = Model(Biased)
    route = attach(model, keep=4, seed=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def train():
        for step in range(9):
            route.step = step
            (model(x) * torch.linspace(-1, 1, SEQ)[:, None]).sum().backward()
            optimizer.step()

    with pytest.raises(ValueError, match=r"layer 'blocks.\d' knows by itself where its tokens stand"):
        train()
    assert route.step > 0


def test_lengths_that_are_full_in_the_first_batch_are_noticed_later(x):
    class Lengths(Block):
        def forward(self, x, lengths):
            mask = torch.arange(x.shape[1]) < lengths[:, None]
            return super().forward(x, mask[:, None, None])

    model = Model(Lengths)
    attach(model, keep=4, seed=1)
    model(x, torch.full((3,), SEQ))
    with pytest.raises(ValueError, match="layer 'blocks.1' knows by itself where its tokens stand"):
        model(x, torch.tensor([SEQ, 6, 5]))


def test_looks_become_rare_and_begin_anew_with_longer_sequences():
    looks, seen = Looks(), []
    for step in range(100):
        looks.at("h.1", 16 if step < 50 else 32, lambda step=step: seen.append(step))
    assert seen == [0, 1, 3, 7, 15, 31, 50, 51, 53, 57, 65, 81]
    for _ in range(3):  # one that is refused is looked at in each pass
        with pytest.raises(ZeroDivisionError):
            looks.at("h.2", 16, lambda: 1 / 0)


# Masks that mean the opposite


class KeysAsKept(Block):
    def forward(self, x, key_padding_mask):
        return super().forward(x, key_padding_mask[:, None, None])


class MaskedIsTrue(Block):
    def forward(self, x, attention_mask):
        return super().forward(x, ~attention_mask)


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (KeysAsKept, {"key_padding_mask": half()}),
        (MaskedIsTrue, {"attention_mask": ~(half()[:, None, None] & torch.ones(SEQ, SEQ).tril().bool())}),
    ],
)
def test_a_mask_that_means_the_opposite_is_noticed(x, make, given):
    model = Model(make)
    attach(model, keep=4, seed=1)
    with pytest.raises(
        ValueError, match=r"'blocks.1' attends to the tokens that its mask seems to call padding"
    ):
        model(x, **given)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_mask_that_means_what_it_says_is_taken(x, side):
    class Usual(Block):
        def forward(self, x, attention_mask):
            return super().forward(x, attention_mask[:, None, None])

    model, mask = Model(Usual), half() if side == "right" else half().flip(1)
    route = attach(model, keep=4, seed=1)
    model(x, attention_mask=mask)
    assert all(mask.gather(1, ids.long()).all() for ids in route.kept().values())


# Residuals outside


class Bare(nn.Module):
    """Without a residual."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.inner(x).tanh() @ torch.eye(WIDTH) + x.mean(1, keepdim=True)


class Outside(nn.Module):
    def __init__(self, way, make=Bare):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(make() for _ in range(4))
        self.norm, self.inject, self.way = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), way

    def rms(self, x):
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * self.norm.weight

    def forward(self, x):
        first = x = x * 1
        for block in self.blocks:
            x = self.way(self, block, x, first)
        return x


WRONG = {
    "norm before": lambda m, block, x, _: x + block(m.norm(x)),
    "norm written out": lambda m, block, x, _: x + block(m.rms(x)),
    "norms around": lambda m, block, x, _: m.norm(block(m.norm(x))) + x,
    "norm after": lambda m, block, x, _: m.norm(x + block(m.norm(x))),
    "scaled": lambda m, block, x, _: 0.5 * x + 0.5 * block(m.norm(x)),
    "plain": lambda m, block, x, _: x + block(x),
}


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("way", WRONG)
def test_a_residual_outside_of_blocks_is_noticed(x, way, in_place):
    model = Outside(WRONG[way])
    attach(model, keep=4, seed=1, in_place=in_place)
    said = (
        "the input of layer 'blocks.1' is added to its output outside of it|went into a routed layer, which"
    )
    with pytest.raises((ValueError, RuntimeError), match=said):
        model(x)


RIGHT = {
    "blocks alone": lambda m, block, x, _: block(x),
    "something else is added": lambda m, block, x, first: block(x) + m.inject(first),
    "to its input, too": lambda m, block, x, first: block(x + m.inject(first)),
    "an adapter between blocks": lambda m, block, x, _: (lambda y: y + m.inject(y))(block(x)),
    "norms between blocks": lambda m, block, x, _: m.rms(block(x)),
}


@pytest.mark.parametrize("way", RIGHT)
def test_what_is_added_between_blocks_is_no_residual(x, way):
    model = Outside(RIGHT[way], make=Block)
    route = attach(model, keep=4, seed=1, in_place=False)
    model(x).sum().backward()
    assert len(route.kept()) == 2


# Blocks that write into what they get


class Shifted(Block):
    def forward(self, x):
        return super().forward(x + self.inner.bias)


class InPlace(Block):
    def forward(self, x):
        x += self.inner.bias
        return super().forward(x)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("router", ["random_ltd", "tome", "mixture_of_depths", "span"])
def test_blocks_may_write_into_what_they_get(x, router, grad):
    found = []
    for make in (Shifted, InPlace):
        model = Model(make)
        torch.manual_seed(1)  # of a router's weights
        attach(model, router=router, keep=4, seed=1)
        with torch.set_grad_enabled(grad):
            out = model(x * 1)
        if grad:
            out.square().sum().backward()
        found.append([out.detach(), *(p.grad for p in model.parameters() if grad)])
    for plain, own in zip(*found, strict=True):
        torch.testing.assert_close(own, plain)


# Segments of several layers


@pytest.mark.parametrize("frozen", [1, 2, 3, 4])
@pytest.mark.parametrize("router", ["span", "patch_dropout"])
def test_layers_of_a_segment_may_be_in_evaluation_mode(x, router, frozen):
    def run(frozen):
        model = Model(layers=6)
        route = attach(model, router=router, keep=4, seed=1)
        if frozen is not None:
            model.blocks[frozen].eval()  # without dropout it makes no difference
        return model(x), route.kept()

    out, kept = run(frozen)
    expected, _ = run(None)
    if router == "span" and frozen == 1:  # the first begins none
        assert out.shape == expected.shape
        return
    torch.testing.assert_close(out, expected)
    assert f"blocks.{frozen}" in kept


@pytest.mark.parametrize(
    ("router", "layers", "said"),
    [
        (
            "span",
            [1, 3],
            "'blocks.2' is not among the layers, and span.* stands after 'blocks.1': .* up to the",
        ),
        (
            "patch_dropout",
            [1, 2],
            "'blocks.3' is not among the layers, and patch_dropout.* blocks from there on",
        ),
    ],
)
def test_blocks_that_would_get_kept_tokens_unasked_are_refused(router, layers, said):
    model = Model(layers=5)
    with pytest.raises(ValueError, match=said):
        attach(model, router=router, keep=4, seed=1, layers=[model.blocks[i] for i in layers])
    assert not any(block._forward_pre_hooks for block in model.blocks)
    attach(model, router="span", keep=4, seed=1, layers=[*model.blocks[1:3]])


# Arguments that are objects


@dataclasses.dataclass(frozen=True)
class Context:
    mask: torch.Tensor
    name: str = "context"


class Told:
    def __init__(self, mask):
        self.mask = mask


class Contextual(Block):
    def forward(self, x, context):
        return super().forward(x, context.mask[:, None, None])


@pytest.mark.parametrize("kind", [Context, lambda mask: SimpleNamespace(mask=mask)])
def test_what_stands_in_a_dataclass_is_cut(x, kind):
    model, mask = Model(Contextual), half()
    context = kind(mask)
    route = attach(model, keep=4, seed=1)
    with pytest.raises(ValueError, match=r"the argument 'context' has shape \(3, 12\) and looks aligned"):
        model(x, context)
    route.remove()
    route = attach(model, keep=4, seed=1, token_args={"context": 1})
    out, kept = model(x, context), route.kept()
    assert context.mask is mask
    route.remove()
    rows = []
    for b in range(3):
        row = x[b : b + 1]
        for i, block in enumerate(model.blocks):
            ids = kept[f"blocks.{i}"][b].long() if f"blocks.{i}" in kept else torch.arange(SEQ)
            row = row.index_copy(1, ids, block(row[:, ids], Context(mask[b : b + 1, ids])))
        rows.append(row)
    torch.testing.assert_close(out, torch.cat(rows))


def test_another_object_that_holds_something_of_the_tokens_is_refused_unless_it_is_declared(x):
    model = Model(Contextual)
    route = attach(model, keep=4, seed=1)
    said = (
        r"the argument 'context' is a Told, whose 'mask' has shape \(3, 12\) and looks aligned .* a function"
    )
    with pytest.raises(ValueError, match=said):
        model(x, Told(half()))
    route.remove()
    cut = {"context": lambda told, ids: Told(told.mask.gather(1, ids.long().expand(3, -1)))}
    attach(model, keep=4, seed=1, token_args=cut)
    assert model(x, Told(half())).shape == x.shape


# Generation, compilers, processes


def test_generation_in_training_mode_is_refused():
    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    model = transformers.LlamaForCausalLM(config).train()
    attach(model, keep=4, seed=1)
    prompt = torch.randint(3, 32, (2, SEQ))
    options = {"max_new_tokens": 2, "do_sample": False}
    with pytest.raises(
        ValueError, match=r"is given, a cache of keys and values, .* generate in evaluation mode"
    ):
        model.generate(prompt, **options)
    assert model.eval().generate(prompt, **options).shape == (2, SEQ + 2)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own, while it compiles
def test_a_model_that_is_compiled_before_its_layers_were_tried_is_told_of_once(x):
    model = Model()
    route = attach(model, keep=4, seed=1)
    compiled = torch.compile(model, backend="eager")
    route.step = 0
    compiled(x)
    with pytest.warns(UserWarning, match="compiled before any of them was tried, .* run one step without"):
        route.step = 1
    compiled(x)
    route.step = 2
    torch.compiler.reset()
    other = Model()
    route = attach(other, keep=4, seed=1)
    for step, run in enumerate((other, torch.compile(other, backend="eager"), other)):
        route.step = step
        run(x)


@pytest.fixture
def alone(tmp_path):
    """A process that is one of one."""
    before = os.environ.get("GLOO_SOCKET_IFNAME")
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()
    if before is None:
        del os.environ["GLOO_SOCKET_IFNAME"]
    else:
        os.environ["GLOO_SOCKET_IFNAME"] = before


LATE = r"mixture_of_depths\(.*\) adds a parameter to each layer, of which .*: attach first"


@pytest.mark.usefixtures("alone")
def test_a_router_with_parameters_comes_before_ddp(x):
    options = {"router": routers.mixture_of_depths(), "keep": 4, "seed": 1}
    model = DistributedDataParallel(Model())
    with pytest.raises(ValueError, match=LATE):
        attach(model, **options)
    attach(model.module, **options)  # which is not seen before it runs
    with pytest.raises(RuntimeError, match=LATE):
        model(x)
    model = Model()
    attach(model, **options)
    DistributedDataParallel(model)(x).sum().backward()


@pytest.mark.usefixtures("alone")
def test_a_router_with_parameters_comes_before_fsdp():
    model = Model()
    fully_shard(model, mesh=distributed.device_mesh.init_device_mesh("cpu", (1,)))
    with pytest.raises(ValueError, match=LATE):
        attach(model, router="mixture_of_depths", keep=4, seed=1)
    attach(model, keep=4, seed=1)
