"""A causal language model, from nothing: the next token of packed text."""

import math
from pathlib import Path
from typing import Any

import attrs
import torch
from torch.nn import functional

import dataeff as de
from dataeff.demo._model import GPT
from tests.benchmarks.study import _text
from tests.benchmarks.study._recipe import Recipe, parts, shortened
from tests.benchmarks.study._train import Forward, Setup


@attrs.frozen(kw_only=True)
class Settings(Recipe):
    """Of the model, the text and what is held out."""

    width: int
    heads: int
    layers: int
    text: str = "gcide+reviews"
    vocabulary: int = 8192
    measured_on: int = 48
    """Held-out samples on the way, the same for all runs."""
    finished_on: int = 512
    """And at the end."""
    evaluations: int = 10
    autocast: bool = False
    """Matrix products in bfloat16."""
    compiled: bool = False


def setup(
    settings: dict[str, Any], arm: dict[str, Any], *, fraction: float, seed: int, data: Path, device: str
) -> Setup:
    """A run, ready to train."""
    own = Settings(**settings)
    text = _text.load(data, source=own.text, vocabulary=own.vocabulary)
    corpus = text.train.windows(own.length + 1)
    held_out = de.corpus.Windows(text.held_out, own.length + 1)
    torch.manual_seed(seed)
    model = GPT(
        vocabulary=own.vocabulary, length=own.length, width=own.width, heads=own.heads, layers=own.layers
    ).to(device)
    dataset, rows = corpus.dataset(), held_out.dataset()
    measured = torch.stack([rows[i] for i in _spread(len(held_out), own.measured_on)]).to(device)
    finished = torch.stack([rows[i] for i in _spread(len(held_out), own.finished_on)]).to(device)
    whole = parts(
        own,
        arm,
        fraction=fraction,
        seed=seed,
        model=model,
        example={"ids": measured[:1, :-1]},
        corpus=corpus,
        indexes=text.folder / f"index-{own.length}",
        device=device,
        router=_router(arm["router"], own.vocabulary),
    )
    route = whole.run.parts["route"]
    called = torch.compile(model) if own.compiled else model

    def losses(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=own.autocast):
            logits = called(batch["input_ids"])
        return functional.cross_entropy(
            logits.flatten(0, 1).float(), batch["labels"].flatten(), reduction="none"
        )

    def forward(ids: Any) -> Forward:
        windows = torch.stack([dataset[i] for i in ids]).to(device)
        batch = shortened(_pair(windows), whole.run, ids.step)
        found, targets = losses(batch), batch["labels"].flatten()
        tokens = int((targets >= 0).sum())
        if arm["router"] == "token_bypass":
            route.observe(targets[targets >= 0], found.detach()[targets >= 0])
        return Forward(found.sum() / tokens, samples=len(ids), tokens=tokens)

    @torch.no_grad()
    def measure(windows: torch.Tensor) -> dict[str, float]:
        model.eval()
        nats = sum(float(losses(_pair(part)).sum()) for part in windows.split(16))
        model.train()
        loss = nats / windows[:, 1:].numel()
        return {"validation_loss": loss, "bits_per_byte": loss / math.log(2) / text.bytes_per_token}

    return Setup(
        model=model,
        optimizer=whole.optimizer,
        run=whole.run,
        forward=forward,
        measure=lambda: measure(measured),
        finish=lambda: measure(finished),
        cost=whole.cost,
        evaluations=own.evaluations,
        values={
            "index_seconds": round(whole.index_seconds, 2),
            "parameters": sum(p.numel() for p in model.parameters()),
        },
    )


def _pair(windows: torch.Tensor) -> dict[str, torch.Tensor]:
    """(B, S + 1) ids to S inputs and S targets."""
    return {"input_ids": windows[:, :-1], "labels": windows[:, 1:]}


def _spread(there: int, wanted: int) -> list[int]:
    """So many places, evenly over all of them."""
    wanted = min(there, wanted)
    return [i * there // wanted for i in range(wanted)]


def _router(name: str | None, vocabulary: int) -> Any:
    if name == "token_bypass":
        return de.routers.token_bypass(vocabulary=vocabulary)
    return name
