"""The paper's recipe on any model: curriculum, lengths, token routing and learning rate, as an arm says."""

import time
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

import dataeff as de
from tests.benchmarks.study import _text

POSITIVE = attrs.validators.gt(0)


@attrs.frozen(kw_only=True)
class Recipe:
    """Sizes of a step and of the paces. Shares are of the steps that the baseline takes on the same data."""

    length: int = attrs.field(validator=POSITIVE)
    batch_size: int = attrs.field(validator=POSITIVE)
    tokens: int = attrs.field(validator=POSITIVE)
    """Of a run with all of the data."""
    learning_rate: float
    warmup: float = 0.02
    """Share of the budget over which the learning rate rises."""
    floor: float = 0.1
    difficulty: tuple[float, float] = (1.0, 100.0)
    """Percentiles."""
    difficulty_share: float = attrs.field(default=0.38, validator=POSITIVE)
    seqlen_start: int = 16
    seqlen_share: float = attrs.field(default=0.38, validator=POSITIVE)
    multiple: int = 8
    keep_start: int = 16
    keep_share: float = attrs.field(default=0.7, validator=POSITIVE)
    keep_multiple: int = 16
    scaled: bool = True
    """Whether the peak of the learning rate grows as the share of the data falls."""
    weight_decay: float = 0.1


@attrs.frozen(kw_only=True)
class Parts:
    """Of a run, put together."""

    run: de.composition.Composed
    optimizer: torch.optim.Optimizer
    cost: Any
    index_seconds: float


def parts(
    recipe: Recipe,
    arm: dict[str, Any],
    *,
    fraction: float,
    seed: int,
    model: nn.Module,
    example: Any,
    corpus: de.corpus.Corpus,
    indexes: Path,
    device: str,
    packed: bool = True,
    router: Any = None,
) -> Parts:
    """Everything but the model and the data, as an arm says. `example` is a batch for `flops.measured`."""
    if arm["sampler"] != "shuffled":
        raise ValueError(f"the arm has the sampler {arm['sampler']!r}; only a study of classes can take it")
    if packed and arm["lengths"] == "trim":
        raise ValueError(
            "the arm has lengths 'trim', and packed windows are full; expected truncate or reshape"
        )
    steps = round(fraction * recipe.tokens / (recipe.batch_size * recipe.length))
    clock, index_seconds = clock_of(device), 0.0
    sampler: Any
    if arm["metric"] is None:
        sampler = de.samplers.shuffled(corpus, batch_size=recipe.batch_size, seed=seed, steps=FOREVER)
    else:
        index, index_seconds = _text.index(corpus, arm["metric"], indexes)
        low, high = recipe.difficulty
        pace = de.pacing.root(low, high, steps=share_of(steps, recipe.difficulty_share), degree=2)
        growing = de.Curriculum(index, {arm["metric"]: de.paced(pace, by="percentile")})
        sampler = de.samplers.curriculum(growing, batch_size=recipe.batch_size, seed=seed, steps=FOREVER)
    seqlen = None
    if arm["lengths"] in ("truncate", "reshape"):
        seqlen = de.pacing.linear(
            recipe.seqlen_start,
            recipe.length,
            steps=share_of(steps, recipe.seqlen_share),
            multiple=recipe.multiple,
        )
    cost = de.flops.measured(model, **example)
    keep = de.pacing.linear(
        recipe.keep_start,
        recipe.length,
        steps=share_of(steps, recipe.keep_share),
        multiple=recipe.keep_multiple,
    )
    route = de.routing.attach(
        model,
        router=router or arm["router"] or "random_ltd",
        keep=keep if arm["router"] else recipe.length,  # one that keeps all counts what blocks process
        seed=seed,
    )
    peak = recipe.learning_rate * arm["rate"]
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=de.lr.scale_peak(peak, fraction) if recipe.scaled else peak,
        betas=(0.9, 0.95),
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    end = round(fraction * recipe.tokens) * (len(cost.layers) if arm["budget"] == "layer_tokens" else 1)
    schedule = de.lr.cosine(warmup=round(recipe.warmup * end), total=end, floor=recipe.floor)
    scheduler = de.lr.by_clock(optimizer, schedule, clock, on=arm["budget"])
    run = de.compose(
        clock=clock,
        sampler=sampler,
        route=route,
        lr=scheduler,
        seqlen=seqlen,
        transform=arm["lengths"] if seqlen else "truncate",
        length=recipe.length,
        packed=packed,
        cost=cost,
        until={arm["budget"]: end},
    )
    return Parts(run=run, optimizer=optimizer, cost=cost, index_seconds=index_seconds)


FOREVER = 2**31


def share_of(steps: int, share: float) -> int:
    """So many steps, at least one."""
    return max(1, round(share * steps))


def clock_of(device: str) -> de.Clock:
    """On a CPU it counts the time of the process, which has one thread: waiting for a core does not show."""
    return de.Clock(timer=time.process_time_ns if device == "cpu" else time.monotonic_ns)


def shortened(batch: dict[str, Any], run: de.composition.Composed, step: int) -> dict[str, Any]:
    """A batch of `input_ids` and what is aligned to them, cut or split to the length of its step."""
    if run.plan.seqlen is None:
        return batch
    length = int(run.plan.seqlen(step))
    reshape = run.plan.transform == "reshape"
    return de.transforms.reshape(batch, length) if reshape else de.transforms.truncate(batch, length)
