"""How many samples of each step every domain gives: whole numbers as close to its weights as can be."""

from collections.abc import Mapping, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from dataeff._check import real
from dataeff._kernel import kernel
from dataeff.pacing import Pace, table

Ints = NDArray[np.int64]

_ONE = 2**32  # shares are counted in parts of it, so that they add up exactly
_EVERY = 64  # steps between those that are remembered


@attrs.frozen(eq=False)
class Quotas:
    """The draws of each domain step by step, `batch_size` in all, from where it stood at step `since`.

    Each step a domain is owed its share of the batch and what it was owed before; it is given the whole part,
    and the rest goes to those that are owed most. So its draws never differ by more than about one from its
    share of all. What a step gives follows from (`drawn`, `owed`) at any step before.

    Args:
        shares: of each domain at steps 0, 1, ..., the last of which stay. (steps, domains); each row adds up
            to 2**32.
        batch_size: draws a step.
        steps: how many are asked for.
        since: the first of them.
        drawn: how many draws each domain had given before it.
        owed: how much more than that its shares were, in parts of 2**32.

    Examples:
        >>> quotas = Quotas(np.array([[2**31, 2**31]]), 3, steps=4, since=0, drawn=[0, 0], owed=[0, 0])
        >>> [quotas.at(step)[0].tolist() for step in range(4)]
        [[0, 0], [2, 1], [3, 3], [5, 4]]
    """

    shares: Ints
    batch_size: int
    steps: int
    since: int
    drawn: Sequence[int]
    owed: Sequence[int]
    _held: Ints = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        rows = max(self.steps - self.since, 0) // _EVERY + 1
        held = np.empty((rows, 2, self.shares.shape[1]), np.int64)
        held[0] = self.drawn, self.owed
        _remember(self.shares, self.batch_size, self.since, held)
        object.__setattr__(self, "_held", held)

    def at(self, step: int) -> tuple[Ints, Ints]:
        """What each domain had given and was owed before `step`: two of (domains,) int64."""
        row = min((step - self.since) // _EVERY, len(self._held) - 1)
        drawn, owed = self._held[row].copy()
        _advance(self.shares, self.batch_size, self.since + row * _EVERY, step, drawn, owed)
        return drawn, owed


def shares(weights: Mapping[str, Pace]) -> Ints:
    """The share of each domain in a batch at every step until all paces end, in parts of 2**32.

    Examples:
        >>> from dataeff.pacing import constant
        >>> shares({"web": constant(3), "code": constant(1)}).tolist() == [[3 * 2**30, 2**30]]
        True
    """
    tables = [np.array(table(pace), np.float64) for pace in weights.values()]
    last = max(map(len, tables))
    amounts = np.stack([np.pad(own, (0, last - len(own)), "edge") for own in tables], 1)
    if (bad := np.argwhere(~(np.isfinite(amounts) & (amounts >= 0)))).size:
        step, d = bad[0].tolist()
        real(f"the weight of {list(weights)[d]!r} at step {step}", amounts[step, d].item(), low=0)
    if (none := np.flatnonzero(amounts.sum(1) == 0)).size:
        raise ValueError(f"all weights are 0 at step {none[0]}; expected one above 0 at every step")
    exact = amounts / amounts.max(1, keepdims=True)
    parts = np.floor(exact / exact.sum(1, keepdims=True) * _ONE).astype(np.int64)
    parts[np.arange(len(parts)), parts.argmax(1)] += _ONE - parts.sum(1)
    return np.asarray(parts)


@kernel
def _advance(shares: Ints, batch_size: int, start: int, stop: int, drawn: Ints, owed: Ints) -> None:
    many = len(drawn)
    given = np.empty(many, np.int64)
    for step in range(start, stop):
        row = min(step, len(shares) - 1)
        rest = batch_size
        for d in range(many):
            owed[d] += batch_size * shares[row, d]
            given[d] = max(owed[d] >> 32, 0) if shares[row, d] else 0
            rest -= given[d]
        while rest:
            best = -1
            for d in range(many):
                if shares[row, d] and (rest > 0 or given[d]):
                    left = owed[d] - (given[d] << 32)
                    most = owed[best] - (given[best] << 32)
                    if best < 0 or (left > most if rest > 0 else left < most):
                        best = d
            change = 1 if rest > 0 else -1
            given[best] += change
            rest -= change
        for d in range(many):
            drawn[d] += given[d]
            owed[d] -= given[d] << 32


@kernel
def _remember(shares: Ints, batch_size: int, since: int, held: Ints) -> None:
    for row in range(1, len(held)):
        held[row] = held[row - 1]
        start = since + (row - 1) * _EVERY
        _advance(shares, batch_size, start, start + _EVERY, held[row, 0], held[row, 1])
