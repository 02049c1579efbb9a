"""What layers processed, counted where it happens."""

from collections.abc import Iterable
from typing import Any

import attrs
import torch

from dataeff.clock import Processed


class _Seen:
    """One input, and those before it, as a chain.

    Compiled code may add to a chain without being compiled anew for each of its lengths; of a list or a
    number it would watch the length or the value.
    """

    def __init__(self, before: "_Seen | None", name: str, shape: Any) -> None:
        self.before, self.name, self.shape = before, name, shape


_START = _Seen(None, "", ())


@attrs.define(eq=False)
class Meter:
    """The inputs of a model and of its layers in training, until they are taken.

    Examples:
        >>> meter = Meter()
        >>> meter.add("", torch.zeros(2, 16, dtype=torch.int64))
        >>> meter.add("h.0", torch.zeros(2, 16, 8))
        >>> meter.add("h.1", torch.zeros(2, 4, 8))
        >>> meter.take(["h.0", "h.1"])
        Processed(rows=2, tokens=32, layers={'h.0': (32, 512), 'h.1': (8, 32)})
    """

    batch_first: bool = True
    _sums: dict[str, tuple[int, int, int]] = attrs.field(factory=dict, init=False)
    """By name: rows, tokens, pairs of tokens of one row."""
    _last: _Seen = attrs.field(default=_START, init=False)

    def add(self, name: str, x: torch.Tensor) -> None:
        """Count the input of a layer, (B, S, C), or of the model, with the name ""."""
        if torch.compiler.is_compiling():
            self._last = _Seen(self._last, name, x.shape)
        else:
            self._count(name, x.shape)

    def clear(self) -> None:
        """Begin anew."""
        self._sums, self._last = {}, _START

    def take(self, names: Iterable[str]) -> Processed:
        """What was counted since the last time, over the layers `names`."""
        seen, sums = self._last, self._sums
        while seen.before is not None:
            self._count(seen.name, seen.shape)
            seen = seen.before
        self.clear()
        rows, tokens, _ = sums.get("", (0, 0, 0))
        return Processed(rows, tokens, {name: sums.get(name, (0, 0, 0))[1:] for name in names})

    def _count(self, name: str, shape: Any) -> None:
        more = extent(shape, batch_first=self.batch_first or not name)
        before = self._sums.get(name, (0, 0, 0))
        self._sums[name] = before[0] + more[0], before[1] + more[1], before[2] + more[2]


def extent(shape: Any, *, batch_first: bool = True) -> tuple[int, int, int]:
    """Rows, tokens, and pairs of tokens of one row, in a tensor of `shape`: (B, S), (B, S, C) or (S, B, C).

    Examples:
        >>> extent((2, 16, 8)), extent((16, 2, 8), batch_first=False)
        ((2, 32, 512), (2, 32, 512))
    """
    first, second = int(shape[0]), int(shape[1]) if len(shape) > 1 else 1
    rows, seq = (first, second) if batch_first else (second, first)
    return rows, rows * seq, rows * seq * seq
