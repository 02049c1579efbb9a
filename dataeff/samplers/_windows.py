"""A stream's batches, some of them at a time, cut anew: which step is in which window, planned when asked."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import attrs
import numpy as np

from dataeff.samplers._steps import Ints


@runtime_checkable
class Stream(Protocol):
    """What a token budget cuts: batches of one size over all ranks, any of them at once.

    Examples:
        >>> from dataeff.samplers import shuffled
        >>> isinstance(shuffled(4, batch_size=2, seed=1), Stream)
        True
    """

    batch_size: int
    """Samples in a batch over all ranks."""
    seed: int
    """Also of the order in which batches are cut."""
    steps: int
    """How many batches there are."""
    step: int
    """Where `load_state_dict` has left it."""

    def __len__(self) -> int:
        """How many batches there are."""

    def global_batch(self, step: int) -> Sequence[int]:
        """The ids of the batch of `step` over all ranks."""

    def state_dict(self, step: int | None = None) -> dict[str, Any]:
        """What goes on with `step`."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""


@attrs.define(eq=False)
class Windows:
    """Steps of batches that `cut` makes of `size` batches of a stream at a time.

    Where a window ends is remembered, and the batches of one; neither is pickled. The stream stays as it is
    from the first plan on.

    Args:
        cut: gives the batches of a window, in the order of their steps, of the ids of its samples.

    Examples:
        >>> from dataeff.samplers import shuffled
        >>> stream = shuffled(8, batch_size=2, seed=1)
        >>> windows = Windows(stream, 2, lambda ids, window: [ids[:3], ids[3:]])
        >>> windows.count, windows.of(1), windows.of(2), windows.of(4), len(windows.batch(2))
        (2, 0, 1, None, 3)
    """

    stream: Stream
    size: int
    cut: Callable[[Ints, int], list[Ints]]
    base: tuple[int, int] = attrs.field(init=False)
    """A window and its first step, from which on windows are planned."""
    _of: tuple[Any, int] = attrs.field(init=False)
    """The weights (of a mixture) and the steps that windows are cut of."""
    _ends: list[int] = attrs.field(init=False)
    """The last step, plus one, of each window from the base on."""
    _kept: tuple[int, list[Ints]] = attrs.field(init=False)
    """A window and its batches."""

    def __attrs_post_init__(self) -> None:
        self.begin(0, 0)

    def begin(self, window: int, first: int) -> None:
        """Plan from a window on, which begins with the step `first`, and of the stream as it is now."""
        self.base, self._ends, self._kept, self._of = (window, first), [], (-1, []), self._now()

    @property
    def count(self) -> int:
        """How many windows the stream has."""
        return -(-len(self.stream) // self.size)

    def of(self, step: int) -> int | None:
        """The window that a step is in, None beyond the last.

        Raises ValueError if the stream was given other weights or steps since a window was planned.
        """
        self._check()
        if step < self.base[1]:
            self.begin(0, 0)
        base, first = self.base
        ends = self._ends
        while step >= (ends[-1] if ends else first):
            window = base + len(ends)
            if window == self.count:
                return None
            ends.append((ends[-1] if ends else first) + len(self.batches(window)))
        return base + bisect_right(ends, step)

    def first(self, window: int) -> int:
        """The first step of a window that was planned up to, or one past the last step."""
        base, first = self.base
        return first if window == base else self._ends[window - base - 1]

    def batch(self, step: int) -> Ints:
        """The ids of a step's batch over all ranks. IndexError beyond the last."""
        window = self.of(step)
        if window is None:
            raise IndexError(f"step {step} is beyond the last window")
        return self.batches(window)[step - self.first(window)]

    def batches(self, window: int) -> list[Ints]:
        """The batches of a window, in the order of their steps."""
        if self._kept[0] != window:
            steps = range(window * self.size, min((window + 1) * self.size, len(self.stream)))
            ids = np.concatenate([self.stream.global_batch(step) for step in steps])
            self._kept = window, self.cut(ids, window)
        return self._kept[1]

    def _now(self) -> tuple[Any, int]:
        return getattr(self.stream, "weights", None), len(self.stream)

    def _check(self) -> None:
        (weights, steps), now = self._of, self._now()
        if now[0] is weights and now[1] == steps:
            return
        if self._ends:
            raise ValueError(
                "the stream was given other weights or steps, and windows of it are cut already; load a "
                "state whose step is its first, so between two windows, into a token_budget of the new stream"
            )
        self._of = now

    def __getstate__(self) -> tuple[Any, ...]:
        return self.stream, self.size, self.cut, self.base, self._of

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.stream, self.size, self.cut, self.base, self._of = state
        self._ends, self._kept = [], (-1, [])
