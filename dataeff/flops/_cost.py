"""What blocks cost."""

from collections.abc import Mapping

import attrs

from dataeff._check import is_whole
from dataeff.clock import Processed

ANY = "*"


def _layers(costs: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    return dict(costs)


@attrs.frozen
class Cost:
    """FLOPs, forward and backward, of what the layers of a model processed; give it to `Clock.tick`.

    Attributes:
        layers: by name of a layer, FLOPs a token and a pair of tokens of one row; "*" for any other.
        token: FLOPs outside of them, a token that the model was given.
        row: FLOPs outside of them, a row.

    Examples:
        >>> cost = Cost({"*": (100, 1)}, token=10)
        >>> cost(Processed(rows=1, tokens=8, layers={"h.0": (8, 64), "h.1": (4, 16)}))
        1360
    """

    layers: Mapping[str, tuple[int, int]] = attrs.field(converter=_layers)
    token: int = attrs.field(default=0, kw_only=True, validator=is_whole(0))
    row: int = attrs.field(default=0, kw_only=True, validator=is_whole(0))

    def __call__(self, processed: Processed) -> int:
        """The FLOPs. Raises ValueError for a layer that it does not know."""
        total = self.row * processed.rows + self.token * processed.tokens
        for name, (tokens, pairs) in processed.layers.items():
            a_token, a_pair = self._of(name)
            total += a_token * tokens + a_pair * pairs
        return total

    def _of(self, name: str) -> tuple[int, int]:
        found = self.layers.get(name, self.layers.get(ANY))
        if found is None:
            raise ValueError(
                f"the cost of layer {name!r} is not known, only of {', '.join(self.layers)}; measure it with "
                "layers=route.blocks"
            )
        return found
