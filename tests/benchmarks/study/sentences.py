"""A classifier of sentences, fine-tuned: an encoder, and whether a sentence is good or bad of its mean."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn import functional

import dataeff as de
from tests import realdata
from tests.benchmarks.study import _epochs, _reviews
from tests.benchmarks.study._text import spread
from tests.benchmarks.study._train import Setup

PACKED = False
"""Whether every sample is a full window."""


@attrs.frozen(kw_only=True)
class Settings(_epochs.Epochs):
    """Of the model and the sentences."""

    encoder: str = "minilm"
    """Or "tiny": random weights, and bytes as tokens."""
    source: str = "rotten_tomatoes"
    train_on: int = 10**9
    """Sentences of the training part, evenly spread; at most all."""
    length: int
    """Tokens that a longer sentence is cut to."""
    weight_decay: float = 0.01
    measured_on: int = 256
    """Held-out sentences on the way, the same for all runs."""
    evaluations: int = 8


class Classifier(nn.Module):
    """Two logits from the mean of an encoder's states over real tokens."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(width, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(B, S) ids to (B, 2) logits."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        real = attention_mask.unsqueeze(-1).to(states)
        return self.head((states * real).sum(1) / real.sum(1))


def setup(
    settings: dict[str, Any], arm: dict[str, Any], *, fraction: float, seed: int, data: Path, device: str
) -> Setup:
    """A run, ready to train."""
    own = Settings(**settings)
    reviews, encode = _reviews.load(own.source), _encoder(own)
    rows = [encode(text) for text in spread(reviews.train, own.train_on)]
    labels = torch.tensor(spread(reviews.train_labels, own.train_on))
    finished = sorted(zip(map(encode, reviews.test), reviews.test_labels, strict=True), key=_by_length)
    measured = spread(finished, own.measured_on)
    model = _model(own, seed).to(device)
    whole = _epochs.parts(
        own,
        arm,
        fraction=fraction,
        seed=seed,
        model=model,
        cost=de.flops.measured(model, **_padded([rows[0]], device)),
        samples=len(rows),
        length=own.length,
        packed=False,
        device=device,
    )

    def losses_of(some: torch.Tensor) -> tuple[torch.Tensor, int]:
        batch = _padded([rows[i] for i in some], device)
        losses = functional.cross_entropy(model(**batch), labels[some].to(device), reduction="none")
        return losses, int(batch["attention_mask"].sum())

    @torch.no_grad()
    def measure(held_out: list[Any]) -> dict[str, float]:
        model.eval()
        nats, right = 0.0, 0
        for i in range(0, len(held_out), 64):
            some, theirs = zip(*held_out[i : i + 64], strict=True)
            logits, targets = model(**_padded(some, device)), torch.tensor(theirs, device=device)
            nats += float(functional.cross_entropy(logits, targets, reduction="sum"))
            right += int((logits.argmax(-1) == targets).sum())
        model.train()
        return {"validation_loss": nats / len(held_out), "accuracy": right / len(held_out)}

    return Setup(
        model=model,
        optimizer=whole.optimizer,
        run=whole.run,
        forward=lambda ids: _epochs.forward(ids, whole, losses_of),
        measure=lambda: measure(measured),
        finish=lambda: measure(finished),
        cost=whole.cost,
        evaluations=own.evaluations,
        values={"parameters": sum(p.numel() for p in model.parameters()), "sentences": len(rows)},
    )


def _encoder(own: Settings) -> Callable[[str], list[int]]:
    """Text to ids, of which 0 is padding."""
    if own.encoder == "tiny":
        return lambda text: list(text.encode()[: own.length])
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(realdata.minilm() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(own.length)
    return lambda text: tokenizer.encode(text).ids


def _model(own: Settings, seed: int) -> Classifier:
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if own.encoder == "tiny":
        config = BertConfig(
            vocab_size=256,
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=own.length,
            **off,
        )
        encoder = BertModel(config, add_pooling_layer=False)
    else:
        encoder = BertModel.from_pretrained(realdata.minilm(), add_pooling_layer=False, **off)
    torch.manual_seed(seed)  # whatever loading has drawn
    return Classifier(encoder, encoder.config.hidden_size).train()


def _padded(rows: Any, device: str) -> dict[str, torch.Tensor]:
    """Rows of ids to (B, S) of the longest of them, and where they are real."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(device)
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def _by_length(pair: tuple[list[int], int]) -> int:
    return len(pair[0])
