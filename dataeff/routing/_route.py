"""A route: what lets only some tokens into some layers of a model, as its user holds it."""

import copy
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import nn

from dataeff._check import count, whole
from dataeff.clock import Clock, Processed
from dataeff.pacing import amounts, as_pace, axis, constant
from dataeff.routing._adapters import Declared
from dataeff.routing._meter import Meter
from dataeff.routing._stack import unwrapped

Tensor = torch.Tensor


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
    token_args: Mapping[str, Declared]
    hidden_arg: str | None
    hidden_out: int | str
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
    _kept: dict[str, Tensor] = attrs.field(factory=dict, init=False, repr=False)
    _tried: bool = attrs.field(default=False, init=False, repr=False)
    """Whether any layer was tried."""
    _rides: list[Any] = attrs.field(factory=list, init=False, repr=False)
    _meter: Meter = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._scope = getattr(self.router, "scope", "layer")
        self._wants = set(inspect.signature(self.router).parameters)
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
        step = whole("step", step, low=0, high=2**63 - 1)
        if step == self._step and self.clock is None:
            return
        self._asked = self._amount(step if self.clock is None else self.clock)
        if self.check and self._kept and not self._tried:
            self._tried = True  # it is told once
            warnings.warn(
                "the layers of this routed model were compiled before any of them was tried, so it is not "
                "known whether they compute places, windows or recurrences by themselves: run one step "
                "without the compiler first, or say attach(..., check=False)",
                stacklevel=2,
            )
        if step != self._step:
            self._meter.clear()
            self._step = step
            self._now = torch.tensor([step, -1])

    def keep_at(self, seq: int, step: int | Clock | None = None) -> int:
        """How many of `seq` tokens enter a routed layer: what the pace says at `step` (now), or all."""
        return min(self._keep_now() if step is None else self._amount(step), seq)

    def kept(self) -> dict[str, Tensor]:
        """The ids that entered each routed layer in the last forward pass, by layer name. (B, keep).

        A layer that took all tokens is not in it. Where all rows keep the same tokens it is (1, keep).
        """
        return dict(self._kept)

    def layer_tokens(self, samples: int, seq: int) -> int:
        """The layer tokens that this step is to consume over all blocks of the model.

        With this route alone, and each block run once: `processed` counts what really ran.
        """
        return layer_tokens(samples, seq, self.keep_at(seq), layers=self.depth, routed=len(self.layers))

    def processed(self) -> Processed:
        """What each block really processed in training since the step was set, or the last call, for a clock.

        Over micro-batches, whatever their shapes; what is run again in the backward pass counts once. A block
        that did not run is there with 0.
        """
        done = self._meter.take(self.blocks)
        return done if self._scope != "input" else attrs.evolve(done, tokens=done.layers[self.blocks[-1]][0])

    def observe(self, tokens: Tensor, losses: Tensor) -> None:
        """Tell a router that learns from losses, as `token_bypass` does: the loss of each of `tokens`.

        Both of one shape: all tokens, or those that have a loss. Every process of torch.distributed must call
        it. Raises ValueError for another router.
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
            {count(f"keep is {amount!r} at some step", amount) for amount in amounts(as_pace(self.keep))},
            reverse=True,
        )
        before = self._step, self._asked, self._now, self._meter, self._state
        with torch.random.fork_rng():
            try:
                self._meter = Meter(self.batch_first)
                for amount in found:
                    self._asked = amount
                    run()
            finally:
                self._step, self._asked, self._now, self._meter, self._state = before
                self._kept.clear()
        return found

    def remove(self) -> None:
        """Take the routing off the model; nothing of it is left there."""
        while self._rides:
            self._rides.pop().remove()
        for layer in self.layers.values():
            plain = unwrapped(layer)
            if "gate" in self._wants and hasattr(plain, type(self.router).__name__):
                delattr(plain, type(self.router).__name__)

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
        fresh = {"_kept": {}, "_rides": [], "_meter": Meter(self.batch_first)}
        return self.__dict__ | fresh | {"clock": None}

    def _amount(self, step: int | Clock) -> int:
        if axis(self.keep) != "steps" and not isinstance(step, Clock):
            raise ValueError(
                f"keep is paced by {axis(self.keep)}, and there is no clock to read: set route.clock, or ask "
                "keep_at with one"
            )
        keep = self.keep(step)
        return count(f"keep is {keep!r} at step {step}", keep)

    def _keep_now(self) -> int:
        if self._asked is None:
            raise ValueError(
                "route.step is not set; set it before each training step, for keep to follow its pace"
            )
        return self._asked


def layer_tokens(samples: int, seq: int, keep: int, *, layers: int, routed: int) -> int:
    """Layer tokens of one step: samples * (keep * routed + seq * (layers - routed)), keep at most seq.

    Source: random-LTD, arXiv 2211.11586; `seq` is the step's actual length, so it holds under a curriculum.

    Examples:
        >>> layer_tokens(8, 512, 128, layers=12, routed=10)
        18432
    """
    return samples * (min(keep, seq) * routed + seq * (layers - routed))
