"""What causal language models share: windows of packed text, and the loss of the next token."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import dataeff as de
from tests.benchmarks.study._recipe import Parts, shortened
from tests.benchmarks.study._text import spread
from tests.benchmarks.study._train import Forward, Setup


def held_out(corpus: de.corpus.Corpus, wanted: int, device: str) -> torch.Tensor:
    """So many windows of a corpus, evenly over all of it. (N, S + 1) int64."""
    rows = corpus.dataset()
    return torch.stack([rows[i] for i in spread(range(len(rows)), wanted)]).to(device)


def pair(windows: torch.Tensor) -> dict[str, torch.Tensor]:
    """(B, S + 1) ids to S inputs and S targets."""
    return {"input_ids": windows[:, :-1], "labels": windows[:, 1:]}


def setup(
    model: nn.Module,
    logits: Callable[[torch.Tensor], torch.Tensor],
    whole: Parts,
    *,
    corpus: de.corpus.Corpus,
    measured: torch.Tensor,
    finished: torch.Tensor,
    bytes_per_token: float,
    evaluations: int,
    rows: int = 16,
) -> Setup:
    """A run of a model whose `logits` are those of ids, (B, S) -> (B, S, V); measured by so many rows."""
    dataset, route = corpus.dataset(), whole.run.parts["route"]

    def losses(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        found = logits(batch["input_ids"])
        return functional.cross_entropy(
            found.flatten(0, 1).float(), batch["labels"].flatten(), reduction="none"
        )

    def forward(ids: Any) -> Forward:
        windows = torch.stack([dataset[i] for i in ids]).to(measured.device)
        batch = shortened(pair(windows), whole.run, ids.step)
        found, targets = losses(batch), batch["labels"].flatten()
        tokens = int((targets >= 0).sum())
        if hasattr(route.router, "update"):
            route.observe(targets[targets >= 0], found.detach()[targets >= 0])
        return Forward(found.sum() / tokens, samples=len(ids), tokens=tokens)

    @torch.no_grad()
    def measure(windows: torch.Tensor) -> dict[str, float]:
        model.eval()
        nats = sum(float(losses(pair(part)).sum()) for part in windows.split(rows))
        model.train()
        loss = nats / windows[:, 1:].numel()
        return {
            "validation_loss": loss,
            "perplexity": math.exp(loss),
            "bits_per_byte": loss / math.log(2) / bytes_per_token,
        }

    return Setup(
        model=model,
        optimizer=whole.optimizer,
        run=whole.run,
        forward=forward,
        measure=lambda: measure(measured),
        finish=lambda: measure(finished),
        cost=whole.cost,
        evaluations=evaluations,
        values={
            "index_seconds": round(whole.index_seconds, 2),
            "parameters": sum(p.numel() for p in model.parameters()),
        },
    )
