"""The residual stream written in place: the values and gradients of a copy, or an error."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dataeff.routing import attach
from dataeff.routing._residual import Overwritten, merge

SEQ = 12


class Block(nn.Module):
    """A residual block that keeps nothing of its input as it was."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x):
        return x + self.inner(x).tanh()


class Stack(nn.Module):
    """Blocks one after another; `call` says how a block is called and what else is done with its input."""

    def __init__(self, call=lambda block, x, kept: block(x), blocks=4):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(8, 8)
        self.blocks = nn.ModuleList([Block() for _ in range(blocks)])
        self.call = call
        self.addresses = []

    def forward(self, x):
        x, kept = self.first(x), []
        self.addresses = [x.data_ptr()]
        for block in self.blocks:
            x = self.call(block, x, kept)
            self.addresses.append(x.data_ptr())
        return torch.stack([x, *kept]).sum(0)


def run(model, *, in_place, layers=None, dtype=torch.float64):
    model.double()
    model.zero_grad()
    x = torch.randn(3, SEQ, 8, dtype=dtype, generator=torch.Generator().manual_seed(1), requires_grad=True)
    route = attach(model, keep=5, seed=7, in_place=in_place, layers=layers and layers(model))
    route.step = 0
    try:
        out = model(x)
        out.square().sum().backward()
    finally:
        route.remove()
    return out.detach().clone(), [x.grad, *[p.grad.clone() for p in model.parameters()]]


def same(model, **settings):
    """Both ways give the same bits; returns how many blocks wrote in place."""
    expected, grads = run(model, in_place=False, **settings)
    copies = writes(model)
    out, found = run(model, in_place=True, **settings)
    assert torch.equal(out, expected)
    assert all(map(torch.equal, found, grads))
    assert copies == 0
    return writes(model)


def writes(model):
    return sum(a == b for a, b in zip(model.addresses, model.addresses[1:], strict=False))


def test_routed_blocks_write_into_the_stream_and_nothing_else_changes():
    assert same(Stack()) == 2  # of four blocks the inner two are routed
    assert same(Stack(blocks=8)) == 6


def test_a_tuple_may_come_out_of_a_layer():
    class Pair(Block):
        def forward(self, x):
            return super().forward(x), None

    model = Stack(lambda block, x, kept: out[0] if isinstance(out := block(x), tuple) else out)
    model.blocks[1], model.blocks[2] = Pair(), Pair()
    assert same(model, layers=lambda model: model.blocks[1:3]) == 2


class Unchecked(torch.autograd.Function):
    """Activation checkpointing that keeps a block's input where autograd does not look."""

    @staticmethod
    def forward(ctx, block, x):
        ctx.block, ctx.x = block, x.detach()
        with torch.no_grad():
            return block(x)

    @staticmethod
    def backward(ctx, grad):
        x = ctx.x.requires_grad_()
        with torch.enable_grad():
            out = ctx.block(x)
        out.backward(grad)
        return None, x.grad


CHECKPOINTS = {
    "torch": lambda block, x, kept: checkpoint(block, x, use_reentrant=False),
    "torch, reentrant": lambda block, x, kept: checkpoint(block, x, use_reentrant=True),
    "unchecked": lambda block, x, kept: Unchecked.apply(block, x),
}


@pytest.mark.parametrize("call", CHECKPOINTS.values(), ids=list(CHECKPOINTS))
def test_under_activation_checkpointing_nothing_is_written_in_place(call):
    assert same(Stack(call)) == 0


def test_writing_into_what_is_kept_for_recomputation_would_give_a_wrong_gradient(monkeypatch):
    model = Stack(CHECKPOINTS["unchecked"])
    _, expected = run(model, in_place=False)
    forward = -1
    monkeypatch.setattr(
        "dataeff.routing._residual._is_free", lambda hidden: torch._C._current_graph_task_id() == forward
    )
    _, found = run(model, in_place=True)
    assert not all(map(torch.allclose, found, expected))  # silently: so it does matter that it is off


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_layers_between_routed_ones_are_fine(reentrant):
    def call(block, x, kept):
        return checkpoint(block, x, use_reentrant=reentrant) if block.checkpointed else block(x)

    model = Stack(call, blocks=6)
    for i, block in enumerate(model.blocks):
        block.checkpointed = i % 2 == 1
    assert same(model, layers=lambda model: model.blocks[2:5:2]) == 2


def first_use(x, kept, block):
    """Uses of a block's input beside the block, from before it."""
    return {
        "saved by an operation": lambda: kept.append(x * x),
        "seen through a view": lambda: kept.append(x[:, :, :]),
        "saved as the output of an operation": lambda: None,
        "given to another layer": lambda: kept.append(block.inner(x)),
        "detached": lambda: kept.append(x.detach()),
        "watched": lambda: x.retain_grad(),
    }


@pytest.mark.parametrize("use", list(first_use(None, None, None)))
def test_an_input_that_is_needed_elsewhere_is_not_written_into(use):
    def call(block, x, kept):
        x = x.exp().log() if "output" in use else x
        x = (x / 10).sigmoid() if "output" in use else x
        first_use(x, kept, block)[use]()
        return block(x)

    assert same(Stack(call)) == 0


def later_use(x):
    return {"added": lambda: x + 1, "stacked": lambda: torch.stack([x, x]), "read": lambda: x.shape}


@pytest.mark.parametrize("use", list(later_use(None)))
def test_an_input_that_was_written_into_cannot_be_used_after_the_layer(use):
    def call(block, x, kept):
        out = block(x)
        later_use(x)[use]()
        return out

    run(Stack(call), in_place=False)
    with pytest.raises(RuntimeError, match=r"went into a routed layer.*attach\(..., in_place=False\)"):
        run(Stack(call), in_place=True)


def test_an_input_kept_in_a_list_is_an_error_when_it_is_used():
    def call(block, x, kept):
        kept.append(x)  # as output_hidden_states does
        return block(x)

    run(Stack(call), in_place=False)
    with pytest.raises(RuntimeError, match="in_place=False"):
        run(Stack(call), in_place=True)


@pytest.mark.parametrize("call", CHECKPOINTS.values(), ids=list(CHECKPOINTS))
def test_an_input_that_a_checkpointed_layer_keeps_too_is_not_written_into(call):
    def both(block, x, kept):
        kept.append(call(block.inner, x, kept))
        return block(x)

    assert same(Stack(both)) == 0


def test_an_input_that_is_kept_in_python_alone_is_an_error_when_a_layer_is_run_again():
    class Again(torch.autograd.Function):
        @staticmethod
        def forward(ctx, function, given, x):
            ctx.function, ctx.given = function, given
            return function(x)

        @staticmethod
        def backward(ctx, grad):
            return None, None, ctx.function(ctx.given[0]) * grad

    def call(block, x, kept):
        kept.append(Again.apply(torch.cos, [x], x.clone()))
        return block(x)

    run(Stack(call), in_place=False)
    with pytest.raises(RuntimeError, match="in_place=False"):
        run(Stack(call), in_place=True)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_leaves_and_subclasses_and_forward_passes_without_gradients_are_left_alone():
    ids, y = torch.tensor([[1]]), torch.ones(1, 1, 2)
    for hidden in (torch.zeros(1, 3, 2), torch.zeros(1, 3, 2, requires_grad=True)):
        assert merge(hidden, y, ids, in_place=True).data_ptr() != hidden.data_ptr()
        assert (hidden == 0).all()
    grown = torch.zeros(1, 3, 2, requires_grad=True) * 1
    with torch.no_grad():
        assert merge(grown, y, ids, in_place=True).data_ptr() != grown.data_ptr()
    other = grown.as_subclass(type("Other", (torch.Tensor,), {}))
    assert merge(other, y, ids, in_place=True).data_ptr() != grown.data_ptr()
    dual = torch.func.jvp(lambda x: merge(x * 1, y, ids, in_place=True), (grown,), (grown,))
    assert dual[0].flatten().tolist() == [0, 0, 1, 1, 0, 0]
    del other, dual
    assert merge(grown, y, ids, in_place=True).data_ptr() > 0
    assert type(grown) is Overwritten


def test_under_a_transform_of_torch_func_hidden_states_are_copied():
    x, y, ids = torch.randn(3, 1, 5, 4), torch.randn(3, 1, 2, 4), torch.tensor([[1, 3]])

    def loss(x, y):
        hidden = x * 1
        merged = merge(hidden, y, ids, in_place=True)
        return (merged * hidden).sum()  # which is still there

    grads = torch.vmap(torch.func.grad(loss, argnums=(0, 1)))(x, y)
    expected = 2 * x
    expected[:, :, ids[0]] = y
    torch.testing.assert_close(grads, (expected, x[:, :, ids[0]]))


def test_gradients_of_gradients_are_exact():
    ids = torch.tensor([[0, 2], [1, 3]])
    x = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)

    def merged(x, y):
        stream = x + 1
        address = stream.data_ptr()
        out = merge(stream, y * 2, ids, in_place=True)
        assert out.data_ptr() == address
        return out * out

    assert torch.autograd.gradcheck(merged, (x, y))
    assert torch.autograd.gradgradcheck(merged, (x, y))


def test_what_comes_out_may_be_changed_in_place():
    def call(block, x, kept):
        return block(x).mul_(2).add_(1)

    same(Stack(call))


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_a_compiled_model_gives_the_same():
    model = torch.compile(Stack(), backend="aot_eager")
    expected, grads = run(model, in_place=False, layers=lambda model: model.blocks[1:3])
    out, found = run(model, in_place=True, layers=lambda model: model.blocks[1:3])
    assert torch.equal(out, expected)
    assert all(map(torch.equal, found, grads))
