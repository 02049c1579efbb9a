"""What classifiers share: training over epochs, with fewer tokens or fewer samples as an arm says."""

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import nn

import dataeff as de
from tests.benchmarks.study._recipe import FOREVER, Parts, clock_of, share_of
from tests.benchmarks.study._train import Forward


@attrs.frozen(kw_only=True)
class Epochs:
    """Sizes of a step and of the paces."""

    epochs: int
    """With all of the data; a share of it is that share of the epochs."""
    batch_size: int = attrs.field(validator=attrs.validators.gt(0))
    learning_rate: float
    warmup: float = 0.05
    """Share of the budget over which the learning rate rises."""
    floor: float = 0.01
    weight_decay: float
    keep_start: int = 0
    """Tokens that enter a routed layer at first. A class token is one as any other, as in the paper: it
    bypasses the layers that it is not drawn for, and the first and the last see it always."""
    keep_grows: bool = True
    keep_share: float = 0.8
    """Of the steps that the run takes, those until all tokens are kept."""
    keep_multiple: int = 4
    prune: float = 0.5
    """The share of samples with a low loss that the importance sampler leaves out of an epoch."""


@attrs.frozen
class OverEpochs:
    """A learning rate on the share of the epochs that is over, whatever of them was left out."""

    schedule: Callable[[int], float]
    total: int
    sampler: Any
    clock: de.Clock

    def __call__(self, _: int) -> float:
        first, end = self.sampler.state_dict()["first"], len(self.sampler)
        epochs = self.sampler.epoch + (self.clock.steps - first) / (end - first)
        return self.schedule(round(epochs / self.sampler.epochs * self.total))


def parts(
    own: Epochs,
    arm: dict[str, Any],
    *,
    fraction: float,
    seed: int,
    model: nn.Module,
    cost: Any,
    samples: int,
    length: int,
    packed: bool,
    device: str,
) -> Parts:
    """Everything but the model and the data, of `samples` samples of `length` tokens.

    With the importance sampler the budget is what all of its epochs would be without leaving out any; it
    ends with them, and the learning rate decays over them. The clock's `samples` are those that were
    back-propagated. Raises ValueError for an arm with a metric or lengths: these are of texts.
    """
    if arm["metric"] or arm["lengths"]:
        raise ValueError(f"the arm is {arm}; a classifier has no metric and no lengths")
    sampler: Any
    if arm["sampler"] == "importance":
        epochs = max(1, round(fraction * own.epochs))
        sampler = de.samplers.importance(
            samples, batch_size=own.batch_size, seed=seed, epochs=epochs, prune=own.prune
        )
        seen = epochs * samples
    else:
        seen = round(fraction * own.epochs * samples)
        sampler = de.samplers.shuffled(samples, batch_size=own.batch_size, seed=seed, steps=FOREVER)
    by_layers = arm["budget"] == "layer_tokens"
    axis, end = ("layer_tokens", seen * length * len(cost.layers)) if by_layers else ("samples", seen)
    clock = clock_of(device)
    route = de.routing.attach(
        model,
        router=arm["router"] or "random_ltd",
        keep=_keep(own, seen, length) if arm["router"] else length,  # one that keeps all only counts
        seed=seed,
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=own.learning_rate * arm["rate"], weight_decay=own.weight_decay, fused=True
    )
    schedule: Any = de.lr.cosine(warmup=round(own.warmup * end), total=end, floor=own.floor)
    if arm["sampler"] == "importance":
        schedule = OverEpochs(schedule, end, sampler, clock)
    run = de.compose(
        clock=clock,
        sampler=sampler,
        route=route,
        lr=de.lr.by_clock(optimizer, schedule, clock, on=axis),
        length=length,
        packed=packed,
        cost=cost,
        until={axis: end},
    )
    return Parts(run=run, optimizer=optimizer, cost=cost, index_seconds=0.0)


def forward(ids: Any, whole: Parts, losses_of: Callable[[torch.Tensor], tuple[torch.Tensor, int]]) -> Forward:
    """The loss of a batch, weighted as its sampler says; `losses_of` some ids gives losses and tokens."""
    weights, sampler = torch.tensor(getattr(ids, "weights", [1.0] * len(ids))), whole.run.parts["sampler"]
    some = torch.tensor(ids)[weights > 0]  # without what the last batch of an epoch is filled up with
    losses, tokens = losses_of(some)
    if hasattr(sampler, "update") and losses.isfinite().all():  # else the run is at its end
        sampler.update(some, losses.detach())
    loss = (losses * weights[weights > 0].to(losses.device)).sum() / len(ids)
    return Forward(loss, samples=len(some), tokens=tokens)


def _keep(own: Epochs, seen: int, length: int) -> Any:
    if not own.keep_grows:
        return own.keep_start
    steps = share_of(seen // own.batch_size, own.keep_share)
    return de.pacing.linear(own.keep_start, length, steps=steps, multiple=own.keep_multiple)
