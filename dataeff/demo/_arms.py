"""The two runs that the demo compares, and their sizes."""

import attrs

import dataeff as de


@attrs.frozen
class Config:
    """Sizes of the model and of a step. `length` is in tokens (bytes), `batch_size` in samples."""

    length: int = 256
    batch_size: int = 8
    width: int = 128
    heads: int = 4
    layers: int = 6
    learning_rate: float = 1e-3
    warmup: int = 20


@attrs.frozen
class Arm:
    """What an arm trains on: the sampler's curriculum, and paces of sequence length and kept tokens."""

    name: str
    curriculum: de.Curriculum
    seqlen: de.pacing.Pace
    keep: de.pacing.Pace


def arms(index: de.index.Index, config: Config, *, steps: int) -> tuple[Arm, Arm]:
    """The baseline, and a curriculum with random-LTD: the recipe of arXiv 2212.03597, scaled down.

    Vocabulary rarity from the easiest percentile to all by a square root; sequence length and kept tokens
    from a quarter and an eighth to all, linearly; all three over `steps`.
    """
    full = config.length

    def by_rarity(percentile: float | de.pacing.Pace) -> de.Curriculum:
        return de.Curriculum(index, {"vocab_rarity": de.paced(percentile, by="percentile")})

    return (
        Arm("baseline", by_rarity(100), de.pacing.constant(full), de.pacing.constant(full)),
        Arm(
            "curriculum + random-LTD",
            by_rarity(de.pacing.root(1, 100, steps=steps, degree=2)),
            de.pacing.linear(full // 4, full, steps=steps, multiple=8),
            de.pacing.linear(full // 8, full, steps=steps, multiple=16),
        ),
    )
