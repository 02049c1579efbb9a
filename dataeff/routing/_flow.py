"""What the hooks of a route do in a forward pass: tokens go into layers, and around them."""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import attrs
import torch
from torch import nn

from dataeff.routers import Chosen
from dataeff.routing._adapters import arguments, heads, torch_heads, travel, without_cache
from dataeff.routing._choose import choose
from dataeff.routing._given import Given, Layout, Moved, as_many, entries, given_to, refuse_written
from dataeff.routing._guard import Guard
from dataeff.routing._inputs import first_tensor, hidden_states, vocabulary_ids, whole_input
from dataeff.routing._outputs import hidden_of, with_hidden
from dataeff.routing._passes import Found, Pass, Passes, in_backward
from dataeff.routing._residual import merge
from dataeff.routing._route import Route
from dataeff.routing._rules import Kept
from dataeff.routing._trials import Trials

Tensor = torch.Tensor


class _Inside(NamedTuple):
    """Tokens inside a routed layer, or on their way through several."""

    hidden: Tensor | None
    """All tokens, (B, S, C); None where they do not come back, or a segment is run again in part."""
    taken: Tensor
    chosen: Chosen
    seq: int
    moved: list[Moved]
    """What came with the tokens."""
    layout: Layout
    version: int | None
    """Of what was taken where the segment begins, to see whether its layer writes into it; then None."""


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
    found: bool = False
    """Whether the layers were found by themselves."""
    marked: Mapping[str, nn.Module] = attrs.field(factory=dict)
    """The blocks beside the layers, by name."""
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
    _trials: Trials = attrs.field(init=False, repr=False)
    _awaits: bool = attrs.field(default=False, init=False, repr=False)
    """Whether a training pass began and no routed layer was called yet."""
    _moment: Tensor | None = attrs.field(default=None, init=False, repr=False)
    """The step and the micro-batch that calls are counted in."""
    _guard: Guard = attrs.field(factory=Guard, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        layers, self._scope = self.route.layers, self.route._scope
        self._trials = Trials(self.route, self._kept)
        self._names = {name: arguments(layer) for name, layer in (layers | dict(self.marked)).items()}
        self._heads = {name: (torch_heads(layer), heads(layer)) for name, layer in layers.items()}
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
            "_tokens": None,
            "_awaits": False,
            "_guard": Guard(),
        }

    def begin(self, name: str, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The root model's forward begins: a new micro-batch, whatever a layer does or does again later."""
        compiling = torch.compiler.is_compiling()
        first = first_tensor(args, kwargs)
        if not compiling:
            if in_backward():  # a checkpoint around the whole model
                return self.mark(name, model, args, kwargs)
            for ride in self.route._rides:
                ride.keep_out_of_the_graph()
            self._awaits, self._shape = model.training, None
            self._passes.begin()
            self._guard.begin()
            self._guard.refuse_unshared(self.route)
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
        if "tokens" in self.route._wants:
            self._tokens = vocabulary_ids(arguments(model), args, kwargs)
        if first is None or compiling:
            return None
        self.mark(name, model, args, kwargs)
        if first.dim() < 2 or self.route._asked is None or self.route._asked >= first.shape[1]:
            return None
        self._shape = tuple(first.shape[:2]) if not first.is_floating_point() else None
        return without_cache(model, args, kwargs)

    def end(self, name: str, model: nn.Module, args: Any, output: Any) -> None:
        """The root model's forward ends; it has not failed."""
        if torch.compiler.is_compiling() or in_backward():
            return
        self._shape = None
        self._guard.end()
        for begin in self._inside:
            if self._scope == "span":
                raise RuntimeError(
                    f"{self.route.router!r} has tokens go around all layers from {begin!r} to "
                    f"{self._ends[begin]!r}, and the last did not run after the first: they are lost. Give "
                    "layers in the order in which they run, without one that is left out at times"
                )
        if self._awaits:
            self._awaits = False
            warnings.warn(
                f"this forward pass of {type(model).__name__} called no routed layer, so it dropped no "
                "token; if the model runs layer.forward(...), and not layer(...), hooks do not see it",
                stacklevel=2,
            )

    def mark(self, name: str, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a block that is not routed: remember whose input it is, or learn whose is run again."""
        x = self._comes(name, args, kwargs)
        compiling = torch.compiler.is_compiling()
        if not compiling:
            self._guard.refuse_left(name, (args, kwargs))
        if not layer.training or x is None:
            return
        if name and not compiling and not in_backward():
            self._guard.refuse_added(name, x)
        if name and (compiling or not in_backward()):
            self.route._meter.add(name, x if x.dim() > 2 else self._turned(x.unsqueeze(0)))
        if compiling:
            return
        if in_backward():
            found = self._passes.find(name, x)
            if self._stood_in is not None and not (found and found.first):
                raise self._cut(self._stood_in)
            self._stood_in = None
        else:
            self._passes.remember(name, x, Pass(self.route._now, self.route._asked or 0))

    def _goes_on(self, name: str) -> bool:
        """Whether tokens are on their way through a segment in which a layer is in evaluation mode."""
        return name != self._segments[name] and self._segments[name] in self._inside

    def _comes(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        if not name:
            return first_tensor(args, kwargs)
        return hidden_states(args, kwargs, self._names[name], self.route.hidden_arg)

    def enter(self, name: str, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before a layer: hand it the kept tokens alone."""
        self._awaits = False
        if not (layer.training or self.evaluates or self._goes_on(name)):
            self._inside.pop(self._segments[name], None)
            return None
        if not torch.compiler.is_compiling():
            self._refuse(name, args, kwargs)
        given = given_to(
            name,
            layer,
            self._names[name],
            args,
            kwargs,
            batch_first=self.route.batch_first,
            shape=self._shape,
            hidden_arg=self.route.hidden_arg,
        )
        if not torch.compiler.is_compiling() and not in_backward():
            self._guard.refuse_added(name, given.hidden)
        inside = self._into(given)
        if layer.training and (torch.compiler.is_compiling() or not in_backward()):
            self.route._meter.add(name, self._turned(given.x if inside is None else inside.taken))
        if inside is None:
            return None
        kept = self._kept(given, inside.chosen.ids, inside.seq)

        def travels(argument: str, value: Any) -> Any:
            return self._travel(argument, value, kept, inside.moved)

        return given.with_tokens(given.layout.given(inside.taken), travels)

    def _refuse(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._guard.refuse_left(name, (args, kwargs))
        if in_backward():
            return
        self._guard.refuse_another_thread()
        if self.found:
            self._guard.refuse_in_turn(name, again=self._calls.get(name, 0) > 0)

    def _kept(self, given: Given, ids: Tensor, seq: int) -> Kept:
        own, any_heads = self._heads[given.name]
        prefix = getattr(self.route.router, "prefix", 0)
        return Kept(ids, len(given.x), seq, own, self.route.batch_first, any_heads, prefix)

    def _into(self, given: Given) -> _Inside | None:
        """What goes into a layer of what comes: (B, S, C) where a segment begins, else (B, K, C)."""
        name, x = given.name, given.x
        segment, again = self._segments[name], not torch.compiler.is_compiling() and in_backward()
        own, first = self._again(name, x) if again else (self._asked(name), False)
        if name != segment:
            if first and own.chosen is not None:
                self._inside[segment] = _Inside(None, x, own.chosen, own.seq, [], given.layout, None)
            inside = self._inside.get(segment)
            if inside is None:
                return None
            inside = self._inside[segment] = inside._replace(taken=x, version=None)
            own = own._replace(chosen=inside.chosen, seq=inside.seq)
        else:
            self._inside.pop(segment, None)
            inside = self._begin_segment(given, own)
            if inside is not None and self._scope != "layer":
                own = own._replace(chosen=inside.chosen, seq=inside.seq)
        if not again:
            if not torch.compiler.is_compiling():
                self._passes.remember(name, x, own)
            if inside is not None:
                self.route._kept[name] = inside.chosen.ids
        return inside

    def _asked(self, name: str) -> Pass:
        if not torch.compiler.is_compiling() and self._moment is not self.route._now:
            self._moment = self.route._now  # a step may begin without the model's own forward
            self._calls.clear()
        call = self._calls.get(name, 0)
        self._calls[name] = call + 1
        return Pass(self.route._now, self.route._keep_now(), call)

    def _again(self, name: str, x: Tensor) -> Found:
        """What the forward pass asked of a layer that is run again in the backward pass."""
        found = self._passes.find(name, x)
        if found is None and self.route._keep_now() < x.shape[1]:
            raise RuntimeError(
                f"layer {name!r} is run again in the backward pass, and it can't be told of which forward "
                "pass, so which tokens it is to get: say checkpoint(..., use_reentrant=False), or checkpoint "
                "the layer itself, with another input tensor in each pass"
            )
        return found or Found(Pass(self.route._now, self.route._keep_now()), True)

    def _begin_segment(self, given: Given, own: Pass) -> _Inside | None:
        x = given.x
        looks = self.route.check and not torch.compiler.is_compiling() and not in_backward()
        seq = x.shape[1]
        if looks and self._shape is not None and x.shape[:2] == self._shape[::-1] != self._shape:
            raise ValueError(
                f"layer {given.name!r} gets {tuple(given.hidden.shape)}, and the model was called with "
                f"{self._shape}: say attach(..., batch_first={not self.route.batch_first})"
            )
        if own.keep >= seq:
            if looks and len(x) > seq:
                self._trials.of_layout(given)
            return None
        place = self._places[given.name] + len(self._places) * own.call
        chosen = own.chosen or choose(self.route, given, own, place=place, tokens=self._tokens)
        if looks:
            self._trials.of(given, chosen.ids)
        back, taken = x if self._scope != "input" else None, chosen.take(x)
        inside = _Inside(back, taken, chosen, seq, [], given.layout, _version(taken))
        self._inside[given.name] = inside
        return inside

    def _travel(self, argument: str, value: Any, kept: Kept, moved: list[Moved]) -> Any:
        compiling = torch.compiler.is_compiling()  # it cannot compare others
        known = Tensor if compiling else (Tensor, tuple, list, Mapping)
        if not isinstance(value, known):
            return travel(argument, value, kept, self.route.token_args)
        for own in moved:  # layers of a segment are given the same objects
            if own.argument == argument and own.before is value:
                return own.after
        made = travel(argument, value, kept, self.route.token_args)
        moved.append(Moved(argument, value, made, entries(made)))
        return made

    def leave(self, name: str, layer: nn.Module, args: Any, output: Any) -> Any:
        """After a layer: put its output among the tokens that bypassed it, where its segment ends."""
        eager = not torch.compiler.is_compiling()
        if eager and (layer.training or self.evaluates) and not in_backward():
            self._guard.refuse_another_thread()
        segment = self._segments[name]
        inside = self._inside.get(segment)
        if inside is None:
            return None
        out = hidden_of(output, self.route.hidden_out)
        if out is None:
            raise ValueError(
                f"layer {name!r} returns {type(output).__name__}; expected hidden states, alone or first in "
                "a tuple, a mapping or a dataclass, or where attach(..., hidden_out=...) says; it is "
                f"{self.route.hidden_out!r}"
            )
        refuse_written(name, inside.moved, inside.taken.shape[1])
        y = as_many(name, inside.layout.rows(out), inside.taken)
        if name == self._ends[segment]:
            del self._inside[segment]
            if self._scope != "input":
                came = inside.hidden.grad_fn if eager and inside.hidden is not None else None
                y = inside.chosen.put(self._all(name, inside, y), self._before(inside), y, self._merge)
                if eager:
                    if self.route.check:
                        self._guard.merged(name, came, y.grad_fn)
                    keep = inside.taken.shape[1]
                    self._guard.remember(name, output, out, keep=keep, moved=inside.moved)
        return with_hidden(output, inside.layout.given(y), inside.moved, self.route.hidden_out)

    def _before(self, inside: _Inside) -> Tensor:
        """What entered the segment, of which a layer may have written into it since."""
        asks = inside.chosen.weights is not None or inside.chosen.owners is not None
        if not asks or inside.hidden is None or _version(inside.taken) == inside.version is not None:
            return inside.taken
        return inside.chosen.take(inside.hidden)

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


def _version(x: Tensor) -> int | None:
    """How often it was written into; None where nobody counts."""
    return None if torch.compiler.is_compiling() or x.is_inference() else x._version


def _segments(layers: Mapping[str, nn.Module], *, alone: bool) -> dict[str, str]:
    """The layer that each layer's segment begins with: itself, or the first routed one of its stack."""
    begins: dict[str, str] = {}
    return {name: name if alone else begins.setdefault(name.rpartition(".")[0], name) for name in layers}
