"""A causal language model, from nothing: the next token of packed text."""

from pathlib import Path
from typing import Any, Literal

import attrs
import torch

import dataeff as de
from dataeff.demo._model import GPT
from tests.benchmarks.study import _next_token, _text
from tests.benchmarks.study._recipe import Recipe, parts
from tests.benchmarks.study._train import Setup

PACKED = True
"""Whether every sample is a full window."""


@attrs.frozen(kw_only=True)
class Settings(Recipe):
    """Of the model, the text and what is held out."""

    width: int
    heads: int
    layers: int
    text: Literal["gcide+reviews", "python"] = "gcide+reviews"
    vocabulary: int = 8192
    measured_on: int = 48
    """Held-out samples on the way, the same for all runs."""
    finished_on: int = 512
    """And at the end."""
    evaluations: int = 10
    autocast: bool = False
    """Matrix products in bfloat16."""


def setup(
    settings: dict[str, Any], arm: dict[str, Any], *, fraction: float, seed: int, data: Path, device: str
) -> Setup:
    """A run, ready to train."""
    own = Settings(**settings)
    text = _text.load(data, source=own.text, vocabulary=own.vocabulary)
    corpus, rows = (part.windows(own.length + 1) for part in (text.train, text.held_out))
    torch.manual_seed(seed)
    model = GPT(
        vocabulary=own.vocabulary, length=own.length, width=own.width, heads=own.heads, layers=own.layers
    ).to(device)
    measured, finished = (
        _next_token.held_out(rows, many, device) for many in (own.measured_on, own.finished_on)
    )
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

    def logits(ids: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=own.autocast):
            return model(ids)

    return _next_token.setup(
        model,
        logits,
        whole,
        corpus=corpus,
        measured=measured,
        finished=finished,
        bytes_per_token=text.bytes_per_token,
        evaluations=own.evaluations,
    )


def _router(name: str | None, vocabulary: int) -> Any:
    if name == "token_bypass":
        return de.routers.token_bypass(vocabulary=vocabulary)
    return name
