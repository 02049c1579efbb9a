import collections
import contextvars
import copy
import dataclasses
import io
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import dataeff as de
from dataeff import ops
from dataeff.demo._model import GPT
from dataeff.pacing import constant, linear
from dataeff.routers import random_ltd, span
from dataeff.routing import Kept, attach, travel

SEQ = 12


class Chain(nn.Module):
    """Layers one after the other, each with what else the model is given."""

    def __init__(self, make, layers=4):
        super().__init__()
        self.layers = nn.ModuleList(make() for _ in range(layers))

    def forward(self, x, *given):
        for layer in self.layers:
            x = layer(x, *given)
        return x


class Rotated(nn.Module):
    def forward(self, x, freqs):
        return x * freqs


@pytest.fixture
def gpt():
    torch.manual_seed(0)
    return GPT(vocabulary=32, length=SEQ, width=16, heads=2, layers=5).double()


@pytest.fixture
def ids():
    return torch.randint(0, 32, (3, SEQ), generator=torch.Generator().manual_seed(1))


def gradients(model, ids):
    model.zero_grad()
    out = model(ids)
    out.square().sum().backward()
    return out, [parameter.grad.clone() for parameter in model.parameters()]


def by_hand(model, ids, kept):
    """Each row alone through each block with its own kept tokens."""
    x = model.tokens(ids) + model.positions.weight[: ids.shape[1]]
    for i, block in enumerate(model.blocks):
        if f"blocks.{i}" not in kept:
            x = block(x)
            continue
        rows = []
        for row, own in zip(x, kept[f"blocks.{i}"].long(), strict=True):
            row = row.clone()
            row[own] = block(row[own][None])[0]
            rows.append(row)
        x = torch.stack(rows)
    return model.head(model.norm(x))


def test_only_kept_tokens_go_through_a_routed_layer(gpt, ids):
    route = attach(gpt, keep=5, seed=7)
    route.step = 3
    out, grads = gradients(gpt, ids)
    kept = route.kept()
    assert list(kept) == ["blocks.1", "blocks.2", "blocks.3"]
    assert all(own.shape == (3, 5) for own in kept.values())
    route.remove()
    expected = by_hand(gpt, ids, kept)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    gpt.zero_grad()
    expected.square().sum().backward()
    for grad, parameter in zip(grads, gpt.parameters(), strict=True):
        torch.testing.assert_close(grad, parameter.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("keep", [SEQ, SEQ + 1, 10**6, linear(SEQ, 99, steps=5, multiple=1)])
def test_keeping_all_or_more_is_the_untouched_model_to_the_bit(gpt, ids, keep):
    expected, expected_grads = gradients(gpt, ids)
    route = attach(gpt, keep=keep, seed=7)
    route.step = 0
    out, grads = gradients(gpt, ids)
    assert torch.equal(out, expected)
    assert all(map(torch.equal, grads, expected_grads))
    assert route.kept() == {}


def test_evaluation_is_untouched(gpt, ids):
    gpt.eval()
    expected = gpt(ids)
    route = attach(gpt, keep=3, seed=7)
    assert torch.equal(gpt(ids), expected)
    assert route.kept() == {}


def test_the_ids_depend_on_seed_step_micro_batch_layer_and_row(gpt, ids):
    def kept(seed, step, passes=1):
        route = attach(gpt, keep=6, seed=seed)
        route.step = step
        for _ in range(passes):
            gpt(ids)
        route.remove()
        return {name: own.tolist() for name, own in route.kept().items()}

    base = kept(7, 3)
    assert base == kept(7, 3)
    assert base["blocks.1"] != base["blocks.2"]
    assert base["blocks.1"][0] != base["blocks.1"][1]
    others = [kept(8, 3), kept(7, 4), kept(7, 3, passes=2)]
    assert all(other["blocks.1"] != base["blocks.1"] for other in others)


def test_another_step_begins_with_its_first_micro_batch_and_the_same_one_goes_on(gpt, ids):
    route = attach(gpt, keep=6, seed=7)

    def kept(step):
        route.step = step
        gpt(ids)
        return route.kept()["blocks.1"].tolist()

    first, second = kept(3), kept(3)
    assert first != second
    assert kept(4) != first
    assert [kept(3), kept(3)] == [first, second]


def test_a_pace_without_a_step_is_refused(gpt, ids):
    attach(gpt, keep=linear(4, 16, steps=10, multiple=2), seed=7)
    with pytest.raises(ValueError, match="route.step is not set; set it before each training step"):
        gpt(ids)


def test_hidden_states_are_found_among_keywords():
    model, x = Stack(), torch.randn(2, SEQ, 8)
    mask = torch.ones(2, SEQ, SEQ).bool()[:, None]
    route = attach(model, keep=5, seed=1, layers=[model.layers[1]], token_args={"attention_mask": (-2, -1)})
    out = model.layers[1](attention_mask=mask, hidden_states=x)[0]
    assert out.shape == x.shape
    assert route.kept()["layers.1"].shape == (2, 5)


def test_a_rank_draws_its_own_rows_unless_told_that_it_shares_them(gpt, ids):
    def kept(rank):
        route = attach(gpt, keep=5, seed=7, rank=rank)
        gpt(ids)
        route.remove()
        return route.kept()["blocks.1"].tolist()

    assert kept(0) == kept(None)
    assert kept(1) != kept(0)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own, while it compiles
@pytest.mark.parametrize("before", [True, False])
def test_a_compiled_model_keeps_the_same_tokens(gpt, ids, before):
    expected = {}
    route = attach(gpt, keep=linear(4, 12, steps=3, multiple=4), seed=7)
    for step in range(4):
        route.step = step
        expected[step] = gpt(ids), route.kept()
    route.remove()
    torch.compiler.reset()
    tried = {"check": False}  # by those before
    if before:
        compiled = torch.compile(gpt, backend="eager")
        route = attach(gpt, keep=linear(4, 12, steps=3, multiple=4), seed=7, **tried)
    else:
        route = attach(gpt, keep=linear(4, 12, steps=3, multiple=4), seed=7, **tried)
        compiled = torch.compile(gpt, backend="eager")
    for step, (out, kept) in expected.items():
        route.step = step
        assert torch.equal(compiled(ids), out)
        assert all(torch.equal(route.kept()[name], own) for name, own in kept.items())


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(9))
        self.mix = nn.Linear(8, 8)

    def forward(self, x):
        return self.mix(sum(expert(x) for expert in self.experts))


def test_the_largest_stack_is_found_not_the_longest():
    model = nn.Sequential(*[Experts() for _ in range(4)])
    route = attach(model, keep=3, seed=1)
    assert list(route.layers) == ["1", "2"]
    assert route.depth == 4


def test_a_stack_of_embeddings_is_no_stack_of_blocks():
    model = nn.Sequential(nn.Sequential(*[nn.Embedding(99, 8) for _ in range(9)]))
    model.append(nn.Sequential(*[Experts() for _ in range(4)]))
    assert list(attach(model, keep=3, seed=1).layers) == ["1.1", "1.2"]


class Unheard(nn.Sequential):
    """Its layers are not called, so no hook sees them."""

    def forward(self, x):
        for layer in self:
            x = layer.forward(x)
        return x


def test_a_route_that_no_layer_takes_is_told_of():
    model = Unheard(*[Experts() for _ in range(4)])
    attach(model, keep=3, seed=1)
    with pytest.warns(UserWarning, match="this forward pass of Unheard called no routed layer, so it"):
        model(torch.zeros(2, 6, 8))


def test_a_pass_that_fails_or_evaluates_is_not_told_of_as_one_that_no_layer_took():
    class Breaks(nn.Module):
        def forward(self, x):
            if x.shape[0] == 1:
                raise KeyError("no such sample")
            return x

    model = nn.Sequential(Breaks(), nn.Sequential(*[Experts() for _ in range(4)]))
    attach(model, keep=3, seed=1, layers=model[1][1:3])
    with pytest.raises(KeyError):
        model(torch.zeros(1, 6, 8))
    model.eval()(torch.zeros(2, 6, 8))
    model.train()(torch.zeros(2, 6, 8))


def test_recomputation_of_an_earlier_batch_is_not_taken_for_another_layout():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(9, 8)
            self.layers = nn.ModuleList(Experts() for _ in range(4))

        def forward(self, ids):
            x = self.embed(ids)
            for layer in self.layers:
                x = checkpoint(layer, x, use_reentrant=False)
            return x

    model = Tokens()
    attach(model, keep=3, seed=1)
    (model(torch.zeros(4, 8).long()).sum() + model(torch.zeros(8, 4).long()).sum()).backward()


def test_depth_counts_the_blocks_of_the_stack_whatever_their_class():
    model = nn.Sequential(nn.Linear(8, 8), Masked(), nn.Linear(8, 8), nn.Linear(8, 8))
    assert attach(model, keep=3, seed=1, layers=[model[0]]).depth == 4


def test_remove_leaves_no_trace(gpt, ids):
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in gpt.modules()]
    names = list(gpt.state_dict())
    route = attach(gpt, keep=3, seed=7)
    assert list(gpt.state_dict()) == names
    route.remove()
    route.remove()
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in gpt.modules()] == hooks


def test_a_routed_model_copies_and_pickles(gpt, ids):
    route = attach(gpt, keep=3, seed=7)
    gpt(ids)
    twin = copy.deepcopy(gpt)
    file = io.BytesIO()
    torch.save(gpt, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    gpt.eval()
    for model in (twin, loaded):
        assert list(model.state_dict()) == list(gpt.state_dict())
        assert torch.equal(model.eval()(ids), gpt(ids))
    route.remove()


def test_keep_follows_its_pace(gpt, ids):
    route = attach(gpt, keep=linear(2, 10, steps=4, multiple=2), seed=7)
    for step, keep in enumerate([2, 4, 6, 8, 10, 10]):
        route.step = step
        gpt(ids)
        assert {own.shape[1] for own in route.kept().values()} == {keep}


@pytest.mark.parametrize("keep", [linear(2, 9, steps=3), constant(0)])
def test_a_keep_that_is_no_number_of_tokens_is_refused(gpt, ids, keep):
    with pytest.raises(
        ValueError,
        match="keep is .* at step [01]; expected a whole number of at least 1: give the pace multiple=",
    ):
        attach(gpt, keep=keep, seed=7).step = 1


def test_layers_may_be_named_and_the_ends_kept(gpt):
    named = attach(gpt, keep=3, seed=7, layers=[gpt.blocks[0], gpt.blocks[4]])
    assert list(named.layers) == ["blocks.0", "blocks.4"]
    named.remove()
    assert list(attach(gpt, keep=3, seed=7, skip=(0, 2)).layers) == ["blocks.0", "blocks.1", "blocks.2"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layers": []}, "layers is empty; expected at least one module of the model"),
        ({"layers": [nn.Linear(2, 2)]}, "a Linear in layers is not a module of the model"),
        ({"skip": (3, 2)}, "GPT has no stack of more than 5 like blocks; name them"),
        ({"skip": 2}, r"skip is 2; expected how many blocks to leave out at either end, as \(1, 1\)"),
        ({"skip": (-1, 1)}, "an entry of skip is -1; expected a whole number"),
        ({"token_args": {"typo": 1}}, "unknown name 'typo' in the arguments of layer 'blocks.1'. Known: 'x'"),
        ({"keep": 0}, "keep is 0; expected a whole number of at least 1"),
        ({"keep": 2.5}, "keep is 2.5; expected a whole number"),
        ({"seed": -1}, "seed is -1; expected a whole number"),
        ({"router": "random_tld"}, "unknown name 'random_tld' in routers; did you mean 'random_ltd'"),
    ],
)
def test_what_cannot_be_attached_is_refused_and_leaves_no_hook(gpt, options, said):
    with pytest.raises(ValueError, match=said):
        attach(gpt, **({"keep": 3, "seed": 7} | options))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in gpt.modules())


def test_a_layer_is_routed_once(gpt):
    route = attach(gpt, keep=3, seed=7, layers=[gpt.blocks[1]])
    with pytest.raises(ValueError, match=r"layer 'blocks.1' is routed already; remove\(\) that route first"):
        attach(gpt, keep=3, seed=7)
    route.remove()
    attach(gpt, keep=3, seed=7)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own, while it compiles
@pytest.mark.parametrize("first", [0, 1])
def test_two_routes_share_blocks_that_are_compiled_one_by_one(gpt, ids, first):
    def routed():
        routes = [
            attach(gpt, keep=keep, seed=7, layers=[gpt.blocks[layer]]) for keep, layer in [(4, 1), (6, 3)]
        ]
        for step in range(3):
            for route in routes:
                route.step = step
            out = gpt(ids)
        return routes, out, [(route.kept(), route.processed()) for route in routes]

    plain, expected, seen = routed()
    for route in plain:
        route.remove()
    for block in gpt.blocks:
        block.compile(backend="eager")
    compiled = [block._compiled_call_impl for block in gpt.blocks]
    routes, out, found = routed()
    assert torch.equal(out, expected)
    for (kept, processed), (own, own_processed) in zip(seen, found, strict=True):
        assert processed == own_processed
        assert all(torch.equal(own[name], kept[name]) for name in kept)
    with pytest.raises(ValueError, match="layer 'blocks.3' is routed already"):
        attach(gpt, keep=3, seed=7, layers=[gpt.blocks[3]])
    attach(gpt, keep=3, seed=7, layers=[gpt.blocks[2]]).remove()
    routes[first].remove()
    assert not torch.equal(gpt(ids), gpt.eval()(ids))
    routes[1 - first].remove()
    assert [block._compiled_call_impl for block in gpt.blocks] == compiled
    assert torch.equal(gpt.train()(ids), gpt.eval()(ids))
    torch.compiler.reset()


def test_layer_tokens_are_those_that_layers_processed(gpt, ids):
    processed = 0

    def count(module, args):
        nonlocal processed
        processed += args[0].shape[0] * args[0].shape[1]

    route = attach(gpt, keep=5, seed=7)
    for block in gpt.blocks:  # after the route's own hooks, so what is seen is what the layer gets
        block.register_forward_pre_hook(count)
    gpt(ids)
    assert route.layer_tokens(3, SEQ) == processed == 3 * (5 * 3 + SEQ * 2)


def test_the_state_resumes_the_next_step(gpt, ids):
    route = attach(gpt, keep=5, seed=7)
    route.step = 4
    state = route.state_dict()
    gpt(ids)
    expected = route.kept()
    route.remove()
    resumed = attach(gpt, keep=5, seed=7)
    resumed.load_state_dict(state)
    gpt(ids)
    assert all(torch.equal(resumed.kept()[name], own) for name, own in expected.items())
    with pytest.raises(ValueError, match="expected a step and the seed 7"):
        resumed.load_state_dict({"step": 4, "seed": 8})


class Masked(nn.Module):
    """Attention with what today's layers take beside the hidden states."""

    def __init__(self, width=8):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, hidden_states, attention_mask=None, position_embeddings=None, scale=1.0):
        q, k, v = self.qkv(hidden_states).chunk(3, -1)
        if position_embeddings is not None:
            cos, sin = position_embeddings
            q, k = q * cos + q.roll(1, -1) * sin, k * cos + k.roll(1, -1) * sin
        attended = nn.functional.scaled_dot_product_attention(
            q[:, None], k[:, None], v[:, None], attn_mask=attention_mask
        )
        return hidden_states + scale * attended[:, 0], "cache"


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Masked() for _ in range(3))

    def forward(self, x, positional, **kwargs):
        for layer in self.layers:
            x = (layer(x, *kwargs.values()) if positional else layer(hidden_states=x, **kwargs))[0]
        return x


@pytest.mark.parametrize("positional", [True, False])
def test_declared_arguments_travel_with_their_tokens(positional):
    torch.manual_seed(0)
    model, x = Stack().double(), torch.randn(2, SEQ, 8).double()
    mask = torch.ones(SEQ, SEQ).tril().bool().expand(2, 1, SEQ, SEQ).clone()
    mask[1, :, :, :3] = mask[1, 0].diagonal().diag()[:, :3]  # left padding in the second row
    rotary = torch.randn(1, SEQ, 8).double(), torch.randn(2, SEQ, 8).double()
    declared = {"attention_mask": (-2, -1), "position_embeddings": 1}
    route = attach(model, keep=5, seed=1, token_args=declared)
    out = model(x, positional, attention_mask=mask, position_embeddings=rotary)
    kept = route.kept()["layers.1"].long()
    route.remove()

    x = model.layers[0](x, mask, rotary)[0]
    rows = []
    for b, own in enumerate(kept):
        cos, sin = rotary[0][0, own], rotary[1][b, own]
        row = x[b].clone()
        row[own] = model.layers[1](row[own][None], mask[b, :, own][:, :, own][None], (cos, sin))[0][0]
        rows.append(row)
    x = model.layers[2](torch.stack(rows), mask, rotary)[0]
    torch.testing.assert_close(out, x, rtol=1e-12, atol=1e-12)


def test_an_argument_that_looks_aligned_is_refused_with_the_line_that_declares_it():
    kept = Kept(torch.zeros(2, 3).int(), 2, SEQ)
    with pytest.raises(
        ValueError, match=r"'bias' has shape \(1, 1, 12, 12\) .*token_args=\{'bias': \(-2, -1\)\}"
    ):
        travel("bias", torch.ones(1, 1, SEQ, SEQ), kept, {})
    with pytest.raises(ValueError, match=r"token_args=\{'tables': \(-2,\)\}"):
        travel("tables", (torch.ones(1, SEQ, 8), torch.ones(1, SEQ, 8)), kept, {})


@pytest.mark.parametrize("shape", [(2, 1, 1, 7), (SEQ,)])
def test_a_declaration_that_does_not_fit_is_refused(shape):
    kept = Kept(torch.zeros(2, 3).int(), 2, SEQ)
    with pytest.raises(
        ValueError,
        match=r"declares 'mask' aligned to tokens on \(-2, -1\), but it has .*; expected 12 on those axes",
    ):
        travel("mask", torch.ones(shape), kept, {"mask": (-2, -1)})


@pytest.mark.parametrize("shape", [(3, 1, SEQ, SEQ), (SEQ, SEQ)])
def test_a_tensor_without_a_batch_axis_needs_the_same_tokens_in_all_rows(shape):
    mask, declared = torch.arange(torch.Size(shape).numel()).view(shape), {"bias": (-2, -1)}
    ids = torch.tensor([[0, 2], [1, 3]])
    with pytest.raises(
        ValueError,
        match=r"'bias' has shape .* no batch axis of 2 or 1, .*value\[None(, None)?\].*\(shared=True\)",
    ):
        travel("bias", mask, Kept(ids, 2, SEQ), declared)
    moved = travel("bias", mask, Kept(ids[:1], 2, SEQ), declared)
    assert torch.equal(moved, mask[..., [0, 2], :][..., [0, 2]])


def test_a_table_without_entries_for_the_first_tokens_needs_these_in_all_rows():
    table = torch.arange(10 * 4).view(10, 4)
    ids = torch.tensor([[0, 1, 4, 11]])
    with pytest.raises(
        ValueError, match=r"the first 2 tokens have no entry in it, router=random_ltd\(prefix=2\)"
    ):
        travel("cos", table, Kept(ids, 3, SEQ), {})
    moved = travel("cos", table, Kept(ids, 3, SEQ, prefix=2), {})
    assert torch.equal(moved, table[[2, 9]])


@pytest.mark.parametrize("kind", [random_ltd, span])
def test_layers_with_tables_for_all_rows_are_served_by_shared_tokens(kind):
    model, x = Chain(Rotated, 3), torch.ones(2, SEQ, 4)
    freqs = torch.arange(1.0, SEQ + 1)[:, None].expand(SEQ, 4)  # no batch axis
    route = attach(model, keep=5, seed=1)
    with pytest.raises(ValueError, match="'freqs' has shape .* no batch axis"):
        model(x, freqs)
    route.remove()
    route = attach(model, router=kind(shared=True), keep=5, seed=1)
    out = model(x, freqs)
    own = route.kept()["layers.1"]
    assert own.shape == (1, 5)
    times = torch.full((SEQ, 1), 2.0)
    times[own[0].long()] = 3.0
    torch.testing.assert_close(out, (freqs**times).expand(2, SEQ, 4))


def test_what_stands_in_a_dict_is_looked_at_too():
    with pytest.raises(ValueError, match="'masks' has shape"):
        travel("masks", {"full": torch.ones(1, SEQ)}, Kept(torch.zeros(1, 2).int(), 1, SEQ), {})


def test_an_argument_declared_not_aligned_stays():
    value = torch.zeros(SEQ)
    assert travel("scale", value, Kept(torch.zeros(1, 2).int(), 1, SEQ), {"scale": ()}) is value


class Outputs(nn.Module):
    """A layer that returns its hidden states as `form` has it."""

    def __init__(self, form):
        super().__init__()
        self.inner, self.form = nn.Linear(4, 4), form

    def forward(self, x, bias=None):
        return self.form(x + self.inner(x), bias)


@dataclasses.dataclass
class Output:
    hidden: torch.Tensor
    bias: object = None


Pair = collections.namedtuple("Pair", "hidden bias")
FORMS = {
    "tuple": (lambda x, bias: (x, bias), lambda out: out),
    "list": (lambda x, bias: [x, bias], lambda out: out),
    "named tuple": (Pair, lambda out: out),
    "dataclass": (Output, lambda out: (out.hidden, out.bias)),
    "dict": (lambda x, bias: {"x": x, "bias": bias}, lambda out: tuple(out.values())),
}


@pytest.mark.parametrize("form", FORMS)
def test_hidden_states_are_found_in_what_a_layer_returns(form):
    make, parts = FORMS[form]
    layer = Outputs(make)
    x, bias = torch.randn(2, SEQ, 4), torch.randn(2, SEQ)
    plain = parts(layer(x, bias))[0]
    route = attach(nn.Sequential(layer), keep=5, seed=1, layers=[layer], token_args={"bias": 1})
    out = layer(x, bias)
    assert type(out) is type(make(x, bias))
    hidden, handed_on = parts(out)
    own = route.kept()["0"].long()
    expected = x.scatter(
        1, own[..., None].expand(-1, -1, 4), plain.gather(1, own[..., None].expand(-1, -1, 4))
    )
    torch.testing.assert_close(hidden, expected)
    assert handed_on is bias  # an argument that a layer hands on is as it was for the next


class TwoStreams(nn.Module):
    """Text and an image attend to both as one; the table turns the text's places, then the image's."""

    def __init__(self, width=8):
        super().__init__()
        self.text, self.image = nn.Linear(width, 3 * width), nn.Linear(width, 3 * width)

    def forward(self, text, image, table):
        size = text.shape[1]
        q, k, v = torch.cat([self.text(text), self.image(image)], 1).chunk(3, -1)
        q, k = (part + part.roll(1, -1) * table for part in (q, k))
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        return text + attended[:, :size], image + attended[:, size:]


class Joined(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(TwoStreams() for _ in range(4))

    def forward(self, text, image, table, by_name=False):
        for block in self.blocks:
            text, image = block(text, table=table, image=image) if by_name else block(text, image, table)
        return torch.cat([text, image], 1)


def of_both(table, ids):
    """The table of 5 places of text, and of the kept ones of the image."""
    text, image = table[:5], table[5:]
    return torch.cat([text.expand(len(ids), -1, -1), image[ids]], 1)


@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("keep", [4, 5])  # 5 as the text, which is not of kept tokens
def test_the_hidden_states_may_be_another_argument_and_stand_elsewhere_in_what_is_returned(by_name, keep):
    torch.manual_seed(0)
    model = Joined().double()
    text, image, table = (torch.randn(*shape).double() for shape in ((3, 5, 8), (3, 9, 8), (14, 8)))
    options = {"hidden_arg": "image", "hidden_out": 1, "token_args": {"table": of_both}}
    route = attach(model, keep=keep, seed=1, **options)
    out = model(text, image, table, by_name)
    out.square().sum().backward()
    found = [p.grad for p in model.parameters()]
    kept, done = route.kept(), route.processed()
    route.remove()
    assert done.layers["blocks.0"] == (27, 243)  # the image, of blocks that are not routed, too
    assert done.layers["blocks.1"] == (3 * keep, 3 * keep**2)
    rows = []
    for b in range(3):
        x, y = text[b : b + 1], image[b : b + 1]
        for i, block in enumerate(model.blocks):
            ids = kept[f"blocks.{i}"][b].long() if f"blocks.{i}" in kept else torch.arange(9)
            x, part = block(x, y[:, ids], torch.cat([table[:5], table[5:][ids]]))
            y = y.index_copy(1, ids, part)
        rows.append(torch.cat([x, y], 1))
    torch.testing.assert_close(out, torch.cat(rows))
    model.zero_grad()
    torch.cat(rows).square().sum().backward()
    for p, own in zip(model.parameters(), found, strict=True):
        torch.testing.assert_close(p.grad, own)


def test_where_hidden_states_are_is_refused_if_it_is_nowhere():
    model = Joined()
    with pytest.raises(ValueError, match="'images'.*did you mean 'image'"):
        attach(model, keep=2, seed=1, hidden_arg="images")
    with pytest.raises(ValueError, match="hidden_out is None; expected a place in what layers return, or"):
        attach(model, keep=2, seed=1, hidden_out=None)
    given = torch.zeros(3, 5, 8), torch.zeros(3, 9, 8), torch.zeros(14, 8)
    shared = {"keep": 4, "seed": 1, "token_args": {"table": of_both}, "check": False}
    route = attach(model, hidden_arg="image", **shared)  # its text is taken for it
    with pytest.raises(ValueError, match=r"makes \(3, 5, 8\) of the kept .*, or where hidden_out=... says"):
        model(*given)
    route.remove()
    for at in (2, "image"):
        route = attach(model, hidden_arg="image", hidden_out=at, **shared)
        with pytest.raises(ValueError, match=rf"layer 'blocks.1' returns tuple; .*; it is {at!r}"):
            model(*given)
        route.remove()


def test_hidden_states_and_outputs_of_another_shape_are_refused():
    class Odd(nn.Module):
        def forward(self, x):
            return self.make(x)

    model = nn.Sequential(Odd())
    attach(model, keep=2, seed=1, layers=[model[0]], check=False)
    with pytest.raises(
        ValueError, match=r"layer '0': its first argument, 'x', is \(4, 4\); expected \(B, S, C\)"
    ):
        model(torch.zeros(4, 4))
    model[0].make = lambda x: None
    with pytest.raises(
        ValueError, match="layer '0' returns NoneType; expected hidden states, alone or first in"
    ):
        model(torch.zeros(2, 4, 4))
    model[0].make = lambda x: x[:, :1]
    with pytest.raises(
        ValueError, match=r"layer '0' makes \(2, 1, 4\) of the kept tokens; expected .*\(2, 2, 4\)"
    ):
        model(torch.zeros(2, 4, 4))


def test_layers_that_take_the_sequence_first_are_served_as_they_are():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)
    model = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False).double()
    other = copy.deepcopy(model)
    for module in other.modules():
        if isinstance(module, nn.MultiheadAttention):
            module.batch_first = True
    x, padded = torch.randn(3, SEQ, 8).double(), torch.arange(SEQ) >= torch.tensor([[SEQ], [7], [3]])
    expected = attach(other, keep=5, seed=7), other(x, src_key_padding_mask=padded)
    route = attach(model, keep=5, seed=7)
    assert (route.batch_first, expected[0].batch_first) == (False, True)
    out = model(x.transpose(0, 1), src_key_padding_mask=padded)
    torch.testing.assert_close(out.transpose(0, 1), expected[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("keep", [2, 4])
def test_the_wrong_layout_is_seen_from_what_the_model_is_called_with(keep):
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Embedding(9, 4)
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self, ids):
            x = self.tokens(ids).transpose(0, 1)
            for layer in self.layers:
                x = layer(x)
            return x

    attach(model := Turned(), keep=keep, seed=1)  # 4 are more than a batch has
    with pytest.raises(
        ValueError, match=r"gets \(5, 3, 4\), and the model was called with \(3, 5\): say .*=False"
    ):
        model(torch.zeros(3, 5).long())


@pytest.mark.parametrize("router", [random_ltd, random_ltd()])
def test_a_router_may_be_a_class_or_made(gpt, ids, router):
    route = attach(gpt, router=router, keep=4, seed=1)
    gpt(ids)
    assert route.kept()["blocks.1"].shape == (3, 4)


def test_a_router_of_one_s_own_is_taken(gpt, ids):
    def first(batch, seq, keep, *, key, first_row, device):
        return torch.arange(keep, dtype=torch.int32).expand(batch, keep)

    de.registry.register("routers", "first", first)
    for router in (first, "first"):
        route = attach(gpt, router=router, keep=4, seed=1)
        gpt(ids)
        assert route.kept()["blocks.1"].tolist() == [[0, 1, 2, 3]] * 3
        route.remove()
    de.registry.unregister("routers", "first")


class Checkpointed(nn.Module):
    """The blocks of a GPT, each run again in the backward pass instead of keeping what it computed."""

    def __init__(self, gpt, reentrant):
        super().__init__()
        self.gpt, self.reentrant = gpt, reentrant

    def forward(self, ids):
        x = self.gpt.tokens(ids) + self.gpt.positions.weight[: ids.shape[1]]
        for block in self.gpt.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return self.gpt.head(self.gpt.norm(x))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("forwards", [1, 2, 3])
def test_recomputation_draws_the_tokens_of_its_own_forward_pass(gpt, ids, reentrant, forwards):
    def grads(model):
        route = attach(model, keep=linear(4, 10, steps=6, multiple=2), seed=7, layers=list(gpt.blocks[1:4]))
        gpt.zero_grad()
        loss = 0
        for i in range(forwards):  # all before the one backward pass, as contrastive losses do
            route.step = 2 + i // 2
            loss = loss + model((ids + i) % 32).square().sum()
        route.step = 5
        loss.backward()
        route.remove()
        return [parameter.grad.clone() for parameter in gpt.parameters()]

    for grad, expected in zip(grads(Checkpointed(gpt, reentrant)), grads(gpt), strict=True):
        torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-12)


def test_what_is_remembered_for_recomputation_is_bounded(gpt, ids, monkeypatch):
    from dataeff.routing import _passes

    monkeypatch.setattr(_passes, "_REMEMBERED", 10)
    route = attach(gpt, keep=5, seed=7)
    kept = [gpt(ids) for _ in range(20)]
    assert len(kept) == 20
    assert len(route._rides[0].before.flow._passes._inputs) <= 10


def test_gather_axes_takes_rows_and_columns_of_each_mask():
    mask = torch.arange(2 * 4 * 4).reshape(2, 1, 4, 4)
    ids = torch.tensor([[0, 2], [1, 3]])
    expected = torch.stack([mask[b][:, own][:, :, own] for b, own in enumerate(ids)])
    assert torch.equal(ops.gather_axes(mask, ids, (-2, -1)), expected)
    assert torch.equal(ops.gather_axes(mask, ids, (2, 3)), expected)


def test_random_ltd_keeps_rows_apart_by_their_place_in_the_global_batch():
    whole = random_ltd()(4, 16, 5, key=(1, 2, 0, 0))
    second_rank = random_ltd()(2, 16, 5, key=(1, 2, 0, 0), first_row=2)
    assert torch.equal(whole[2:], second_rank)


class Rotary(nn.Module):
    """A block that turns its queries and keys by itself, or does not."""

    def __init__(self, width=64, turns=True):
        super().__init__()
        self.norm, self.qkv, self.out = (
            nn.LayerNorm(width),
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )
        self.turns = turns
        for linear_layer in (self.qkv, self.out):
            nn.init.normal_(linear_layer.weight, std=0.02)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        if self.turns:
            q, k = self.turned(q), self.turned(k)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.out(y.transpose(1, 2).flatten(2))

    def turned(self, x):
        half = x.shape[-1] // 2
        angles = torch.arange(x.shape[2])[:, None] * 10.0 ** -torch.arange(half)
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1).to(
            x.dtype
        )


def rotary(turns, dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(*[Rotary(turns=turns) for _ in range(3)]).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, "autocast"])
@pytest.mark.parametrize("seq", [16, 256])
def test_positions_of_fresh_weights_are_noticed_at_any_precision(dtype, seq):
    half = dtype == "autocast"
    for turns in (True, False):
        model = rotary(turns, torch.float32 if half else dtype)
        attach(model, keep=4, seed=1, layers=[model[1]])
        x = torch.randn(4, seq, 64, dtype=torch.float32 if half else dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            if not turns:
                model(x)
                continue
            for _ in range(3):  # and again, whoever tries again
                with pytest.raises(ValueError, match="layer '1' knows by itself where its tokens stand"):
                    model(x)


def test_a_layer_that_tells_nothing_yet_is_tried_again():
    model = rotary(turns=True)
    nn.init.zeros_(model[1].out.weight)
    route = attach(model, keep=1, seed=1, layers=[model[1]])
    x = torch.randn(2, 16, 64)
    for nothing in (x, x[:, :2], x[:0], torch.ones(2, 16, 64)):
        model(nothing)
    nn.init.normal_(model[1].out.weight, std=0.02)
    for _ in range(3):  # of passes that tell nothing, the first, second, fourth, eighth, ... are looked at
        model(x)
    with pytest.raises(ValueError, match="knows by itself"):
        model(x)
    route.remove()


def test_two_threads_in_one_model_are_told_of():
    entered, go = threading.Event(), threading.Event()

    class Waits(nn.Linear):
        def forward(self, x):
            if threading.current_thread() is not threading.main_thread() and x.shape[1] == 4:
                entered.set()
                go.wait()
            return super().forward(x)

    model, x = nn.Sequential(*[Waits(4, 4) for _ in range(4)]), torch.randn(2, SEQ, 4)
    route = attach(model, keep=4, seed=1, check=False)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(model, x)
        entered.wait()
        model(x)  # the last to begin goes on
        go.set()
        with pytest.raises(RuntimeError, match="two threads run this routed model at once"):
            other.result()
        assert pool.submit(model, x).result().shape == x.shape  # one after the other
    assert route.kept()["1"].shape == (2, 4)


def test_looking_at_a_layer_leaves_no_trace():
    recorded = contextvars.ContextVar("recorded", default=None)

    class Writes(nn.Linear):
        def forward(self, x, losses, seen):
            losses["balance"].append(x.mean())
            seen["calls"] = seen.get("calls", 0) + 1
            if recorded.get() is not None:  # as transformers records attentions
                recorded.get().append(x.shape[1])
            return x + super().forward(x)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(Writes(4, 4) for _ in range(4))

        def forward(self, x):
            losses, seen = {"balance": []}, collections.UserDict()
            for layer in self.layers:
                x = layer(x, losses, seen)
            return x, losses, seen

    model = Model()
    attach(model, keep=5, seed=1)
    recorded.set([])
    _, losses, seen = model(torch.randn(2, SEQ, 4))
    assert len(losses["balance"]) == seen["calls"] == 4
    assert recorded.get() == [SEQ, 5, 5, SEQ]


@pytest.mark.parametrize("kind", [dict, collections.UserDict])
@pytest.mark.parametrize("more", [{}, {"check": False}, {"token_args": {"shared": ()}}])
def test_what_a_layer_leaves_of_its_kept_tokens_for_others_is_refused(kind, more):
    class Stores(nn.Linear):  # as layers of Gemma 4 that share keys and values
        def forward(self, x, shared):
            shared[len(shared)] = (x.unsqueeze(1), x.unsqueeze(1))
            return x + super().forward(x)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(Stores(4, 4) for _ in range(4))

        def forward(self, x):
            shared = kind()
            for layer in self.layers:
                x = layer(x, shared)
            return x

    model = Model()
    attach(model, keep=5, seed=1, layers=[model.layers[0]], **more)
    with pytest.raises(ValueError, match=r"'layers.0' puts something of its 5 kept .* 'shared', .*leave it"):
        model(torch.randn(2, SEQ, 4))


def test_hooks_of_before_see_all_tokens_that_come_out():
    model, seen = nn.Sequential(*[nn.Linear(4, 4) for _ in range(4)]), []
    model[1].register_forward_hook(lambda module, args, output: seen.append(output.shape[1]))
    attach(model, keep=5, seed=1)
    model[1].register_forward_hook(lambda module, args, output: seen.append(output.shape[1]))
    model(torch.randn(2, SEQ, 4))
    assert seen == [SEQ, SEQ]


class Packed(nn.Module):
    """Attention within documents, one after the other, as vision towers have it: (S, C) or (1, S, C)."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, hidden_states, cu_seqlens, rotary_pos_emb):
        x = hidden_states.view(-1, 8)
        sizes = cu_seqlens.diff().tolist()
        documents = (self.qkv(x) + rotary_pos_emb).unflatten(-1, (3, 2, 4)).split(sizes)
        out = []
        for each in documents:
            q, k, v = each.permute(1, 2, 0, 3)
            y = nn.functional.scaled_dot_product_attention(q, k, v)
            out.append(y.transpose(0, 1).reshape(len(each), -1))  # of no tokens, torch cannot tell -1
        return hidden_states + torch.cat(out).view(hidden_states.shape)


@pytest.mark.parametrize("flat", [True, False])
def test_packed_documents_may_have_no_axis_of_samples_and_lose_all_their_tokens(flat):
    torch.manual_seed(0)
    model, x, places = Chain(Packed).double(), torch.randn(24, 8).double(), torch.randn(24, 24).double()
    begins = torch.tensor([0, 3, 5, 6, 24], dtype=torch.int32)
    route = attach(model, keep=4, seed=1)
    clock = de.Clock()
    out = model(x if flat else x[None], begins, places)
    kept = {name: ids[0].long() for name, ids in route.kept().items()}
    clock.tick(samples=1, tokens=24, route=route)
    assert clock.layer_tokens == 24 + 4 + 4 + 24
    route.remove()
    expected = x
    for name, block in model.layers.named_children():
        own = kept.get(f"layers.{name}", torch.arange(24))
        sizes = torch.bucketize(own, begins[1:], right=True).unique(return_counts=True)[1]
        cut = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
        expected = expected.index_copy(0, own, block(expected[own], cut, places[own]))
    torch.testing.assert_close(out.view(24, 8), expected)


def test_streams_beside_each_other_are_routed_where_the_ids_tell_the_tokens():
    class Streams(nn.Linear):
        def forward(self, x):
            return x + super().forward(x.mean(2, keepdim=True))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Embedding(32, 8)
            self.layers = nn.ModuleList(Streams(8, 8) for _ in range(4))

        def forward(self, ids):
            x = self.tokens(ids).unsqueeze(2).expand(-1, -1, 3, -1)
            for layer in self.layers:
                x = layer(x)
            return x

    model, ids = Model(), torch.randint(0, 32, (2, SEQ))
    route = attach(model, keep=5, seed=1, layers=[model.layers[1]])
    out, own = model(ids), route.kept()["layers.1"].long()
    assert own.shape == (2, 5)
    route.remove()
    before = model.layers[0](model.tokens(ids).unsqueeze(2).expand(-1, -1, 3, -1))
    rows = torch.arange(2)[:, None]
    expected = before.index_put((rows, own), model.layers[1](before[rows, own]))
    torch.testing.assert_close(out, model.layers[3](model.layers[2](expected)))
    attach(model, keep=5, seed=1, layers=[model.layers[1]])
    with pytest.raises(ValueError, match=r"its first argument, 'x', is \(2, 6, 3, 8\); expected \(B, S, C\)"):
        model.layers[1](torch.zeros(2, 6, 3, 8))


def test_an_argument_of_one_stack_alone_may_be_declared():
    class Weighted(nn.Linear):
        def forward(self, x, importance):
            return x + super().forward(x) * importance[..., None]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.ModuleList(nn.Sequential(nn.Linear(4, 4)) for _ in range(4))
            self.second = nn.ModuleList(nn.Sequential(nn.Linear(4, 4)) for _ in range(3))
            self.third = nn.ModuleList(Weighted(4, 4) for _ in range(3))

        def forward(self, x, importance):
            for layer in self.third:
                x = layer(x, importance)
            return x

    model = Model()
    layers = [model.third[1], model.first[0]]
    attach(model, keep=4, seed=1, layers=layers, token_args={"importance": 1}).remove()
    with pytest.raises(ValueError, match="unknown name 'importanc' in the arguments of layer 'third.1'; did"):
        attach(model, keep=4, seed=1, layers=layers, token_args={"importanc": 1})


def test_tables_of_which_all_samples_read_the_first_row_are_noticed():
    class FirstRow(nn.Linear):
        def forward(self, x, cos):
            return x + super().forward(x * cos[0]) + x.mean(1, keepdim=True)

    model, x, cos = Chain(lambda: FirstRow(4, 4)), torch.randn(3, SEQ, 4), torch.randn(1, SEQ, 4)
    route = attach(model, keep=5, seed=1)
    with pytest.raises(ValueError, match=r"reads the first row of a table for all of them, .*shared=True"):
        model(x, cos)
    route.remove()
    attach(model, router=random_ltd(shared=True), keep=5, seed=1)
    model(x, cos)


def test_windows_as_long_as_the_first_sequence_are_noticed_in_a_longer_one():
    class Window(nn.Module):
        def forward(self, x):
            places = torch.arange(x.shape[1])
            mask = (places[:, None] - places).abs() < 8
            return x + nn.functional.scaled_dot_product_attention(x, x, x, mask)

    model = nn.Sequential(*[Window() for _ in range(4)])
    attach(model, keep=4, seed=1)
    for _ in range(3):
        model(torch.randn(2, 8, 4))
    with pytest.raises(ValueError, match="layer '1' knows by itself where its tokens stand"):
        model(torch.randn(2, 16, 4))


def test_positions_that_packed_layers_compute_of_where_documents_begin_are_noticed():
    class Counts(Packed):
        def forward(self, hidden_states, cu_seqlens, rotary_pos_emb):
            places = torch.cat([torch.arange(size) for size in cu_seqlens.diff().tolist()])
            return super().forward(hidden_states, cu_seqlens, places[:, None] * 0.05 * rotary_pos_emb)

    model = Chain(Counts)
    attach(model, keep=5, seed=1)
    with pytest.raises(ValueError, match="layer 'layers.1' knows by itself where its tokens stand"):
        model(torch.randn(24, 8), torch.tensor([0, 6, 24]), torch.ones(24, 24))


def test_samples_that_are_taken_for_tokens_are_noticed_though_none_would_be_dropped():
    block = nn.TransformerEncoderLayer(16, 2, 24, batch_first=False)
    model = nn.Sequential(*[copy.deepcopy(block) for _ in range(4)])
    attach(model, keep=4, seed=1, batch_first=True)
    with pytest.raises(ValueError, match=r"mixes samples and not tokens.*batch_first=False"):
        model(torch.randn(SEQ, 3, 16))


@pytest.mark.parametrize("router", ["random_ltd", "span"])
def test_what_layers_hand_to_others_is_of_the_same_tokens_or_refused(router):
    class Keys(nn.Linear):
        def forward(self, x, keys=None):
            own = super().forward(x)
            return x + (own if keys is None else keys), own

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(Keys(4, 4) for _ in range(5))

        def forward(self, x, until):
            keys = None
            for i, layer in enumerate(self.layers):
                x, keys = layer(x, keys if i in until else None)
            return x

    model, x = Model(), torch.randn(2, SEQ, 4)
    attach(model, router=router, keep=5, seed=1)
    model(x, until=())
    if router == "span":
        model(x, until=(2, 3))
    else:
        with pytest.raises(ValueError, match="layer 'layers.2' is given what layer 'layers.1' returned"):
            model(x, until=(2, 3))
    with pytest.raises(ValueError, match="layer 'layers.4' is given what layer 'layers.3' returned"):
        model(x, until=(4,))


def test_lists_of_parts_of_blocks_that_run_in_turn_are_refused():
    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.ModuleList(nn.Sequential(nn.Linear(4, 4)) for _ in range(4))
            self.second = nn.ModuleList(nn.Sequential(nn.Linear(4, 4)) for _ in range(4))
            self.norm = nn.LayerNorm(4)

        def forward(self, x):
            for first, second in zip(self.first, self.second, strict=True):
                x = x + first(self.norm(x))
                x = x + second(self.norm(x))
            return x

    model = Parts()
    route = attach(model, keep=5, seed=1)
    with pytest.raises(ValueError, match="blocks of 'first' and 'second' run in turn, so each may be a part"):
        model(torch.randn(2, SEQ, 4))
    route.remove()


def test_a_layer_that_returns_something_else_first_is_told_of_before_it_drops():
    class Two(nn.Module):
        def forward(self, x, text):
            return text, x

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(Two() for _ in range(4))

        def forward(self, x, text):
            for layer in self.layers:
                text, x = layer(x, text)
            return x

    attach(model := Model(), keep=4, seed=1)
    with pytest.raises(
        ValueError, match=r"makes \(2, 4, 8\) of the kept .*, \(2, 12, 8\), alone or first in"
    ):
        model(torch.randn(2, SEQ, 8), torch.randn(2, 4, 8))


def test_arguments_of_wrapped_layers_are_known_by_name():
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model, x, freqs = Chain(Rotated, 3), torch.ones(2, SEQ, 4), torch.arange(1.0, SEQ + 1)[None, :, None]
    model.layers = nn.ModuleList(checkpoint_wrapper(layer) for layer in model.layers)
    route = attach(model, keep=5, seed=1)
    out, own = model(x, freqs.expand(1, SEQ, 4)), route.kept()["layers.1"].long()
    times = torch.full((2, SEQ), 2.0).scatter(1, own, 3.0)[..., None]
    torch.testing.assert_close(out, (freqs**times).expand(2, SEQ, 4))


def test_looking_at_a_layer_draws_nothing():
    class Noisy(nn.Module):
        def forward(self, x):
            return x + x.mean(1, keepdim=True) * torch.rand(())

    def drawn_after(keep):
        model = nn.Sequential(*[Noisy() for _ in range(4)])
        attach(model, keep=keep, seed=1)
        torch.manual_seed(5)
        model(torch.ones(2, SEQ, 4))
        return torch.rand(())

    assert drawn_after(keep=4) == drawn_after(keep=SEQ)


def test_samples_that_are_taken_for_tokens_are_noticed():
    class Turned(nn.Module):  # torch's attention as it comes, (S, B, C), in a model that is (B, S, C)
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 2)

        def forward(self, x):
            x = x.transpose(0, 1)
            return (x + self.attention(x, x, x)[0]).transpose(0, 1)

    model = nn.Sequential(*[Turned() for _ in range(3)])
    route = attach(model, keep=4, seed=1)
    with pytest.raises(
        ValueError, match=r"mixes samples and not tokens.*say attach\(\.\.\., batch_first=True"
    ):
        model(torch.randn(8, 12, 16))
    route.remove()
    route = attach(model, keep=4, seed=1, batch_first=True)
    model(torch.randn(8, 12, 16))
    assert route.kept()["1"].shape == (8, 4)


class Windows(nn.Module):
    """Attention of tokens whose places are the same modulo 4, after so many that are in all windows."""

    def __init__(self, prefix):
        super().__init__()
        self.qkv, self.prefix = nn.Linear(16, 48), prefix

    def forward(self, x):
        first, rest = x.split([self.prefix, x.shape[1] - self.prefix], dim=1)
        q, k, v = self.qkv(rest).unflatten(1, (-1, 4)).unflatten(-1, (3, 16)).permute(3, 0, 2, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(1, 2)
        return x + torch.cat([first, y], dim=1)


@pytest.mark.parametrize("prefix", [0, 1])
def test_interleaved_windows_are_noticed(prefix):
    model = nn.Sequential(*[Windows(prefix) for _ in range(3)])
    attach(model, keep=8 + prefix, seed=1)
    with pytest.raises(ValueError, match="layer '1' knows by itself where its tokens stand"):
        model(torch.randn(2, 16 + prefix, 16))


class Biased(nn.Module):
    """Two heads, each with a table of its own."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(16, 48)

    def forward(self, x, table):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, table)
        return x + y.transpose(1, 2).flatten(2)


def test_heads_that_are_taken_for_samples_are_noticed():
    model, table = Chain(Biased), torch.randn(2, SEQ, SEQ)
    route = attach(model, keep=4, seed=1, token_args={"table": (-2, -1)})
    with pytest.raises(ValueError, match=r"layer 'layers.1' makes .* as the batch, 2, .* value\[None\]"):
        model(torch.randn(2, SEQ, 16), table)
    with pytest.raises(ValueError, match="'table' has shape .* no batch axis of 3 or 1"):
        model(torch.randn(3, SEQ, 16), table)
    for fine in (2, 3):
        model(torch.randn(fine, SEQ, 16), table[None])
        assert route.kept()["layers.1"].shape == (fine, 4)


def test_a_layer_that_fails_on_fewer_tokens_is_told_of_by_name():
    class Pairs(nn.Module):
        def forward(self, x):
            return x.unflatten(1, (-1, 2)).mean(dim=(1, 2), keepdim=True).flatten(1, 2) + x

    model = nn.Sequential(*[Pairs() for _ in range(3)])
    attach(model, keep=5, seed=1)
    with pytest.raises(
        ValueError, match=r"layer '1' takes 12 tokens, and not 5 of them \(RuntimeError: .*leave it out"
    ):
        model(torch.randn(2, SEQ, 4))


@pytest.mark.parametrize("in_place", [True, False])
def test_all_samples_may_keep_the_same_tokens_in_training(in_place):
    torch.manual_seed(0)
    model, x = nn.Sequential(*[nn.Linear(8, 8) for _ in range(4)]).double(), torch.randn(3, SEQ, 8).double()
    route = attach(model, router=random_ltd(shared=True), keep=5, seed=1, in_place=in_place)
    (own,) = torch.autograd.grad(model(x).square().sum(), model[0].weight)
    kept = {name: ids[0].long() for name, ids in route.kept().items()}
    route.remove()
    y = model[0](x)
    for name in ("1", "2"):
        y = y.index_copy(1, kept[name], model[int(name)](y[:, kept[name]]))
    (expected,) = torch.autograd.grad(model[3](y).square().sum(), model[0].weight)
    torch.testing.assert_close(own, expected)


class Attention(nn.Linear):
    pass


class Halves(nn.Module):
    """Blocks as many have them: of two modules in a list, or one after the other."""

    def __init__(self, layers):
        super().__init__()
        self.layers, self.norms = nn.ModuleList(layers), nn.ModuleList(nn.LayerNorm(8) for _ in range(8))


def test_blocks_that_are_never_called_or_of_several_classes_are_not_passed_over():
    halves = [kind(8, 8) for _ in range(4) for kind in (Attention, nn.Linear)]
    with pytest.raises(ValueError, match="'layers' is of Attention and Linear; name them: attach"):
        attach(Halves(halves), keep=4, seed=1)
    lists = Halves(nn.ModuleList([Attention(8, 8), nn.Linear(8, 8)]) for _ in range(4))
    with pytest.raises(ValueError, match="'layers' is of ModuleList, which are never called; name them"):
        attach(lists, keep=4, seed=1)
    with pytest.raises(ValueError, match=r"layer 'layers.1' is a ModuleList, which is never called; name"):
        attach(lists, keep=4, seed=1, layers=[lists.layers[1]])
    parts = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), *[encoder()])
    assert list(attach(parts, keep=4, seed=1).layers) == ["4.layers.1", "4.layers.2"]


def encoder():
    block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    return nn.TransformerEncoder(block, 4, enable_nested_tensor=False)


def test_a_part_of_a_block_is_told_of():
    model = encoder()
    with pytest.warns(UserWarning, match=r"layer 'layers.1.linear1' is a part of 'layers.1'. If its input"):
        attach(model, keep=4, seed=1, layers=[model.layers[1].linear1])


def test_what_layers_add_to_a_list_or_a_dict_is_not_lost():
    Context = collections.namedtuple("Context", "scale places")

    class Writes(nn.Module):
        def forward(self, x, stats, losses, context):
            stats["calls"] += 1
            losses.append(x.shape[1])
            return x * context.scale + 0 * context.places[..., None]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(Writes() for _ in range(4))

        def forward(self, x):
            stats, losses = {"calls": 0}, []
            for each in self.layers:
                x = each(x, stats, losses, Context(2.0, torch.zeros(x.shape[:2])))
            return stats, losses

    model = Model()
    attach(model, keep=5, seed=1, check=False, token_args={"context": 1})
    stats, losses = model(torch.randn(2, SEQ, 4))
    assert stats == {"calls": 4}
    assert losses == [SEQ, 5, 5, SEQ]


@pytest.mark.parametrize("made", [dict, list])
def test_what_a_layer_would_lose_in_a_copy_is_refused(made):
    class Writes(nn.Module):
        def forward(self, x, context):
            if made is dict:
                context["seen"] = x.shape
            else:
                context.append(x.shape)
            return x

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(Writes() for _ in range(4))

        def forward(self, x):
            places = torch.zeros(x.shape[:2])
            context = {"places": places} if made is dict else [places]
            for each in self.layers:
                x = each(x, context)
            return context

    model = Model()
    route = attach(model, keep=5, seed=1, check=False, token_args={"context": 1})
    with pytest.raises(
        ValueError, match=r"'layers.1' writes into its argument 'context', of which it gets a"
    ):
        model(torch.randn(2, SEQ, 4))
    route.remove()
    assert len(model(torch.randn(2, SEQ, 4))) > 1


def test_a_span_whose_last_layer_is_left_out_says_so(gpt, ids):
    route = attach(gpt, router="span", keep=5, seed=7)
    last = gpt.blocks[3]
    gpt.blocks[3] = nn.Identity()
    with pytest.raises(
        RuntimeError, match=r"around all layers from 'blocks.1' to 'blocks.3', and the last did"
    ):
        gpt(ids)
    gpt.blocks[3] = last
    route.remove()
    attach(gpt, router="span", keep=5, seed=7, layers=list(gpt.blocks)[3:0:-1])
    with pytest.raises(RuntimeError, match="in the order in which they run"):
        gpt(ids)


def test_vocabulary_ids_are_found_by_name_among_masks(gpt, ids):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.gpt = gpt

        def forward(self, input_ids, attention_mask):
            return self.gpt(input_ids)

    model, mask = Masked(), torch.ones_like(ids)
    router = de.routers.token_bypass(vocabulary=32)
    kept = []
    for order in (1, -1):
        route = attach(model, router=router, keep=5, seed=7)
        route.observe(torch.arange(32), torch.arange(32.0))
        model(**dict([("input_ids", ids), ("attention_mask", mask)][::order]))
        kept.append(route.kept()["gpt.blocks.1"])
        route.remove()
    assert torch.equal(*kept)
    assert (ids.gather(1, kept[0].long()).min(1).values >= ids.sort(1, descending=True).values[:, 4]).all()


def test_layers_that_are_run_without_the_models_own_forward_follow_the_step(gpt, ids):
    def run(route, step):
        route.step = step
        gpt.blocks[2](gpt.tokens(ids))
        return route.kept()["blocks.2"].tolist()

    route = attach(gpt, keep=5, seed=7)
    first = [run(route, step) for step in (0, 1, 2)][-1]
    route.remove()
    assert run(attach(gpt, keep=5, seed=7), 2) == first


def test_arguments_by_position_alone_and_any_number_of_them():
    class Slash(nn.Module):
        def forward(self, x, /):
            return x + x.mean(1, keepdim=True)

    class Star(nn.Module):
        def forward(self, x, *rest):
            return x + x.mean(1, keepdim=True) + sum(rest)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([Slash(), Star()])

        def forward(self, x):
            return self.layers[1](self.layers[0](x), 1.0, 2.0)

    model = Model()
    route = attach(model, keep=5, seed=1, layers=list(model.layers))
    assert model(torch.randn(2, SEQ, 4)).shape == (2, SEQ, 4)
    assert len(route.kept()) == 2


def test_one_tensor_under_two_names_is_cut_by_each(gpt):
    torch.manual_seed(0)
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(16, 2, 32, batch_first=True, dropout=0.0), 4)
    x, pad = torch.randn(2, SEQ, 16), torch.arange(SEQ).expand(2, -1) > 8
    memory = torch.randn(2, SEQ, 16)
    outs = []
    for other in (pad, pad.clone()):
        route = attach(decoder, router="span", keep=5, seed=1)
        outs.append(decoder(x, memory, tgt_key_padding_mask=pad, memory_key_padding_mask=other))
        route.remove()
    assert torch.equal(*outs)


@pytest.mark.parametrize("keep", [5, SEQ])
def test_gradients_by_torch_func_are_autograds(gpt, ids, keep):
    route = attach(gpt, keep=keep, seed=7)
    parameters = dict(gpt.named_parameters())

    def loss(parameters):
        route.step = 1
        return torch.func.functional_call(gpt, parameters, (ids,)).square().sum()

    found = torch.func.grad(loss)(parameters)
    route.step = 0
    gpt.zero_grad()
    loss(parameters).backward()
    for name, parameter in parameters.items():
        torch.testing.assert_close(found[name], parameter.grad)


def test_a_warmup_leaves_a_routers_table_as_it_was(gpt, ids):
    route = attach(gpt, router=de.routers.token_bypass(vocabulary=32), keep=5, seed=7)
    before = route.state_dict()["router"].clone()

    def run():
        gpt(ids)
        route.observe(ids, torch.ones(ids.shape))

    route.warmup(run)
    assert torch.equal(route.state_dict()["router"], before)
