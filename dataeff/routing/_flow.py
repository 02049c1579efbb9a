"""What the hooks of a route do in a forward pass: tokens go into layers, and around them."""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import attrs
import torch
from torch import nn

from dataeff.routers import Chosen
from dataeff.routing import _probe
from dataeff.routing._adapters import Kept, arguments, heads, is_packed, padding, travel, without_cache
from dataeff.routing._meter import whole_input
from dataeff.routing._outputs import hidden_of, with_hidden
from dataeff.routing._passes import Pass, Passes, in_backward
from dataeff.routing._residual import merge
from dataeff.routing._route import Route

Tensor = torch.Tensor


class _Inside(NamedTuple):
    """Tokens inside a routed layer, or on their way through several."""

    hidden: Tensor | None
    """All tokens, (B, S, C); None where they do not come back, or a segment is run again in part."""
    taken: Tensor
    chosen: Chosen
    seq: int
    moved: list[tuple[Any, Any]]
    """What came with the tokens, and what was made of it."""


@attrs.define(eq=False, slots=False)
class Flow:
    """The forward passes of a routed model, as its hooks see them.

    What a pass is to do stands in the route, and what the user is to read of it goes there.

    Examples:
        >>> from dataeff.routing import attach
        >>> model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(4)])
        >>> flow, x = Flow(attach(model, keep=2, seed=1234)), torch.zeros(1, 8, 4)
        >>> flow.begin("", model, (x,), {})
        >>> (taken,), _ = flow.enter("1", model[1], (x,), {})
        >>> taken.shape, flow.leave("1", model[1], (), taken).shape
        (torch.Size([1, 2, 4]), torch.Size([1, 8, 4]))
    """

    route: Route
    _tokens: Tensor | None = attrs.field(default=None, init=False, repr=False)
    """What the model was called with, for a router that asks for it."""
    _shape: tuple[int, ...] | None = attrs.field(default=None, init=False, repr=False)
    """(B, S), as far as the model's input tells."""
    _stood_in: str | None = attrs.field(default=None, init=False, repr=False)
    """The layer, run again, that put empty hidden states in the place of those that are not there."""
    _passes: Passes = attrs.field(factory=Passes, init=False, repr=False)
    _calls: dict[str, int] = attrs.field(factory=dict, init=False, repr=False)
    _inside: dict[str, _Inside] = attrs.field(factory=dict, init=False, repr=False)
    """By the layer that a segment begins with."""
    _checked: set[str] = attrs.field(factory=set, init=False, repr=False)
    _awaits: bool = attrs.field(default=False, init=False, repr=False)
    """Whether a training pass began and no routed layer was called yet."""

    def __attrs_post_init__(self) -> None:
        layers, self._scope, self._wants = self.route.layers, self.route._scope, self.route._wants
        self._names = {name: arguments(layer) for name, layer in layers.items()}
        self._heads = {name: heads(layer) for name, layer in layers.items()}
        self._segments = _segments(layers, alone=self._scope == "layer")
        self._ends = {begin: name for name, begin in self._segments.items()}  # the last one wins
        self._places = {begin: place for place, begin in enumerate(self._ends)}

    @property
    def evaluates(self) -> bool:
        """Whether tokens are routed in evaluation mode, too."""
        return self.route.evaluates

    def __getstate__(self) -> dict[str, Any]:  # of a copy, too: nothing of a pass that is under way
        return self.__dict__ | {
            "_calls": {},
            "_inside": {},
            "_passes": Passes(),
            "_tokens": None,
            "_awaits": False,
        }

    def begin(self, name: str, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The root model's forward begins: a new micro-batch, whatever a layer does or does again later."""
        compiling = torch.compiler.is_compiling()
        first = _first(args, kwargs)
        if not compiling:
            if in_backward():  # a checkpoint around the whole model
                return self.mark(name, model, args, kwargs)
            for ride in self.route._rides:
                ride.keep_out_of_the_graph()
            self._awaits, self._shape = model.training, None
        self.route._kept.clear()
        self._calls.clear()
        self._inside.clear()
        if not (model.training or self.evaluates):
            return None
        if model.training:
            whole = whole_input(args, kwargs)
            if whole is not None:
                self.route._meter.add("", whole)
            device = self.route._now.device if first is None else first.device
            self.route._now = self.route._now.to(device) + torch.tensor((0, 1), device=device)
        if "tokens" in self._wants:
            self._tokens = first
        if first is None or compiling:
            return None
        self._passes.again = None
        self.mark(name, model, args, kwargs)
        if first.dim() < 2 or self.route._asked is None or self.route._asked >= first.shape[1]:
            return None
        self._shape = tuple(first.shape[:2]) if not first.is_floating_point() else None
        return without_cache(model, args, kwargs)

    def end(self, name: str, model: nn.Module, args: Any, output: Any) -> None:
        """The root model's forward ends; it has not failed."""
        if torch.compiler.is_compiling():
            return
        self._shape = None
        if self._awaits:
            self._awaits = False
            warnings.warn(
                f"this forward pass of {type(model).__name__} called no routed layer, so it dropped no "
                "token; if the model runs layer.forward(...), and not layer(...), hooks do not see it",
                stacklevel=2,
            )

    def mark(self, name: str, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a block that is not routed: remember whose input it is, or learn whose is run again."""
        x = _first(args, kwargs)
        if not layer.training or x is None:
            return
        compiling = torch.compiler.is_compiling()
        if name and (compiling or not in_backward()):
            self.route._meter.add(name, x)
        if compiling:
            return
        if in_backward():
            if self._passes.find(name, x) is None and self._stood_in is not None:
                raise self._cut(self._stood_in)
            self._stood_in = None
        else:
            self._passes.remember(name, x, Pass(self.route._now, self.route._asked or 0))

    def enter(self, name: str, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before a layer: hand it the kept tokens alone."""
        self._awaits = False
        if not (layer.training or self.evaluates):
            self._inside.pop(self._segments[name], None)
            return None
        names = self._names[name]
        given = dict(zip(names + [f"*args[{i}]" for i in range(len(args))], args, strict=False)) | kwargs
        first = names[0] if names and names[0] in given else next(iter(given), "none")
        hidden = given.get(first)
        if not isinstance(hidden, Tensor) or hidden.dim() != 3 or hidden.is_nested:
            got = tuple(hidden.shape) if isinstance(hidden, Tensor) else type(hidden).__name__
            raise ValueError(f"layer {name!r}: its first argument, {first!r}, is {got}; expected (B, S, C)")
        x = self._turned(hidden)
        inside = self._into(name, layer, x, given, hidden)
        if layer.training and (torch.compiler.is_compiling() or not in_backward()):
            self.route._meter.add(name, hidden if inside is None else self._turned(inside.taken))
        if inside is None:
            return None
        kept = Kept(inside.chosen.ids, len(x), inside.seq, self._heads[name], self.route.batch_first)
        for argument, value in given.items():
            if value is hidden:
                given[argument] = self._turned(inside.taken)
            else:
                given[argument] = self._travel(argument, value, kept, inside.moved)
        values = list(given.values())
        return tuple(values[: len(args)]), dict(zip(kwargs, values[len(args) :], strict=True))

    def _into(
        self, name: str, layer: nn.Module, x: Tensor, given: Mapping[str, Any], hidden: Tensor
    ) -> _Inside | None:
        """What goes into a layer of what comes: (B, S, C) where a segment begins, else (B, K, C)."""
        segment, again = self._segments[name], not torch.compiler.is_compiling() and in_backward()
        call = self._calls.get(name, 0)
        self._calls[name] = call + 1
        own, found = Pass(self.route._now, self.route._keep_now(), call), True
        if again:
            known = self._passes.find(name, x)
            own, found = known or self._passes.again or own, known is not None
        if name != segment:
            if found and own.chosen is not None:
                self._inside[segment] = _Inside(None, x, own.chosen, own.seq, [])
            inside = self._inside.get(segment)
            if inside is None:
                return None
            inside = self._inside[segment] = inside._replace(taken=x)
            own = own._replace(chosen=inside.chosen, seq=inside.seq)
        else:
            self._inside.pop(segment, None)
            inside = self._begin_segment(name, layer, x, given, own, hidden)
            if inside is not None and self._scope != "layer":
                own = own._replace(chosen=inside.chosen, seq=inside.seq)
        if not again:
            if not torch.compiler.is_compiling():
                self._passes.remember(name, x, own)
            if inside is not None:
                self.route._kept[name] = inside.chosen.ids
        return inside

    def _begin_segment(
        self,
        name: str,
        layer: nn.Module,
        x: Tensor,
        given: Mapping[str, Any],
        own: Pass,
        hidden: Tensor,
    ) -> _Inside | None:
        looks = self.route.check and not torch.compiler.is_compiling() and not in_backward()
        seq = x.shape[1]
        if looks and self._shape is not None and x.shape[:2] == self._shape[::-1] != self._shape:
            raise ValueError(
                f"layer {name!r} gets {tuple(hidden.shape)}, and the model was called with {self._shape}: "
                f"say attach(..., batch_first={not self.route.batch_first})"
            )
        if own.keep >= seq:
            return None
        if looks:
            self._look(name, layer, x, given, hidden)
        chosen = own.chosen or self._choose(name, layer, x, given, own)
        back = x if self._scope != "input" else None
        inside = self._inside[name] = _Inside(back, chosen.take(x), chosen, seq, [])
        return inside

    def _choose(self, name: str, layer: nn.Module, x: Tensor, given: Mapping[str, Any], own: Pass) -> Chosen:
        batch, seq = x.shape[:2]
        asked: dict[str, Any] = {}
        if "key" in self._wants:
            asked["key"] = self.route.seed, own.moment, self._places[name] + len(self._places) * own.call
        if "first_row" in self._wants:
            asked["first_row"] = self.route.rank * batch
        if "device" in self._wants:
            asked["device"] = x.device
        if "hidden" in self._wants:
            asked["hidden"] = x
        if "valid" in self._wants:
            asked["valid"] = padding(given, batch, seq)
        if "tokens" in self._wants:
            asked["tokens"] = self._tokens_of(batch, seq)
        if "gate" in self._wants:
            asked["gate"] = getattr(layer, type(self.route.router).__name__)
        if "state" in self._wants:
            asked["state"] = self.route._state
        chosen = self.route.router(batch, seq, own.keep, **asked)
        return chosen if isinstance(chosen, Chosen) else Chosen(chosen)

    def _tokens_of(self, batch: int, seq: int) -> Tensor:
        tokens = self._tokens
        if tokens is None or tokens.is_floating_point() or tuple(tokens.shape) != (batch, seq):
            got = "none" if tokens is None else f"{tokens.dtype} of shape {tuple(tokens.shape)}"
            raise ValueError(
                f"{self.route.router!r} needs the vocabulary ids of ({batch}, {seq}) tokens; the first "
                f"tensor that the model was called with is {got}"
            )
        return tokens

    def _travel(self, argument: str, value: Any, kept: Kept, moved: list[tuple[Any, Any]]) -> Any:
        known = Tensor if torch.compiler.is_compiling() else (Tensor, tuple, dict)  # it cannot compare others
        if not isinstance(value, known):
            return travel(argument, value, kept, self.route.token_args)
        for before, after in moved:  # layers of a segment are given the same objects
            if before is value:
                return after
        moved.append((value, travel(argument, value, kept, self.route.token_args)))
        return moved[-1][1]

    def _look(self, name: str, layer: nn.Module, x: Tensor, given: Mapping[str, Any], hidden: Tensor) -> None:
        """Refuse, before it first drops tokens, a layer that would take kept tokens for neighbours."""
        if name in self._checked:
            return
        self._checked.add(name)
        if is_packed(given):
            return
        plain = getattr(layer, "_orig_mod", layer)

        def run(ids: Tensor) -> Tensor:
            kept = Kept(ids[:1], len(x), x.shape[1], self._heads[name], self.route.batch_first)
            taken = x.gather(1, ids.unsqueeze(-1).expand_as(x))
            arguments = {
                argument: self._turned(taken)
                if value is hidden
                else travel(argument, value, kept, self.route.token_args)
                for argument, value in given.items()
            }
            positional = [arguments.pop(argument) for argument in list(arguments) if argument.startswith("*")]
            out = hidden_of(plain.forward(*positional, **arguments))
            return taken if out is None else self._turned(out)

        _probe.check(name, plain, x, run, router=self.route.router)

    def leave(self, name: str, layer: nn.Module, args: Any, output: Any) -> Any:
        """After a layer: put its output among the tokens that bypassed it, where its segment ends."""
        segment = self._segments[name]
        inside = self._inside.get(segment)
        if inside is None:
            return None
        out = hidden_of(output)
        if out is None:
            raise ValueError(
                f"layer {name!r} returns {type(output).__name__}; expected hidden states, alone or first in "
                "a tuple, a mapping or a dataclass"
            )
        y = self._turned(out)
        if y.shape != inside.taken.shape:
            raise ValueError(
                f"layer {name!r} makes {tuple(out.shape)} of the kept tokens; expected as many and as wide "
                f"as they came, {tuple(inside.taken.shape)}"
            )
        if name == self._ends[segment]:
            del self._inside[segment]
            if self._scope != "input":
                y = inside.chosen.put(self._all(name, inside, y), inside.taken, y, self._merge)
        return with_hidden(output, self._turned(y), inside.moved)

    def _all(self, name: str, inside: _Inside, y: Tensor) -> Tensor:
        """The hidden states that a segment began with, in the dtype that it ends with."""
        if inside.hidden is not None:
            return inside.hidden.to(y.dtype)
        if torch._C._autograd._top_saved_tensors_default_hooks(True) is None:
            raise self._cut(name)
        self._stood_in = name  # autograd takes the places from it alone; whoever reads the values gets nan
        return y.new_full((len(y), inside.seq, *y.shape[2:]), torch.nan).requires_grad_()

    def _cut(self, name: str) -> RuntimeError:
        return RuntimeError(
            f"layer {name!r} is run again without those before it, and {self.route.router!r} has tokens go "
            "around all of them: checkpoint each layer with use_reentrant=False, or all of them as one"
        )

    def _turned(self, x: Tensor) -> Tensor:
        """From the layout of the model to (B, S, C), and back."""
        return x if self.route.batch_first else x.transpose(0, 1)

    def _merge(self, hidden: Tensor, output: Tensor, ids: Tensor) -> Tensor:
        return merge(hidden, output, ids, in_place=self.route.in_place)


def _segments(layers: Mapping[str, nn.Module], *, alone: bool) -> dict[str, str]:
    """The layer that each layer's segment begins with: itself, or the first routed one of its stack."""
    begins: dict[str, str] = {}
    return {name: name if alone else begins.setdefault(name.rpartition(".")[0], name) for name in layers}


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
