"""A route: the hooks that let only some tokens into some layers, and what they share."""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import attrs
import torch
from torch import nn

from dataeff._check import whole
from dataeff.clock import Clock, Processed
from dataeff.pacing import amounts, as_pace, constant
from dataeff.routers import Chosen
from dataeff.routing._adapters import Kept, arguments, heads, is_packed, padding, travel, without_cache
from dataeff.routing._meter import Meter
from dataeff.routing._outputs import hidden_of, with_hidden
from dataeff.routing._passes import Pass, Passes, in_backward
from dataeff.routing._probe import is_causal, reads_places
from dataeff.routing._residual import merge

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
class Route:
    """Token routing on a model; made by `attach`.

    Set `step` before each training step: the kept tokens depend on (seed, step, micro-batch, layer, row).
    Every forward pass of the model in training mode counts as one micro-batch of the step.

    Examples:
        >>> model = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(4)])
        >>> from dataeff.routing import attach
        >>> route = attach(model, keep=2, layers=model[1:3], seed=1234)
        >>> route.step = 0
        >>> _ = model(torch.zeros(1, 8, 4))
        >>> {name: tuple(ids.shape) for name, ids in route.kept().items()}
        {'1': (1, 2), '2': (1, 2)}
        >>> route.remove()
    """

    router: Callable[..., Any]
    keep: Callable[[Any], float]
    seed: int
    layers: dict[str, nn.Module] = attrs.field(repr=lambda layers: repr(list(layers)))
    blocks: list[str] = attrs.field(repr=lambda blocks: str(len(blocks)))
    """The names of the blocks of the model's stacks, routed or not."""
    clock: Clock | None = attrs.field(repr=False)
    """What `keep` reads where it is not paced by steps."""
    token_args: Mapping[str, int | Sequence[int]]
    rank: int
    """Of this process among those that hold other samples of the global batch."""
    in_place: bool
    """Whether outputs may be written into the hidden states that went in."""
    batch_first: bool
    """Whether hidden states are (B, S, C), and not (S, B, C)."""
    check: bool
    """Whether layers are checked for reading places by themselves, before they first drop tokens."""
    _step: int | None = attrs.field(default=None, init=False)
    _asked: int | None = attrs.field(default=None, init=False)
    _now: Tensor = attrs.field(factory=lambda: torch.tensor([0, -1]), init=False, repr=False)
    _state: Tensor | None = attrs.field(default=None, init=False, repr=False)
    _tokens: Tensor | None = attrs.field(default=None, init=False, repr=False)
    _shape: tuple[int, ...] | None = attrs.field(default=None, init=False, repr=False)
    _stood_in: str | None = attrs.field(default=None, init=False, repr=False)
    _passes: Passes = attrs.field(factory=Passes, init=False, repr=False)
    _kept: dict[str, Tensor] = attrs.field(factory=dict, init=False, repr=False)
    _calls: dict[str, int] = attrs.field(factory=dict, init=False, repr=False)
    _inside: dict[str, _Inside] = attrs.field(factory=dict, init=False, repr=False)
    _checked: set[str] = attrs.field(factory=set, init=False, repr=False)
    _rides: list[Any] = attrs.field(factory=list, init=False, repr=False)
    _meter: Meter = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._scope = getattr(self.router, "scope", "layer")
        self._wants = set(inspect.signature(self.router).parameters)
        self._names = {name: arguments(layer) for name, layer in self.layers.items()}
        self._segments = _segments(self.layers, alone=self._scope == "layer")
        self._ends = {begin: name for name, begin in self._segments.items()}  # the last one wins
        self._places = {begin: place for place, begin in enumerate(self._ends)}
        self._heads = {name: heads(layer) for name, layer in self.layers.items()}
        if "state" in self._wants:
            self._state = self.router.start()  # type: ignore[attr-defined]
        self._meter = Meter(self.batch_first)
        if isinstance(self.keep, constant):
            self._asked = self._amount(0)

    @property
    def evaluates(self) -> bool:
        """Whether tokens are routed in evaluation mode, too."""
        return getattr(self.router, "evaluates", False)

    @property
    def depth(self) -> int:
        """The number of blocks in the model's stacks, routed or not."""
        return len(self.blocks)

    @property
    def step(self) -> int:
        """The training step, 0 until it is set; another one begins with its first micro-batch."""
        return self._step or 0

    @step.setter
    def step(self, step: int) -> None:
        if whole("step", step, low=0) != self._step:
            self._meter.fold()
            self._asked = self._amount(step if self.clock is None else self.clock)
            self._step = whole("step", step, low=0)
            self._now = torch.tensor([self._step, -1])

    def keep_at(self, seq: int, step: int | Clock | None = None) -> int:
        """How many of `seq` tokens enter a routed layer: what the pace says at `step` (now), or all."""
        return min(self._keep_now() if step is None else self._amount(step), seq)

    def kept(self) -> dict[str, Tensor]:
        """The ids that entered each routed layer in the last forward pass, by layer name. (B, keep).

        A layer that took all tokens is not in it. Where all rows keep the same tokens it is (1, keep).
        """
        return dict(self._kept)

    def layer_tokens(self, samples: int, seq: int) -> int:
        """The layer tokens that this step is to consume over all blocks of the model."""
        return layer_tokens(samples, seq, self.keep_at(seq), layers=self.depth, routed=len(self.layers))

    def processed(self) -> Processed:
        """What each block really processed in training since the last call, for a clock.

        Over micro-batches, whatever their shapes; what is run again in the backward pass counts once. A block
        that did not run is there with 0.
        """
        done = self._meter.take(self.blocks)
        return done if self._scope != "input" else attrs.evolve(done, tokens=done.layers[self.blocks[-1]][0])

    def observe(self, tokens: Tensor, losses: Tensor) -> None:
        """Tell a router that learns from losses, as `token_bypass` does: the loss of each of `tokens`.

        Both of one shape: all tokens, or those that have a loss. Raises ValueError for another router.
        """
        if self._state is None:
            raise ValueError(f"{self.router!r} learns nothing from losses; observe() is for one that does")
        self._state = self.router.update(self._state, tokens, losses)  # type: ignore[attr-defined]

    def warmup(self, run: Callable[[], object]) -> list[int]:
        """Call `run`, a step of training on data that does not matter, once for each amount of the pace.

        The largest comes first, so that memory is laid out once; each is compiled before training. `run` is
        to do forward and backward and to zero the gradients, without a step of the optimizer. The route's
        step and the random state are afterwards what they were.

        Returns:
            The amounts, as they came.
        """
        found = sorted(
            {_as_count(amount, "at some step") for amount in amounts(as_pace(self.keep))}, reverse=True
        )
        before = self._step, self._asked, self._now, self._meter
        with torch.random.fork_rng():
            try:
                self._meter = Meter(self.batch_first)
                for amount in found:
                    self._asked = amount
                    run()
            finally:
                self._step, self._asked, self._now, self._meter = before
                self._kept.clear()
        return found

    def remove(self) -> None:
        """Take the routing off the model; nothing of it is left there."""
        while self._rides:
            self._rides.pop().remove()
        for layer in self.layers.values():
            if "gate" in self._wants and hasattr(layer, type(self.router).__name__):
                delattr(layer, type(self.router).__name__)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs between steps: plain numbers, and the table of a router that has one."""
        return {"step": self.step, "seed": self.seed} | (
            {} if self._state is None else {"router": self._state}
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`. Raises ValueError for one of another seed or router."""
        if set(state) != set(self.state_dict()) or state["seed"] != self.seed:
            expected = " and ".join(sorted(set(self.state_dict()) - {"seed"}))
            shown = {name: value for name, value in state.items() if name != "router"}
            raise ValueError(f"the state is {shown!r}; expected a {expected} and the seed {self.seed}")
        if self._state is not None and state["router"].shape != self._state.shape:
            shape = tuple(state["router"].shape)
            raise ValueError(f"the router's table is {shape}; expected {tuple(self._state.shape)}")
        self._state = state.get("router")
        self._step = None
        self.step = state["step"]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Route":
        twin = copy.copy(self)
        memo[id(self)] = twin
        twin.layers = copy.deepcopy(self.layers, memo)
        return twin

    def __getstate__(self) -> dict[str, Any]:  # of a copy, too: nothing of a pass that is under way
        fresh = {"_kept": {}, "_calls": {}, "_inside": {}, "_passes": Passes(), "_rides": [], "_tokens": None}
        return self.__dict__ | fresh | {"_meter": Meter(self.batch_first), "clock": None}

    def _amount(self, step: int | Clock) -> int:
        return _as_count(self.keep(step), f"at step {step}")

    def _keep_now(self) -> int:
        if self._asked is None:
            raise ValueError(
                "route.step is not set; set it before each training step, for keep to follow its pace"
            )
        return self._asked

    def _turned(self, x: Tensor) -> Tensor:
        """From the layout of the model to (B, S, C), and back."""
        return x if self.batch_first else x.transpose(0, 1)

    # What the hooks call

    def _begin(self, name: str, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The root model's forward begins: a new micro-batch, whatever a layer does or does again later."""
        compiling = torch.compiler.is_compiling()
        first = _first(args, kwargs)
        if not compiling:
            if in_backward():  # a checkpoint around the whole model
                return self._mark(name, model, args, kwargs)
            for ride in self._rides:
                ride.keep_out_of_the_graph()
        self._kept.clear()
        self._calls.clear()
        self._inside.clear()
        if not (model.training or self.evaluates):
            return None
        if model.training:
            if first is not None and first.dim() > 1:
                self._meter.add("", first)
            device = self._now.device if first is None else first.device
            self._now = self._now.to(device) + torch.tensor((0, 1), device=device)
        if "tokens" in self._wants:
            self._tokens = first
        if first is None or compiling:
            return None
        self._passes.again = None
        self._mark(name, model, args, kwargs)
        if first.dim() < 2 or self._asked is None or self._asked >= first.shape[1]:
            return None
        self._shape = tuple(first.shape[:2]) if not first.is_floating_point() else None
        return without_cache(model, args, kwargs)

    def _mark(self, name: str, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a block that is not routed: remember whose input it is, or learn whose is run again."""
        x = _first(args, kwargs)
        if not layer.training or x is None:
            return
        compiling = torch.compiler.is_compiling()
        if name and (compiling or not in_backward()):
            self._meter.add(name, x)
        if compiling:
            return
        if in_backward():
            if self._passes.find(name, x) is None and self._stood_in is not None:
                raise self._cut(self._stood_in)
            self._stood_in = None
        else:
            self._passes.remember(name, x, Pass(self._now, self._asked or 0))

    def _enter(self, name: str, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before a layer: hand it the kept tokens alone."""
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
            self._meter.add(name, hidden if inside is None else self._turned(inside.taken))
        if inside is None:
            return None
        kept = Kept(inside.chosen.ids, len(x), inside.seq, self._heads[name], self.batch_first)
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
        own, found = Pass(self._now, self._keep_now(), call), True
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
                self._kept[name] = inside.chosen.ids
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
        seq = x.shape[1]
        if own.keep >= seq:
            return None
        if self.check and not torch.compiler.is_compiling():
            self._look(name, layer, x, given, hidden)
        chosen = own.chosen or self._choose(name, layer, x, given, own)
        back = x if self._scope != "input" else None
        inside = self._inside[name] = _Inside(back, chosen.take(x), chosen, seq, [])
        return inside

    def _choose(self, name: str, layer: nn.Module, x: Tensor, given: Mapping[str, Any], own: Pass) -> Chosen:
        batch, seq = x.shape[:2]
        asked: dict[str, Any] = {}
        if "key" in self._wants:
            asked["key"] = self.seed, own.moment, self._places[name] + len(self._places) * own.call
        if "first_row" in self._wants:
            asked["first_row"] = self.rank * batch
        if "device" in self._wants:
            asked["device"] = x.device
        if "hidden" in self._wants:
            asked["hidden"] = x
        if "valid" in self._wants:
            asked["valid"] = padding(given, batch, seq)
        if "tokens" in self._wants:
            asked["tokens"] = self._tokens_of(batch, seq)
        if "gate" in self._wants:
            asked["gate"] = getattr(layer, type(self.router).__name__)
        if "state" in self._wants:
            asked["state"] = self._state
        chosen = self.router(batch, seq, own.keep, **asked)
        return chosen if isinstance(chosen, Chosen) else Chosen(chosen)

    def _tokens_of(self, batch: int, seq: int) -> Tensor:
        tokens = self._tokens
        if tokens is None or tokens.is_floating_point() or tuple(tokens.shape) != (batch, seq):
            got = "none" if tokens is None else f"{tokens.dtype} of shape {tuple(tokens.shape)}"
            raise ValueError(
                f"{self.router!r} needs the vocabulary ids of ({batch}, {seq}) tokens; the first tensor that "
                f"the model was called with is {got}"
            )
        return tokens

    def _travel(self, argument: str, value: Any, kept: Kept, moved: list[tuple[Any, Any]]) -> Any:
        known = Tensor if torch.compiler.is_compiling() else (Tensor, tuple, dict)  # it cannot compare others
        if not isinstance(value, known):
            return travel(argument, value, kept, self.token_args)
        for before, after in moved:  # layers of a segment are given the same objects
            if before is value:
                return after
        moved.append((value, travel(argument, value, kept, self.token_args)))
        return moved[-1][1]

    def _look(self, name: str, layer: nn.Module, x: Tensor, given: Mapping[str, Any], hidden: Tensor) -> None:
        """Refuse, before it first drops tokens, a layer that would take kept tokens for neighbours."""
        if name in self._checked:
            return
        self._checked.add(name)
        if self._shape is not None and x.shape[:2] == self._shape[::-1] != self._shape:
            shape = tuple(self._turned(x).shape)
            raise ValueError(
                f"layer {name!r} gets {shape}, and the model was called with {self._shape}: say "
                f"attach(..., batch_first={not self.batch_first})"
            )
        if is_packed(given):
            return
        plain = getattr(layer, "_orig_mod", layer)

        def run(ids: Tensor) -> Tensor:
            kept = Kept(ids[:1], len(x), x.shape[1], self._heads[name], self.batch_first)
            taken = x.gather(1, ids.unsqueeze(-1).expand_as(x))
            arguments = {
                argument: self._turned(taken)
                if value is hidden
                else travel(argument, value, kept, self.token_args)
                for argument, value in given.items()
            }
            positional = [arguments.pop(argument) for argument in list(arguments) if argument.startswith("*")]
            out = hidden_of(plain.forward(*positional, **arguments))
            return taken if out is None else self._turned(out)

        if reads_places(plain, x, run):
            raise ValueError(
                f"layer {name!r} knows by itself where its tokens stand: with the others in another order, "
                "its last token comes out differently. It would take kept tokens for neighbours (it computes "
                "positions, a window, a convolution or a recurrence). Give it positions as an argument, "
                "leave it out (layers=[...]), or, if that is meant, say attach(..., check=False)"
            )
        if getattr(self.router, "looks_ahead", False) and is_causal(plain, x, run):
            raise ValueError(
                f"layer {name!r} is causal, and {self.router!r} lets tokens see later ones; take another one"
            )

    def _leave(self, name: str, layer: nn.Module, args: Any, output: Any) -> Any:
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
            f"layer {name!r} is run again without those before it, and {self.router!r} has tokens go around "
            "all of them: checkpoint each layer with use_reentrant=False, or all of them as one"
        )

    def _merge(self, hidden: Tensor, output: Tensor, ids: Tensor) -> Tensor:
        return merge(hidden, output, ids, in_place=self.in_place)


def _as_count(keep: float, where: str) -> int:
    if keep < 1 or keep != int(keep):
        raise ValueError(
            f"keep is {keep!r} {where}; expected a whole number of at least 1: "
            "give the pace multiple= (or wrap it in pacing.multiple) and a start of at least 1"
        )
    return int(keep)


def _segments(layers: Mapping[str, nn.Module], *, alone: bool) -> dict[str, str]:
    """The layer that each layer's segment begins with: itself, or the first routed one of its stack."""
    begins: dict[str, str] = {}
    return {name: name if alone else begins.setdefault(name.rpartition(".")[0], name) for name in layers}


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)


def layer_tokens(samples: int, seq: int, keep: int, *, layers: int, routed: int) -> int:
    """Layer tokens of one step: samples * (keep * routed + seq * (layers - routed)), keep at most seq.

    Source: random-LTD, arXiv 2211.11586; `seq` is the step's actual length, so it holds under a curriculum.

    Examples:
        >>> layer_tokens(8, 512, 128, layers=12, routed=10)
        18432
    """
    return samples * (min(keep, seq) * routed + seq * (layers - routed))
