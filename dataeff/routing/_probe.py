"""Does a layer know where its tokens stand but by its arguments?"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import nn
from torch.func import functional_call
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map_only

Tensor = torch.Tensor
Run = Callable[[Tensor, Tensor, Callable[..., Any]], Tensor]
_SHARE = 1e-4  # of what the other tokens do to the last one. Rotary positions in fresh weights: 2e-3 and more
_HALF = 0.1  # the same where a layer runs in 16 bits alone
_NOISE = 16  # roundings of an output that are no change of it
_HALVES = (torch.float16, torch.bfloat16)


@attrs.define(eq=False)
class Looks:
    """When layers are looked at: in the first pass and ever more rarely, at powers of two.

    What has no effect at first may have one later: weights of zero, masks without padding. It begins anew
    where sequences are longer than any before, since a window may be as long as the first.

    Examples:
        >>> looks, seen = Looks(), []
        >>> for step in range(9):
        ...     looks.at("h.1", 16, lambda: seen.append(step))
        >>> seen
        [0, 1, 3, 7]
        >>> for seq in (16, 16, 16, 8, 32, 32, 32):
        ...     looks.at("h.2", seq, lambda: seen.append(seq))
        >>> seen[4:]
        [16, 16, 8, 32, 32]
    """

    _passes: dict[str, int] = attrs.field(factory=dict, init=False)
    """How many of a layer there were, since sequences were last longer than before."""
    _longest: dict[str, int] = attrs.field(factory=dict, init=False)

    def at(self, name: str, seq: int, look: Callable[[], object]) -> None:
        """Look at a layer that gets `seq` tokens, if that is due."""
        longest = self._longest.get(name, -1)
        passes = 1 if seq > longest else self._passes[name] + 1
        if not passes & (passes - 1):
            look()  # one that is refused is looked at in each pass
        self._passes[name], self._longest[name] = passes, max(longest, seq)


def check(
    name: str,
    layer: nn.Module,
    hidden: Tensor,
    run: Run,
    *,
    ids: Tensor,
    router: Any = None,
    batch_first: bool = True,
    begins: Tensor | None = None,
) -> None:
    """Raise ValueError for a layer that would take kept tokens for neighbours.

    Or, for a router that lets tokens see later ones, for a causal one; for one whose samples are taken for
    tokens; and for one that fails on the tokens `ids`, which are to enter, or to which it matters what other
    samples keep. Nothing can be told where the last token's output does not depend on the other tokens at
    all, as while weights are zero.

    All tokens but the last change places, within documents if these are packed and begin at `begins`, and
    what goes with them too. A layer that attends, causally or not,
    gives the last token the same: it sees the same tokens. One that computes rotary positions, a window, a
    recurrence or a convolution by itself does not.

    `run(hidden, ids, forward)` gives what `layer` makes of the tokens `ids`, (B, K), or (1, K) for all rows,
    of hidden states (B, S, C), where `forward` is called as its forward is. Layers run in evaluation mode and
    without gradients; those of 16 bits are run in 32, which tell more.

    Examples:
        >>> x, kept = torch.randn(1, 5, 4), torch.tensor([[0, 3]])
        >>> check("sum", nn.Identity(), x, lambda x, ids, _: x[:, ids[0]].cumsum(1), ids=kept)
        >>> check("shift", nn.Identity(), x, lambda x, ids, _: x[:, ids[0]].roll(1, 1), ids=kept)
        Traceback (most recent call last):
        ...
        ValueError: layer 'shift' knows by itself where its tokens stand: with the others in another ...
    """
    (batch, seq), stay = hidden.shape[:2], getattr(router, "prefix", 0)
    if seq < stay + 3 or not batch or hidden.is_meta:
        return
    places = torch.arange(seq, device=hidden.device)
    turned, like = _turned(places, stay, begins), _alike(places, stay, begins)
    orders = [places, turned, torch.cat([like[:-1], places[-1:]])]
    (before, after, alike), share = _ends(layer, run, hidden, *orders)
    noise = _noise(before)
    gap, reach = ((other - before).norm(dim=-1).double() for other in (after, alike))
    if bool((gap > share * reach + noise)[:, -1].any()):
        raise ValueError(
            f"layer {name!r} knows by itself where its tokens stand: with the others in another order, "
            "its last token comes out differently. It would take kept tokens for neighbours (it computes "
            "positions, a window, a convolution or a recurrence). Give it positions as an argument, declare "
            "one that has those of other tokens, too (token_args), leave it out (layers=[...]), or, if that "
            "is meant, say attach(..., check=False)"
        )
    tells = bool((reach > noise)[:, -1].any())
    if tells and getattr(router, "looks_ahead", False):
        (first,), _ = _ends(layer, run, hidden, like)
        if bool(((first - before).norm(dim=-1) <= noise)[:, 0].all()):
            raise ValueError(
                f"layer {name!r} is causal, and {router!r} lets tokens see later ones; take another one"
            )
    if not tells:
        check_layout(name, layer, hidden, run, batch_first=batch_first)
    try:
        (own, *as_last), _ = _ends(layer, run, hidden, ids, *([ids[-1:]] if len(ids) > 1 else []))
    except ValueError:  # what cannot travel says so
        raise
    except Exception as error:
        raise ValueError(
            f"layer {name!r} takes {seq} tokens, and not {ids.shape[1]} of them ({type(error).__name__}: "
            f"{error}); leave it out (layers=[...]), or keep others"
        ) from error
    for other in as_last:
        gap = (own - other)[-1].norm(dim=-1).double()
        if bool((gap > share * reach[-1, -1] + _noise(own[-1])).any()):
            raise ValueError(
                f"layer {name!r} makes something else of a sample's tokens where other samples keep others: "
                "it reads the first row of a table for all of them, or an axis of heads that is as long as "
                f"the batch, {batch}, is taken for samples (give it another axis, as value[None] does). Or "
                "let all samples keep the same: router=random_ltd(shared=True)"
            )


def check_padding(name: str, layer: nn.Module, hidden: Tensor, run: Run, *, valid: Tensor) -> None:
    """Raise ValueError for a layer that attends to what is taken for padding, and to nothing else.

    `valid` are the tokens that are taken for real, (B, S) bool. Its mask then means the opposite.

    Examples:
        >>> x, real = torch.randn(1, 4, 4), torch.tensor([[True, True, False, False]])
        >>> mean = lambda x, ids, _: x[:, ids[0]] + x[:, ids[0]][:, 2:].mean(1, keepdim=True)
        >>> check_padding("mean", nn.Identity(), x, mean, valid=~real)
        >>> check_padding("mean", nn.Identity(), x, mean, valid=real)
        Traceback (most recent call last):
        ...
        ValueError: layer 'mean' attends to the tokens that its mask seems to call padding, and to no ...
    """
    rows = (valid.any(1) & ~valid.all(1)).nonzero().flatten()
    if not len(rows) or hidden.is_meta:
        return
    places = torch.arange(hidden.shape[1], device=hidden.device)
    change = hidden.std() * torch.linspace(-1, 1, hidden.shape[-1], device=hidden.device, dtype=hidden.dtype)
    moved, each = hidden.roll(1, -1) + change, valid.view(*valid.shape, *[1] * (hidden.dim() - 2))
    others = [hidden.where(each, moved), moved.where(each, hidden)]
    (before, of_padding, of_real), _ = _outputs(layer, run, [(each, places) for each in (hidden, *others)])
    noise = _noise(before)
    real_moves, padding_moves = (
        bool(((after - before).norm(dim=-1) > noise)[rows][kind[rows]].any())
        for after, kind in ((of_padding, valid), (of_real, ~valid))
    )
    if real_moves and not padding_moves:
        raise ValueError(
            f"layer {name!r} attends to the tokens that its mask seems to call padding, and to no others, so "
            "it means the opposite of what masks of that name and kind do (True, or 1, is a token in "
            "attention_mask, and padding in key_padding_mask): have the layer take ~mask, or take it under a "
            "name of its own, declared as token_args={'pad': -1}"
        )


def check_layout(name: str, layer: nn.Module, hidden: Tensor, run: Run, *, batch_first: bool) -> None:
    """Raise ValueError for a layer to which what is taken for its samples are tokens.

    Examples:
        >>> x = torch.randn(3, 2, 4)
        >>> check_layout("sum", nn.Identity(), x, lambda x, ids, _: x.cumsum(0), batch_first=True)
        Traceback (most recent call last):
        ...
        ValueError: layer 'sum' mixes samples and not tokens, as hidden states are laid out: say ...
    """
    if len(hidden) > 1:
        places = torch.arange(hidden.shape[1], device=hidden.device)
        (before,), _ = _ends(layer, run, hidden, places)
        (mixed,), _ = _ends(layer, run, hidden[-1:].expand_as(hidden), places)
        if bool(((mixed - before).norm(dim=-1) > _noise(before))[-1].any()):
            raise ValueError(
                f"layer {name!r} mixes samples and not tokens, as hidden states are laid out: say "
                f"attach(..., batch_first={not batch_first})"
            )


def _turned(places: Tensor, stay: int, begins: Tensor | None = None) -> Tensor:
    """All but the last and the first `stay` in another order: one cycle at random, so that none stays.

    Examples:
        >>> _turned(torch.arange(5), 2).tolist()
        [0, 1, 3, 2, 4]
        >>> _turned(torch.arange(6), 0, torch.tensor([0, 3, 6])).tolist()
        [1, 0, 2, 4, 3, 5]
    """
    turned = places.clone()
    for document in _documents(places, stay, begins):
        among = document[:-1]
        order = torch.randperm(len(among), generator=torch.Generator().manual_seed(0)).to(places.device)
        turned[among[order]] = among[order.roll(1)]
    return turned


def _alike(places: Tensor, stay: int, begins: Tensor | None) -> Tensor:
    """All tokens in the place of the first after those that stay, of each document."""
    alike = places.clone()
    for document in _documents(places, stay, begins):
        alike[document] = document[0].clone()
    return alike


def _documents(places: Tensor, stay: int, begins: Tensor | None) -> list[Tensor]:
    if begins is None:
        return [places[stay:]]
    ends = begins[1:-1].tolist()
    return [document for document in torch.tensor_split(places, ends) if len(document)]


def _noise(output: Tensor) -> Tensor:
    size: Tensor = output.norm(dim=-1).double()
    return size * (_NOISE * torch.finfo(output.dtype).eps)


def _ends(layer: nn.Module, run: Run, hidden: Tensor, *orders: Tensor) -> tuple[list[Tensor], float]:
    """The first and the last token's output in each order, (B, 2, C); which share of a change is one."""
    found, share = _outputs(layer, run, [(hidden, order) for order in orders])
    return [output[:, [0, -1]] for output in found], share


def _outputs(
    layer: nn.Module, run: Run, inputs: Sequence[tuple[Tensor, Tensor]]
) -> tuple[list[Tensor], float]:
    """What is made of hidden states in an order, each (B, K, C); which share of a change is one."""
    hidden, _ = inputs[0]

    def one(x: Tensor, order: Tensor, forward: Callable[..., Any]) -> Tensor:
        with torch.random.fork_rng([hidden.device] * hidden.is_cuda):  # what a layer draws, it draws again
            return run(x, order.view(-1, order.shape[-1]), forward).flatten(2)

    def each(forward: Callable[..., Any]) -> list[Tensor]:
        return [one(x, order, forward) for x, order in inputs]

    half = torch.is_autocast_enabled(hidden.device.type) or hidden.dtype in _HALVES
    with torch.no_grad(), _disable_current_modes(), _evaluating(layer), _without_tf32():
        if half:
            try:
                return each(_in_32_bits(layer, hidden.device.type)), _SHARE
            except (RuntimeError, TypeError, NotImplementedError):  # it is made for 16 bits alone
                pass
        return each(layer.forward), _HALF if half else _SHARE


def _in_32_bits(layer: nn.Module, device: str) -> Callable[..., Any]:
    class Forward(nn.Module):  # around the layer's hooks
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return self.layer.forward(*args, **kwargs)

    def wide(x: Tensor) -> Tensor:
        return x.float() if x.dtype in _HALVES else x

    plain, weights = Forward(), itertools.chain(layer.named_parameters(), layer.named_buffers())
    widened = {f"layer.{name}": wide(weight) for name, weight in weights if weight.dtype in _HALVES}

    def forward(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree_map_only(Tensor, wide, (args, kwargs))
        with torch.autocast(device, enabled=False):
            return functional_call(plain, widened, args, kwargs)

    return forward


@contextmanager
def _without_tf32() -> Iterator[None]:
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # set by the other interface
        yield
        return
    try:
        torch.set_float32_matmul_precision("highest")
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _evaluating(layer: nn.Module) -> Iterator[None]:
    training = [module for module in layer.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True
