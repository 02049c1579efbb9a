"""What training has consumed so far, in exact integers."""

from typing import Any

import attrs

from dataeff._check import is_whole, whole


@attrs.define
class Clock:
    """Steps, samples, tokens and layer tokens consumed; one `tick` a training step.

    A layer token is one token that one layer processed: a step of B samples of S tokens through L layers,
    of which R keep only K tokens, consumes B * (K * R + S * (L - R)) of them (random-LTD, arXiv 2211.11586).

    Examples:
        >>> clock = Clock()
        >>> clock.tick(samples=8, tokens=8 * 512, layer_tokens=8 * (128 * 10 + 512 * 2))
        >>> clock
        Clock(steps=1, samples=8, tokens=4096, layer_tokens=18432)
        >>> resumed = Clock()
        >>> resumed.load_state_dict(clock.state_dict())
        >>> resumed == clock
        True
    """

    steps: int = attrs.field(default=0, validator=is_whole(0))
    samples: int = attrs.field(default=0, validator=is_whole(0))
    tokens: int = attrs.field(default=0, validator=is_whole(0))
    layer_tokens: int = attrs.field(default=0, validator=is_whole(0))

    def tick(self, *, samples: int, tokens: int, layer_tokens: int | None = None) -> None:
        """Count one step. All are whole numbers of at least 0, or ValueError and nothing is counted.

        `layer_tokens` may be left out by a loop that does not drop tokens and does not ask for them.
        """
        consumed = (
            whole("samples", samples, low=0),
            whole("tokens", tokens, low=0),
            whole("layer_tokens", layer_tokens or 0, low=0),
        )
        self.steps += 1
        self.samples += consumed[0]
        self.tokens += consumed[1]
        self.layer_tokens += consumed[2]

    def state_dict(self) -> dict[str, int]:
        """The counts, as plain integers."""
        return attrs.asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`. Raises ValueError, changing nothing, if it is not a clock's."""
        if set(state) != set(self.state_dict()):
            raise ValueError(f"a clock's state has the keys {list(self.state_dict())}; got {list(state)}")
        for name, count in Clock(**state).state_dict().items():
            setattr(self, name, count)
