"""Each router against its equation, alone and on a model."""

import copy
import io
import subprocess
import sys

import pytest
import torch
from torch import nn

from dataeff import routers
from dataeff.demo._model import GPT
from dataeff.routing import attach

SEQ = 12


class Encoder(nn.Module):
    """Bidirectional blocks over given hidden states, with a mean of the tokens in each."""

    def __init__(self, blocks=5):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Mixing() for _ in range(blocks))
        self.double()

    def forward(self, x, attention_mask=None):
        for block in self.blocks:
            x = block(x, attention_mask)
        return x


class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(4), nn.Linear(4, 4)

    def forward(self, x, attention_mask=None):
        weights = torch.ones(x.shape[:2]) if attention_mask is None else attention_mask
        mean = (x * weights[..., None]).sum(1, keepdim=True) / weights.sum(1)[:, None, None]
        return x + self.inner(self.norm(x) + mean).tanh()


@pytest.fixture
def gpt():
    torch.manual_seed(0)
    return GPT(vocabulary=32, length=SEQ, width=16, heads=2, layers=5).double()


@pytest.fixture
def tokens():
    return torch.randint(0, 32, (3, SEQ), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def x():
    return torch.randn(3, SEQ, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def take(x, ids):
    return x.gather(1, ids.long()[..., None].expand(-1, -1, x.shape[-1]))


def put(x, ids, y):
    return x.scatter(1, ids.long()[..., None].expand_as(y), y)


def gradients(model, out):
    out.square().sum().backward()
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    return found


def close(model, out, expected):
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    for grad, meant in zip(gradients(model, out), gradients(model, expected), strict=True):
        torch.testing.assert_close(grad, meant, rtol=1e-9, atol=1e-9)


def test_one_subset_bypasses_a_span_of_layers(x):
    model = Encoder()
    route = attach(model, router="span", keep=5, seed=7)
    out, kept = model(x), route.kept()
    assert list(kept) == ["blocks.1", "blocks.2", "blocks.3"]
    ids = kept["blocks.1"]
    assert all(torch.equal(own, ids) for own in kept.values())
    route.remove()
    first = model.blocks[0](x)
    inner = take(first, ids)
    for block in model.blocks[1:4]:
        inner = block(inner)
    close(model, out, model.blocks[4](put(first, ids, inner)))


@pytest.mark.parametrize("kind", [routers.random_ltd, routers.span, routers.patch_dropout])
@pytest.mark.parametrize("shared", [True, False])
def test_what_is_drawn_has_a_prefix_and_may_be_the_same_for_all(kind, shared):
    router = kind(shared=shared, prefix=3)
    ids = router(4, 20, 7, key=(1,))
    assert (ids[:, :3] == torch.arange(3)).all()
    assert (len(ids), len(torch.unique(ids)) > 7) == ((1, False) if shared else (4, True))
    with pytest.raises(ValueError, match="keep is 2; expected at least the prefix of 3 tokens"):
        router(4, 20, 2, key=(1,))
    with pytest.raises(ValueError, match="prefix is -1; expected a whole number of at least 0"):
        kind(prefix=-1)


def test_patch_dropout_drops_for_good_and_keeps_the_prefix(x):
    model = Encoder()
    route = attach(model, router=routers.patch_dropout(prefix=2), keep=5, seed=7)
    assert len(route.layers) == 5
    out, kept = model(x), route.kept()
    ids = kept["blocks.0"]
    assert out.shape == (3, 5, 4)
    assert ids[:, :2].tolist() == [[0, 1]] * 3
    assert ids[0].tolist() != ids[1].tolist()
    route.remove()
    close(model, out, model(take(x, ids)))


def test_a_mixture_of_depths_scales_what_a_layer_adds_to_its_top_tokens(x):
    model = Encoder()
    names = list(model.state_dict())
    route = attach(model, router="mixture_of_depths", keep=5, seed=7)
    gates = [f"blocks.{i}.mixture_of_depths.weight" for i in (1, 2, 3)]
    assert sorted(model.state_dict()) == sorted([*names, *gates])
    parameters = dict(model.named_parameters())
    assert set(gates) <= set(parameters)
    out, kept = model(x), route.kept()
    hidden = model.blocks[0](x)
    weights = [parameters[gate] for gate in gates]
    route.remove()
    assert list(model.state_dict()) == names
    for block, weight, ids in zip(model.blocks[1:4], weights, kept.values(), strict=True):
        scores = hidden @ weight[0]
        assert torch.equal(scores.topk(5).indices.sort().values, ids)
        inner = take(hidden, ids)
        change = block(inner) - inner
        hidden = put(hidden, ids, inner + scores.gather(1, ids)[..., None] * change)
    expected = model.blocks[4](hidden)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    out.square().sum().backward()
    found = [weight.grad.clone() for weight in weights]
    for weight in weights:
        weight.grad = None
    expected.square().sum().backward()
    for grad, weight in zip(found, weights, strict=True):
        assert grad.abs().sum() > 0
        torch.testing.assert_close(grad, weight.grad, rtol=1e-9, atol=1e-9)


def test_a_mixture_of_depths_is_the_same_model_in_evaluation_and_in_copies(x):
    model = Encoder()
    attach(model, router="mixture_of_depths", keep=5, seed=7)
    out = model(x)
    assert torch.equal(model.eval()(x), out)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for twin in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(twin(x), out)
        assert torch.equal(twin.train()(x), out)
    other = Encoder()
    attach(other, router="mixture_of_depths", keep=5, seed=7)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), out)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own, while it compiles
def test_a_mixture_of_depths_knows_layers_that_are_compiled(x):
    model, plain = Encoder(3), Encoder(3)
    plain.load_state_dict(model.state_dict())
    for i, block in enumerate(model.blocks):
        model.blocks[i] = torch.compile(block, backend="eager")
    names = list(model.state_dict())
    routes = [attach(each, router="mixture_of_depths", keep=5, seed=7) for each in (model, plain)]
    state = {name.replace("_orig_mod.", ""): weight for name, weight in model.state_dict().items()}
    plain.load_state_dict(state)
    assert torch.equal(model(x), plain(x))
    assert torch.equal(routes[0].kept()["blocks.1"], routes[1].kept()["blocks.1"])
    routes[0].remove()
    assert list(model.state_dict()) == names
    torch.compiler.reset()


class Inner(nn.Module):
    """A layer whose first vector, and whose first norm inside, are those of attention."""

    def __init__(self):
        super().__init__()
        self.attention = nn.Sequential(nn.Linear(16, 48), nn.LayerNorm(8))
        self.norm = nn.LayerNorm(16)


@pytest.mark.parametrize(
    "layer", [nn.TransformerEncoderLayer(16, 2, 24), Inner(), nn.Sequential(nn.Sequential(nn.RMSNorm(16)))]
)
def test_a_gate_is_as_wide_as_what_the_layer_s_norm_takes(layer):
    assert routers.mixture_of_depths().gate(layer).in_features == 16


def test_a_layer_of_unknown_width_asks_for_it():
    model = nn.Sequential(*[nn.Linear(4, 4, bias=False) for _ in range(3)])
    with pytest.raises(
        ValueError, match=r"the width of a Linear is not known; .*mixture_of_depths\(width=...\)"
    ):
        attach(model, router="mixture_of_depths", keep=2, seed=1)
    assert not any(m._forward_pre_hooks for m in model.modules())
    attach(model, router=routers.mixture_of_depths(width=4), keep=2, seed=1)


def by_pairs(hidden, keep, prefix):
    """Bipartite matching, pair by pair."""
    owners = []
    for row in hidden:
        every = 2
        while len(range(prefix, len(row), every)) > keep - prefix:
            every += 1
        into = list(range(prefix, len(row), every))
        pairs = []
        for a in range(prefix, len(row)):
            if a not in into:
                likeness = [torch.cosine_similarity(row[a], row[b], dim=0).item() for b in into]
                pairs.append((-max(likeness), a, into[likeness.index(max(likeness))]))
        own = list(range(len(row)))
        for _, a, b in sorted(pairs)[: len(row) - keep]:
            own[a] = b
        owners.append(own)
    return torch.tensor(owners)


class spans_of_pairs(routers.tome):
    """Merged before all layers, and unmerged after them."""

    scope = "span"


def test_what_several_layers_change_of_merged_tokens_goes_to_each(x):
    model = Encoder()
    route = attach(model, router=spans_of_pairs(), keep=7, seed=7)
    out = model(x)
    route.remove()
    first = model.blocks[0](x)
    chosen = routers.tome()(3, SEQ, 7, hidden=first)
    taken = inner = chosen.take(first)
    for block in model.blocks[1:4]:
        inner = block(inner)
    close(model, out, model.blocks[4](chosen.put(first, taken, inner)))


@pytest.mark.parametrize(("keep", "prefix"), [(11, 0), (7, 1), (6, 0), (4, 1), (2, 1), (1, 0)])
def test_similar_tokens_are_merged_and_get_what_their_mean_gets(x, keep, prefix):
    owners = by_pairs(x, keep, prefix)
    assert torch.equal(routers.match_tokens(x, keep, prefix=prefix), owners)
    chosen = routers.tome(prefix=prefix)(3, SEQ, keep, hidden=x)
    taken = chosen.take(x)
    out = chosen.put(x, taken, 3 * taken)
    for b in range(3):
        assert chosen.ids[b].tolist() == sorted(set(owners[b].tolist()))
        for i in range(SEQ):
            mean = x[b, owners[b] == owners[b, i]].mean(0)
            torch.testing.assert_close(out[b, i], x[b, i] + 2 * mean)


def test_padding_is_merged_with_padding():
    x = torch.randn(2, SEQ, 4)
    valid = torch.arange(SEQ) < torch.tensor([[SEQ], [5]])
    owners = routers.match_tokens(x, 9, valid=valid)
    assert torch.equal(valid.gather(1, owners), valid)
    assert (owners[1] != torch.arange(SEQ)).nonzero().min() >= 5


def test_merged_tokens_on_a_model(x):
    model = Encoder(3)
    route = attach(model, router="tome", keep=8, seed=7)
    out = model(x)
    route.remove()
    hidden = model.blocks[0](x)
    chosen = routers.tome()(3, SEQ, 8, hidden=hidden)
    taken = chosen.take(hidden)
    close(model, out, model.blocks[2](chosen.put(hidden, taken, model.blocks[1](taken))))


def test_merging_in_a_causal_layer_is_refused(gpt, tokens):
    attach(gpt, router="tome", keep=8, seed=7)
    with pytest.raises(
        ValueError, match=r"layer 'blocks.1' is causal, and tome\(prefix=0\) lets tokens see later"
    ):
        gpt(tokens)


def test_vocabulary_ids_beyond_the_table_are_told_of_and_labels_without_a_loss_passed_over():
    router = routers.token_bypass(vocabulary=10)
    said = r"vocabulary ids go up to 12; expected less than the 10 of token_bypass\(vocabulary=10\)"
    with pytest.raises(ValueError, match=said):
        router(1, 3, 2, key=(1,), tokens=torch.tensor([[3, 12, 4]]), state=router.start())
    with pytest.raises(ValueError, match=said):
        router.update(router.start(), torch.tensor([3, 12]), torch.ones(2))
    table = router.update(router.start(), torch.tensor([3, -100, 3]), torch.tensor([1.0, 0.0, 3.0]))
    assert table[3] == 2
    assert (table < 3).sum() == 1


def test_tokens_of_a_low_running_loss_bypass(gpt, tokens):
    router = routers.token_bypass(vocabulary=32, special=(3,), momentum=0.5)
    route = attach(gpt, router=router, keep=6, seed=7)
    table = torch.full((32,), torch.inf)
    for step in range(4):
        route.step = step
        gpt(tokens)
        kept = route.kept()
        ids = kept["blocks.1"]
        assert all(torch.equal(own, ids) for own in kept.values())
        for b in range(3):
            scores = torch.where(tokens[b] == 3, torch.inf, table[tokens[b]])
            entered = set(ids[b].tolist())
            lowest = min(scores[i] for i in entered)
            assert all(scores[i] <= lowest for i in set(range(SEQ)) - entered)
        losses = (tokens * 7 % 11 + step).double()
        route.observe(tokens, losses)
        for v in tokens.unique():
            mean = losses[tokens == v].mean()
            table[v] = mean if table[v].isinf() else 0.5 * table[v] + 0.5 * mean
    seen = tokens.unique()
    torch.testing.assert_close(route.state_dict()["router"][seen], table[seen])


@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
def test_losses_that_are_not_finite_are_passed_over(bad):
    router = routers.token_bypass(vocabulary=4, momentum=0.5)
    tokens, losses = torch.tensor([[1, 1, 2], [3, 1, 2]]), torch.tensor([[1.0, 3.0, 5.0], [bad, bad, 7.0]])
    state = router.update(router.start(), tokens, losses.half())
    assert state.tolist() == [*router.start()[:1].tolist(), 2.0, 6.0, *router.start()[3:].tolist()]
    state = router.update(state, tokens, torch.full(tokens.shape, bad))
    assert state[1:3].tolist() == [2.0, 6.0]
    assert router.update(state, tokens, losses.nan_to_num(4.0, 4.0, 4.0))[3] == 4.0


RANK = """
import sys, torch, dataeff as de
from torch import distributed
from dataeff.demo._model import GPT

folder, rank, ranks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if ranks > 1:
    distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=ranks)
torch.manual_seed(0)
gpt = GPT(vocabulary=32, length=12, width=16, heads=2, layers=4)
route = de.routing.attach(gpt, router=de.routers.token_bypass(vocabulary=32), keep=5, seed=7)
kept = []
for step in range(4):
    route.step = step
    tokens = torch.randint(0, 32, (4, 12), generator=torch.Generator().manual_seed(step))
    losses = tokens * 0.3 + torch.arange(4)[:, None] + step
    mine = slice(rank * 4 // ranks, (rank + 1) * 4 // ranks)
    gpt(tokens[mine])
    kept.append(route.kept()["blocks.1"])
    has_loss = torch.arange(4)[mine] < (2 if step == 1 else 4)  # in one step only the first rank has some
    route.observe(tokens[mine][has_loss].flatten(), losses[mine][has_loss].flatten())
torch.save([route.state_dict()["router"], torch.stack(kept)], f"{folder}/{ranks}-{rank}.pt")
"""


def test_the_running_losses_of_all_ranks_make_one_table(tmp_path):
    processes = [(0, 1), (0, 2), (1, 2)]
    runs = [
        subprocess.Popen([sys.executable, "-c", RANK, str(tmp_path), str(rank), str(ranks)])
        for rank, ranks in processes
    ]
    assert [run.wait() for run in runs] == [0, 0, 0]
    alone, first, second = (torch.load(tmp_path / f"{ranks}-{rank}.pt") for rank, ranks in processes)
    assert torch.equal(first[0], second[0])
    torch.testing.assert_close(first[0], alone[0])
    assert torch.equal(torch.cat([first[1], second[1]], 1), alone[1])


def test_ties_are_broken_by_the_key():
    router = routers.token_bypass(vocabulary=4)
    same, state = torch.ones(1, 30).long(), torch.zeros(4)
    drawn = {tuple(router(1, 30, 5, key=(k,), tokens=same, state=state)[0].tolist()) for k in range(20)}
    assert len(drawn) > 10


def test_the_running_losses_are_part_of_a_checkpoint(gpt, tokens, tmp_path):
    def made():
        return attach(gpt, router=routers.token_bypass(vocabulary=32), keep=6, seed=7)

    route = made()
    route.observe(tokens, tokens.double())
    route.step = 4
    gpt(tokens)
    expected = route.kept()["blocks.1"]
    torch.save(route.state_dict(), tmp_path / "route.pt")
    route.remove()
    resumed = made()
    resumed.load_state_dict(torch.load(tmp_path / "route.pt", weights_only=True))
    gpt(tokens)
    assert torch.equal(resumed.kept()["blocks.1"], expected)
    with pytest.raises(ValueError, match=r"the router's table is \(5,\); expected \(32,\)"):
        resumed.load_state_dict({"step": 1, "seed": 7, "router": torch.zeros(5)})
    with pytest.raises(ValueError, match="expected a router and step and the seed 7"):
        resumed.load_state_dict({"step": 1, "seed": 7})


def test_what_a_router_needs_is_named_when_it_is_missing(gpt, x):
    route = attach(gpt, keep=6, seed=7)
    with pytest.raises(ValueError, match="learns nothing from losses"):
        route.observe(torch.zeros(2).long(), torch.zeros(2))
    with pytest.raises(ValueError, match=r"tokens has shape \(2,\), losses \(3,\); expected a loss a token"):
        routers.running_loss(torch.zeros(4), torch.zeros(2).long(), torch.zeros(3), momentum=0.5)
    model = Encoder()
    attach(model, router=routers.token_bypass(vocabulary=32), keep=6, seed=7)
    with pytest.raises(
        ValueError,
        match=r"the vocabulary ids of \(3, 12\) tokens; the model was called with none that can be told",
    ):
        model(x)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: routers.tome(prefix=0.5), "prefix is 0.5; expected a whole number"),
        (
            lambda: routers.tome(prefix=3)(1, 5, 3, hidden=torch.zeros(1, 5, 2)),
            "keep is 3; expected more than the",
        ),
        (lambda: routers.mixture_of_depths(width=0), "width is 0; expected a whole number of at least 1"),
        (lambda: routers.token_bypass(vocabulary=4, special=(4,)), "an entry of special is 4; expected"),
        (
            lambda: routers.token_bypass(vocabulary=4, momentum=1),
            r"momentum is 1; expected a number in \[0, 1\)",
        ),
    ],
)
def test_bad_settings_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_padding_comes_last_in_every_router():
    mask = torch.arange(SEQ) < torch.tensor([[SEQ], [5], [3]])
    x = torch.randn(3, SEQ, 4).double()
    for router in ("random_ltd", "span", "mixture_of_depths"):
        model = Encoder()
        route = attach(model, router=router, keep=4, seed=7)
        model(x, mask.double())
        model(x, mask.long())
        for own in route.kept().values():
            assert torch.equal(mask.gather(1, own.long()).sum(1), mask.sum(1).clamp(max=4))
