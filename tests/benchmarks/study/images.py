"""A vision transformer, from nothing: what a picture shows. With fewer patches a layer, or fewer pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn import functional

import dataeff as de
from tests.benchmarks.study import _pictures
from tests.benchmarks.study._pictures import Labelled
from tests.benchmarks.study._recipe import FOREVER, OverEpochs, clock_of, share_of
from tests.benchmarks.study._train import Forward, Setup


@attrs.frozen(kw_only=True)
class Settings:
    """Of the model, the pictures, the steps and the paces."""

    pictures: str
    size: int
    """Pixels at a side."""
    patch: int
    width: int
    heads: int
    layers: int
    initializer_range: float = 0.02
    """Standard deviation of the weights at first."""
    train: int
    """Pictures of an epoch: the first so many that are not held out."""
    epochs: int
    """Of a run with all of the data."""
    batch_size: int
    learning_rate: float
    warmup: float = 0.05
    """Share of the budget over which the learning rate rises."""
    floor: float = 0.01
    weight_decay: float = 0.05
    keep_start: int = 0
    """Tokens that enter a routed layer at first. The class token is one as any other, as in the paper: it
    bypasses the layers that it is not drawn for, and the first and the last see it always."""
    keep_grows: bool = True
    keep_share: float = 0.8
    """Of the steps that the run takes, those until all tokens are kept."""
    keep_multiple: int = 4
    prune: float = 0.5
    """The share of pictures with a low loss that the importance sampler leaves out of an epoch."""
    measured_on: int = 1000
    """Held-out pictures on the way, the same for all runs; all of them at the end."""
    evaluations: int = 10

    @property
    def tokens(self) -> int:
        """Of a picture: its patches and the class token."""
        return (self.size // self.patch) ** 2 + 1


def setup(
    settings: dict[str, Any], arm: dict[str, Any], *, fraction: float, seed: int, data: Path, device: str
) -> Setup:
    """A run, ready to train: so large a fraction of the epochs, over the same pictures.

    With the importance sampler the budget is what all of its epochs would be without leaving out any; it
    ends with them, and the learning rate decays over them. Its `samples` are those that were back-propagated.
    """
    own = Settings(**settings)
    train, held_out = _pictures.load(own.pictures)
    train = train[: own.train]
    model = _model(own, seed).to(device)
    blocks = own.layers if arm["budget"] == "layer_tokens" else 1
    if arm["sampler"] == "importance":
        epochs = max(1, round(fraction * own.epochs))
        sampler: Any = de.samplers.importance(
            len(train), batch_size=own.batch_size, seed=seed, epochs=epochs, prune=own.prune
        )
        samples = epochs * len(train)
    else:
        samples = round(fraction * own.epochs * len(train))
        sampler = de.samplers.shuffled(len(train), batch_size=own.batch_size, seed=seed, steps=FOREVER)
    clock, end = clock_of(device), samples * own.tokens * blocks
    cost = de.flops.measured(model, torch.zeros(1, 1, own.size, own.size, device=device))
    route = de.routing.attach(
        model,
        router=arm["router"] or "random_ltd",
        keep=_keep(own, samples) if arm["router"] else own.tokens,  # one that keeps all only counts
        seed=seed,
    )
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=own.learning_rate * arm["rate"],
        weight_decay=own.weight_decay,
        fused=True,
    )
    schedule: Any = de.lr.cosine(warmup=round(own.warmup * end), total=end, floor=own.floor)
    if arm["sampler"] == "importance":
        schedule = OverEpochs(schedule, end, sampler, clock)
    run = de.compose(
        clock=clock,
        sampler=sampler,
        route=route,
        lr=de.lr.by_clock(optimizer, schedule, clock, on=arm["budget"]),
        length=own.tokens,
        packed=True,
        cost=cost,
        until={arm["budget"]: end},
    )
    scaled = _scaling(train, device)

    def forward(ids: Any) -> Forward:
        weights = torch.tensor(getattr(ids, "weights", [1.0] * len(ids)))
        real = weights > 0  # what fills up an epoch's last batch is not trained on
        some, weights = torch.tensor(ids)[real], weights[real].to(device)
        losses = _losses(model(scaled(train.pictures[some])).logits, train.labels[some])
        if arm["sampler"] == "importance" and losses.isfinite().all():  # else the run is at its end
            sampler.update(some, losses.detach())
        return Forward((losses * weights).sum() / len(ids), samples=len(some), tokens=len(some) * own.tokens)

    def measure(those: Labelled) -> dict[str, float]:
        return _figures(model, scaled, those)

    return Setup(
        model=model,
        optimizer=optimizer,
        run=run,
        forward=forward,
        measure=lambda: measure(held_out.spread(own.measured_on)),
        finish=lambda: measure(held_out),
        cost=cost,
        evaluations=own.evaluations,
        values={"parameters": sum(p.numel() for p in model.parameters())},
    )


def _model(own: Settings, seed: int) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(seed)
    config = ViTConfig(
        image_size=own.size,
        patch_size=own.patch,
        num_channels=1,
        hidden_size=own.width,
        num_hidden_layers=own.layers,
        num_attention_heads=own.heads,
        intermediate_size=4 * own.width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=own.initializer_range,
        num_labels=10,
    )
    return ViTForImageClassification(config).train()


def _keep(own: Settings, samples: int) -> Any:
    if not own.keep_grows:
        return own.keep_start
    steps = share_of(samples // own.batch_size, own.keep_share)
    return de.pacing.linear(own.keep_start, own.tokens, steps=steps, multiple=own.keep_multiple)


def _scaling(train: Labelled, device: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """From bytes to numbers of mean 0 and deviation 1 over the pictures that are trained on."""
    deviation, mean = torch.std_mean(train.pictures.float())
    return lambda pictures: (pictures.to(device).float() - mean) / deviation


@torch.no_grad()
def _figures(
    model: nn.Module, scaled: Callable[[torch.Tensor], torch.Tensor], those: Labelled
) -> dict[str, float]:
    model.eval()
    logits = torch.cat([model(scaled(part)).logits for part in those.pictures.split(250)])
    model.train()
    right = (logits.argmax(1).cpu() == those.labels).double().mean()
    return {"validation_loss": float(_losses(logits, those.labels).mean()), "accuracy": float(right)}


def _losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Of each picture. (B,)."""
    return functional.cross_entropy(logits, labels.to(logits.device), reduction="none")
