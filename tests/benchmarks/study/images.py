"""A vision transformer, from nothing: what a picture shows. With fewer patches a layer, or fewer pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn import functional

import dataeff as de
from tests.benchmarks.study import _epochs, _pictures
from tests.benchmarks.study._pictures import Labelled
from tests.benchmarks.study._train import Setup

PACKED = False
"""Whether every sample is a full window."""


@attrs.frozen(kw_only=True)
class Settings(_epochs.Epochs):
    """Of the model and the pictures."""

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
    weight_decay: float = 0.05
    measured_on: int = 1000
    """Held-out pictures on the way, the same for all runs; all of them at the end."""
    evaluations: int = 10


def setup(
    settings: dict[str, Any], arm: dict[str, Any], *, fraction: float, seed: int, data: Path, device: str
) -> Setup:
    """A run, ready to train."""
    own = Settings(**settings)
    train, held_out = _pictures.load(own.pictures)
    train, tokens = train[: own.train], (own.size // own.patch) ** 2 + 1  # patches and the class token
    model = _model(own, seed).to(device)
    whole = _epochs.parts(
        own,
        arm,
        fraction=fraction,
        seed=seed,
        model=model,
        cost=de.flops.measured(model, torch.zeros(1, 1, own.size, own.size, device=device)),
        samples=len(train),
        length=tokens,
        packed=True,
        device=device,
    )
    scaled = _scaling(train, device)

    def losses_of(some: torch.Tensor) -> tuple[torch.Tensor, int]:
        return _losses(model(scaled(train.pictures[some])).logits, train.labels[some]), len(some) * tokens

    def measure(those: Labelled) -> dict[str, float]:
        return _figures(model, scaled, those)

    return Setup(
        model=model,
        optimizer=whole.optimizer,
        run=whole.run,
        forward=lambda ids: _epochs.forward(ids, whole, losses_of),
        measure=lambda: measure(held_out.spread(own.measured_on)),
        finish=lambda: measure(held_out),
        cost=whole.cost,
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
