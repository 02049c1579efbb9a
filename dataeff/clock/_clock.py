"""What training has consumed so far, in exact integers."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import distributed

from dataeff._check import real, whole
from dataeff.clock._counts import AXES, COUNTED, Meter, Processed, added, none, over_ranks

_ALWAYS = ("steps", "samples", "tokens")
_SOURCES = {"layer_tokens": "route= (or layer_tokens=)", "flops": "route= and cost= (or flops=)"}


class Clock:
    """Steps, samples, tokens, loss tokens, layer tokens, FLOPs and wall time; one `tick` a training step.

    All but the time are whole numbers, exact at any size. A layer token is one token that one layer
    processed: a step of B samples of S tokens through L layers, of which R keep only K tokens, consumes
    B * (K * R + S * (L - R)) of them (random-LTD, arXiv 2211.11586). Tokens are those of the data, without
    padding; loss tokens those that had a loss.

    On several ranks each ticks what it trained on itself. `read`, called by all of them, adds up what came
    since the last time; a count that is asked for in between is an error, never the share of one rank.

    Args:
        group: the processes that hold other samples of the global batch, a torch.distributed group; by
            default all.
        timer: gives nanoseconds.
        counts: where to begin, as `steps=1000`.

    Examples:
        >>> clock = Clock()
        >>> clock.tick(samples=8, tokens=8 * 512, layer_tokens=8 * (128 * 10 + 512 * 2))
        >>> clock
        Clock(steps=1, samples=8, tokens=4096, layer_tokens=18432)
        >>> clock.reached(tokens=4096, steps=100)
        True
        >>> resumed = Clock()
        >>> resumed.load_state_dict(clock.state_dict())
        >>> resumed == clock
        True
    """

    def __init__(
        self, *, group: Any = None, timer: Callable[[], int] = time.monotonic_ns, **counts: int
    ) -> None:
        if strange := [name for name in counts if name not in AXES]:
            raise ValueError(f"a clock has no {strange[0]!r}; it counts {', '.join(AXES)}")
        self._group, self._timer = group, timer
        self._read = none() | {name: whole(name, count, low=0) for name, count in counts.items()}
        self._own = none()
        self._given, self._ticked = set(_ALWAYS), False
        self._since: int | None = timer()
        self._pauses = 0

    @property
    def steps(self) -> int:
        """Training steps, the same on every rank."""
        return self._read["steps"] + self._own["steps"]

    @property
    def samples(self) -> int:
        """Samples, over all ranks."""
        return self._count("samples")

    @property
    def tokens(self) -> int:
        """Tokens of the data, without padding, over all ranks."""
        return self._count("tokens")

    @property
    def loss_tokens(self) -> int:
        """Tokens that had a loss, over all ranks."""
        return self._count("loss_tokens")

    @property
    def layer_tokens(self) -> int:
        """Tokens times the layers that processed them, over all ranks."""
        return self._count("layer_tokens")

    @property
    def flops(self) -> int:
        """Floating-point operations of forward and backward passes, over all ranks."""
        return self._count("flops")

    @property
    def seconds(self) -> float:
        """Wall time up to the last tick, with that of runs before, without pauses; the mean over ranks."""
        return self._count("wall_ns") / 1e9

    def tick(
        self,
        *,
        samples: int,
        tokens: int,
        loss_tokens: int | None = None,
        layer_tokens: int | None = None,
        flops: int | None = None,
        route: Meter | None = None,
        cost: Callable[[Processed], int] | None = None,
    ) -> None:
        """Count one step, of this rank alone.

        Args:
            samples: of this rank's part of the global batch, over its micro-batches.
            tokens: of those samples, as trained on, without padding.
            loss_tokens: how many of them had a loss.
            layer_tokens: over all layers, where no `route` counts them.
            flops: of the forward and backward passes, where no `cost` says.
            route: what counted the tokens that each layer processed in this step.
            cost: the FLOPs of that, as a `dataeff.flops.Cost`.

        Raises:
            ValueError: an amount that is no whole number of at least 0, one that is given twice, or a route
                that has processed nothing. Nothing is counted then, nor where `cost` raises; but what the
                route has counted is taken from it.
        """
        if route is not None and layer_tokens is not None:
            raise ValueError("tick has layer_tokens and a route that counts them; give one of the two")
        if cost is not None and (flops is not None or route is None):
            raise ValueError("tick has a cost; expected a route with it, and no flops")
        given = {"samples": samples, "tokens": tokens}
        maybe = {"loss_tokens": loss_tokens, "layer_tokens": layer_tokens, "flops": flops}
        given |= {name: amount for name, amount in maybe.items() if amount is not None}
        counts = none() | {name: whole(name, amount, low=0) for name, amount in given.items()}
        if route is not None:
            processed = route.processed()
            if samples and not processed.layer_tokens:
                raise ValueError(
                    "the route processed nothing in this step: tick after the forward pass and before the "
                    "next step is set, with the model in training mode"
                )
            more = {"layer_tokens": processed.layer_tokens}
            more |= {"flops": whole("flops", cost(processed), low=0)} if cost is not None else {}
            given, counts = given | more, counts | more
        self._given.update(given)
        self._ticked = True
        self._own = added(self._own, counts | {"steps": 1, "wall_ns": self._lap()})
        if not self._shared():
            self._read, self._own = added(self._read, self._own), none()

    def read(self) -> dict[str, int | float]:
        """The counts over all ranks, and the seconds. Every rank must call it: it is one reduction.

        Raises ValueError, on every rank, if they have not ticked as many steps, or if the process group is
        gone before it was called.
        """
        if self._own["steps"] and not self._shared():
            raise ValueError(
                f"{self._own['steps']} steps were ticked on several ranks, and the process group is gone; "
                "call clock.read() on every rank before destroy_process_group"
            )
        self._read, self._own = added(self._read, over_ranks(self._own, self._group)), none()
        return self.counts()

    def counts(self) -> dict[str, int | float]:
        """The counts and the seconds as a plain dictionary, for any logger.

        Raises ValueError if they were not read since the last tick on several ranks.
        """
        return {axis: self._count(axis) for axis in AXES} | {"seconds": self.seconds}

    def at(self, axis: str) -> int:
        """The count on one of `AXES`, for what is paced by it.

        Raises ValueError for another name, for what was not counted though steps were, since the last state
        was loaded if one was, and for what was not read since the last tick on several ranks.
        """
        if axis not in AXES:
            raise ValueError(f"on is {axis!r}; expected one of {', '.join(AXES)}")
        count = self._count(axis)
        if axis not in self._given and (self._ticked or (count == 0 and self.steps)):
            when = f"since a state with {count} was loaded" if count else f"in {self.steps} steps"
            raise ValueError(
                f"no {axis} were counted {when}, so nothing can be paced or ended by them; "
                f"give {_SOURCES.get(axis, f'{axis}=')} to tick"
            )
        return count

    def reached(self, **limits: float) -> bool:
        """Whether any of the limits is reached: `clock.reached(tokens=300_000_000_000, seconds=3600)`.

        Raises ValueError for a limit that is not on a clock, none at all, or one that nobody counts.
        """
        known = (*AXES, "seconds")
        if not limits or not set(limits) <= set(known):
            raise ValueError(f"the limits are {limits}; expected at least one of {', '.join(known)}")
        limits = {name: real(name, limit, low=0) for name, limit in limits.items()}
        now = {name: self.seconds if name == "seconds" else self.at(name) for name in limits}
        return any(now[name] >= limit for name, limit in limits.items())

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """In its block, as of an evaluation, no wall time counts."""
        (self._own if self._shared() else self._read)["wall_ns"] += self._lap()
        self._since = None
        self._pauses += 1
        try:
            yield
        finally:
            self._pauses -= 1
            self._since = None if self._pauses else self._timer()

    def state_dict(self) -> dict[str, int]:
        """The counts over all ranks, as plain integers: read them first, then any rank's will do."""
        return {name: self._count(name) for name in COUNTED}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, on any number of ranks. Raises ValueError, changing nothing, if it is none."""
        if not isinstance(state, Mapping) or set(state) != set(COUNTED):
            found = list(state) if isinstance(state, Mapping) else state
            raise ValueError(f"a clock's state has the keys {list(COUNTED)}; got {found}")
        self._read = {name: whole(name, state[name], low=0) for name in COUNTED}
        self._own, self._since = none(), None if self._pauses else self._timer()
        self._given, self._ticked = set(_ALWAYS), False

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy's time begins when it is made, in no pause."""
        self.__dict__.update(state)
        self._since, self._pauses = self._timer(), 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Clock):
            return NotImplemented
        return all(self._read[a] + self._own[a] == other._read[a] + other._own[a] for a in AXES)

    def __repr__(self) -> str:
        counted = added(self._read, self._own)
        told = [f"{axis}={counted[axis]}" for axis in AXES if counted[axis]]
        return f"Clock({', '.join(told)})"

    def _count(self, axis: str) -> int:
        if axis != "steps" and self._own["steps"]:
            raise ValueError(
                f"{self._own['steps']} steps were ticked since the clock was read, so {axis} are not known "
                "over all ranks; call clock.read() on every rank first"
            )
        return self._read[axis] + (self._own[axis] if axis == "steps" else 0)

    def _lap(self) -> int:
        """The nanoseconds since the last one; none in a pause."""
        if self._since is None:
            return 0
        before, self._since = self._since, self._timer()
        return self._since - before

    def _shared(self) -> bool:
        ready = distributed.is_available() and distributed.is_initialized()
        return ready and distributed.get_world_size(self._group) > 1
