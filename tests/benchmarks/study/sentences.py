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
from tests.benchmarks.study import _reviews
from tests.benchmarks.study._recipe import FOREVER, OverEpochs, clock_of, share_of
from tests.benchmarks.study._text import spread
from tests.benchmarks.study._train import Forward, Setup


@attrs.frozen(kw_only=True)
class Settings:
    """Of the data, the steps and the paces."""

    encoder: str = "minilm"
    """Or "tiny": random weights, and bytes as tokens."""
    source: str = "rotten_tomatoes"
    train_on: int = 10**9
    """Sentences of the training part, evenly spread; at most all."""
    length: int
    """Tokens that a longer sentence is cut to."""
    batch_size: int
    epochs: int
    """With all of the data; a share of it is that share of the epochs."""
    learning_rate: float
    warmup: float = 0.06
    floor: float = 0.0
    weight_decay: float = 0.01
    keep_start: int
    keep_share: float = 0.7
    """Of the baseline's steps, until the kept tokens have grown to `length`."""
    keep_multiple: int = 4
    prune: float = 0.5
    """Share that `importance` leaves out of the sentences with a loss below the mean."""
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
    """A run, ready to train. Its budget is on samples: those that were back-propagated.

    With the importance sampler it ends after the epochs, with fewer of them.
    """
    own = Settings(**settings)
    reviews, encode = _reviews.load(own.source), _encoder(own)
    rows = [encode(text) for text in spread(reviews.train, own.train_on)]
    labels = torch.tensor(spread(reviews.train_labels, own.train_on))
    finished = sorted(zip(map(encode, reviews.test), reviews.test_labels, strict=True), key=_by_length)
    measured = spread(finished, own.measured_on)
    model = _model(own, seed).to(device)
    clock, sampler = clock_of(device), _sampler(own, arm["sampler"], len(rows), fraction, seed)
    end = round(getattr(sampler, "epochs", fraction * own.epochs) * len(rows))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=own.learning_rate * arm["rate"], weight_decay=own.weight_decay, fused=True
    )
    schedule: Any = de.lr.linear(warmup=round(own.warmup * end), total=end, floor=own.floor)
    if arm["sampler"] == "importance":
        schedule = OverEpochs(schedule, end, sampler, clock)
    cost = de.flops.measured(model, **_padded([rows[0]], device))
    keep = de.pacing.linear(
        own.keep_start,
        own.length,
        steps=share_of(end // own.batch_size, own.keep_share),
        multiple=own.keep_multiple,
    )
    route = de.routing.attach(
        model,
        router=arm["router"] or "random_ltd",
        keep=keep if arm["router"] else own.length,  # one that keeps all counts what blocks process
        seed=seed,
    )
    run = de.compose(
        clock=clock,
        sampler=sampler,
        route=route,
        lr=de.lr.by_clock(optimizer, schedule, clock, on="samples"),
        length=own.length,
        packed=False,
        cost=cost,
        until={"samples": end},
    )

    def forward(ids: Any) -> Forward:
        weights = torch.tensor(getattr(ids, "weights", [1.0] * len(ids)))
        there = torch.tensor(ids)[weights > 0]  # without what the last batch of an epoch is filled up with
        batch = _padded([rows[i] for i in there], device)
        losses = functional.cross_entropy(model(**batch), labels[there].to(device), reduction="none")
        if arm["sampler"] == "importance" and losses.isfinite().all():  # else the run is at its end
            sampler.update(there, losses)
        loss = (losses * weights[weights > 0].to(device)).sum() / len(ids)
        return Forward(loss, samples=len(there), tokens=int(batch["attention_mask"].sum()))

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
        optimizer=optimizer,
        run=run,
        forward=forward,
        measure=lambda: measure(measured),
        finish=lambda: measure(finished),
        cost=cost,
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


def _sampler(own: Settings, name: str, samples: int, fraction: float, seed: int) -> Any:
    if name == "importance":
        epochs = max(1, round(fraction * own.epochs))
        return de.samplers.importance(
            samples, batch_size=own.batch_size, seed=seed, epochs=epochs, prune=own.prune
        )
    return de.samplers.shuffled(samples, batch_size=own.batch_size, seed=seed, steps=FOREVER)


def _padded(rows: Any, device: str) -> dict[str, torch.Tensor]:
    """Rows of ids to (B, S) of the longest of them, and where they are real."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(device)
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def _by_length(pair: tuple[list[int], int]) -> int:
    return len(pair[0])
