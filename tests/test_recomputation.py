"""Layers that activation checkpointing runs again get the tokens of their own forward pass, or an error."""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dataeff.routing import attach

SEQ = 12
CANNOT = "is run again in the backward pass, and it can't be told of which forward pass"


def layer():
    return nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)


class Model(nn.Module):
    """Blocks behind an embedding; what is checkpointed does more than call them."""

    def __init__(self, run):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.shifts = nn.Embedding(32, 16), nn.Parameter(torch.randn(5, 16))
        self.norm = nn.LayerNorm(16)
        self.blocks = nn.ModuleList(layer() for _ in range(5))
        self.run = run

    def forward(self, ids, checkpointed=lambda function, *args: function(*args)):
        return self.run(self, checkpointed, self.embed(ids))

    def shifted(self, i, x):
        return self.blocks[i](x + self.shifts[i])


def one_by_one(model, checkpointed, x):
    for i in range(5):
        x = checkpointed(model.shifted, i, x)
    return x


def by_two(model, checkpointed, x):
    def two(i, x):
        return model.shifted(i + 1, model.shifted(i, x))

    for i in (0, 2):
        x = checkpointed(two, i, x)
    return model.shifted(4, x)


def all_as_one(model, checkpointed, x):
    def every(x):
        return functools.reduce(lambda x, i: model.shifted(i, x), range(5), x)

    return checkpointed(every, x)


def the_same_again(model, checkpointed, x):
    for i in (1, 1, 2, 1):
        x = checkpointed(model.shifted, i, x)
    return x


def one_within_another(model, checkpointed, x):
    def outer(x):
        return checkpointed(model.shifted, 2, checkpointed(model.shifted, 1, x))

    return checkpointed(outer, model.shifted(0, x))


RUNS = [one_by_one, by_two, all_as_one, the_same_again, one_within_another]
PLAIN = functools.partial(checkpoint, use_reentrant=False)
REENTRANT = functools.partial(checkpoint, use_reentrant=True)


def gradients(model, run, *, keep=5, **options):
    route = attach(model, keep=keep, seed=7, **options)
    route.step = 3
    model.zero_grad()
    try:
        run().square().sum().backward()
    finally:
        route.remove()
    return [torch.zeros(()) if p.grad is None else p.grad.clone() for p in model.parameters()]


def ids(seed=1):
    return torch.randint(0, 32, (3, SEQ), generator=torch.Generator().manual_seed(seed))


def assert_alike(found, expected):
    for grad, own in zip(found, expected, strict=True):
        torch.testing.assert_close(grad, own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("forwards", [1, 2])
def test_a_checkpoint_may_do_more_than_call_a_block(run, forwards):
    model = Model(run)

    def summed(*how):
        return sum(model(ids(i), *how) for i in range(forwards))

    assert_alike(gradients(model, lambda: summed(PLAIN)), gradients(model, summed))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("run", RUNS[:-1])
def test_the_other_kind_of_checkpoint_does_or_says_that_it_cannot(run):
    model = Model(run)
    with pytest.raises(RuntimeError, match=CANNOT):
        gradients(model, lambda: model(ids(), REENTRANT))
    everything = {"keep": SEQ}
    assert_alike(
        gradients(model, lambda: model(ids(), REENTRANT), **everything),
        gradients(model, lambda: model(ids()), **everything),
    )


@pytest.mark.parametrize("views", [1, 2])
def test_a_checkpoint_around_the_model_and_the_same_batch_again(views):
    model, same = Model(one_by_one), ids()

    def summed(call):
        return sum((i + 1) * call() for i in range(views))

    found = gradients(model, lambda: summed(lambda: PLAIN(model, same)))
    assert_alike(found, gradients(model, lambda: summed(lambda: model(same))))


def test_the_same_input_of_two_passes_is_not_told_apart_by_its_address():
    model = nn.Sequential(*[layer() for _ in range(4)])
    x = torch.randn(3, SEQ, 16, requires_grad=True)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            return REENTRANT(self.inner[1], x)

    outer = Twice()
    route = attach(outer, keep=5, seed=7, layers=[model[1]])
    route.step = 0
    with pytest.raises(RuntimeError, match=CANNOT):
        (outer(x) + 2 * outer(x)).square().sum().backward()
    for _ in range(2):  # the same input, one backward pass after the other
        outer(x).square().sum().backward()


def test_a_backward_pass_twice_over_the_same_graph():
    model = Model(one_by_one)

    def twice():
        out = model(ids(), PLAIN).square().sum()
        out.backward(retain_graph=True)
        return out.sqrt()

    def plain():
        out = model(ids()).square().sum()
        out.backward(retain_graph=True)
        return out.sqrt()

    assert_alike(gradients(model, twice), gradients(model, plain))


def test_a_model_that_is_given_a_dictionary():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = Model(one_by_one)

        def forward(self, batch):
            return self.model(batch["ids"])

    model = Wrapped()
    found = gradients(model, lambda: PLAIN(model, {"ids": ids()}), layers=list(model.model.blocks[1:4]))
    assert_alike(found, gradients(model, lambda: model({"ids": ids()}), layers=list(model.model.blocks[1:4])))


def test_a_copy_of_a_model_has_no_passes_that_are_under_way():
    model = Model(one_by_one)
    route = attach(model, router="tome", keep=5, seed=7)
    out = model(ids(), PLAIN)
    twin = copy.deepcopy(model)
    out.sum().backward()
    route.remove()
    assert twin(ids()).shape == out.shape
