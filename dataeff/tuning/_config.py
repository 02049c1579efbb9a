"""What one probe is to train."""

import attrs

from dataeff.pacing import linear


@attrs.frozen(kw_only=True)
class Config:
    """What a probe is to train. Two that say the same train the same, whatever they are asked for.

    Examples:
        >>> config = Config(start=64, end=2048, duration=1000, steps=300, multiple=8)
        >>> config.pace(0), config.pace(500), config.pace(1000)
        (64, 1056, 2048)
    """

    start: float
    """The first difficulty: a length, kept tokens, a percentile, whatever is paced."""
    end: float
    """The last one. Where it is the start, nothing is paced."""
    duration: int
    """Steps from the first to the last."""
    steps: int
    """How long to train. The probe is stopped there, should it go on."""
    learning_rate_scale: float = 1
    """What to multiply the peak learning rate by."""
    batch_scale: float = 1
    """What to multiply the batch size by."""
    seed: int = 0
    multiple: int | None = None
    """Of the pace."""
    why: str = attrs.field(default="", eq=False)
    """What the search wants to know from it."""

    @property
    def pace(self) -> linear:
        """From the start to the end over the duration, linearly: the first choice of the paper."""
        return linear(self.start, self.end, steps=self.duration, multiple=self.multiple)

    @property
    def paced(self) -> bool:
        """Whether the difficulty changes at all."""
        return self.start != self.end
