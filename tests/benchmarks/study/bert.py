"""A masked language model, from nothing: BERT on documents, then on whether sentences are good or bad.

A sample is the beginning of a document. Every arm's batches are cut to their longest sample, as no one need
pay for padding: the incumbent's baseline is padded to the full length, which would be an easy one to beat.
What `seqreo` has ahead is that its batches are of samples of like lengths at first. The clock's tokens are
real ones; layer tokens and FLOPs are of what was processed, padding included.

The composed arm is the paper's for BERT, `seqtru` and `voc` (and not `seqreo`, which the paper has as an
alternative to them), with random-LTD.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np
import torch
from torch.nn import functional

import dataeff as de
from tests.benchmarks.study import _reviews, _text
from tests.benchmarks.study._bert_masks import Batch, Ids, masked, padded
from tests.benchmarks.study._bert_model import Masked, WithHead, bert
from tests.benchmarks.study._bert_sentences import FineTuning, fine_tuned
from tests.benchmarks.study._recipe import Recipe, parts, shortened
from tests.benchmarks.study._train import Forward, Setup

PACKED = False
"""Whether every sample is a full window."""


def _fine_tuning(given: Any) -> FineTuning:
    return given if isinstance(given, FineTuning) else FineTuning(**given)


@attrs.frozen(kw_only=True)
class Settings(Recipe):
    """Of the model, the text, what is held out, and fine-tuning. The paper's paces for BERT, where known."""

    width: int
    heads: int
    layers: int
    difficulty: tuple[float, float] = (5.0, 100.0)
    difficulty_share: float = 0.48
    seqlen_share: float = 0.48
    warmup: float = 0.1
    text: Literal["gcide+reviews", "python"] = "gcide+reviews"
    vocabulary: int = 8192
    separator: int | None = None
    """A token that documents are split at."""
    reviews: str = "rotten_tomatoes"
    measured_on: int = 256
    """Held-out samples on the way, the same for all runs."""
    finished_on: int = 2048
    """And at the end."""
    evaluations: int = 8
    autocast: bool = False
    """Matrix products in bfloat16."""
    fine_tuning: FineTuning = attrs.field(factory=FineTuning, converter=_fine_tuning)


def setup(
    settings: dict[str, Any], arm: dict[str, Any], *, fraction: float, seed: int, data: Path, device: str
) -> Setup:
    """A run, ready to train."""
    own = Settings(**settings)
    ids, reviews = Ids(own.vocabulary), _reviews.load(own.reviews)
    text = _text.load(data, source=own.text, vocabulary=own.vocabulary)
    encode = _text.encoder(own.text, own.vocabulary)
    tested = {tuple(encode(f"{sentence}\n").tolist()) for sentence in reviews.test}
    samples = _samples(text.train, own, without=tested)
    corpus, held_out = de.corpus.from_samples(samples), _samples(text.held_out, own)
    sizes = {name: getattr(own, name) for name in ("width", "heads", "layers", "length")}
    model = Masked(bert(ids, **sizes, seed=seed)).to(device)

    def masks(rows: Any, keys: Any, step: int | None) -> tuple[Batch, torch.Tensor]:
        batch = padded(rows, own.length, ids, device)
        batch = batch if step is None else shortened(batch, whole.run, step)
        return masked(de.transforms.trim_to_longest(batch, multiple=own.multiple), keys, ids)

    def fixed(many: int) -> list[tuple[Batch, torch.Tensor]]:
        wanted = sorted(_text.spread(range(len(held_out)), many), key=lambda i: len(held_out[i]))
        groups = [wanted[i : i + 64] for i in range(0, len(wanted), 64)]
        key = de.rng.key("held out")
        return [masks([held_out[i] for i in some], de.rng.fold(key, some), None) for some in groups]

    measured, finished = fixed(own.measured_on), fixed(own.finished_on)
    example = padded([np.zeros(own.length)], own.length, ids, device)
    real = np.mean([len(sample) for sample in samples])
    whole = parts(
        attrs.evolve(own, **_shares(own, own.length / real)),
        arm,
        fraction=fraction,
        seed=seed,
        model=model,
        example=example | {"places": torch.tensor([0], device=device)},
        corpus=corpus,
        indexes=text.folder / f"index-bert-{own.length}",
        device=device,
        packed=False,
    )
    cost = WithHead(attrs.evolve(whole.cost, row=0), head=whole.cost.row)

    def losses(batch: Batch, targets: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=own.autocast):
            logits = model(**batch)
        return functional.cross_entropy(logits.float(), targets, reduction="sum")

    def forward(drawn: Any) -> Forward:
        keys = de.rng.fold(de.rng.key(seed, "masks", drawn.step), list(drawn))
        batch, targets = masks([samples[i] for i in drawn], keys, drawn.step)
        cost.places = len(targets)
        loss = losses(batch, targets) / len(targets)
        tokens = int(batch["attention_mask"].sum())
        return Forward(loss, samples=len(drawn), tokens=tokens, loss_tokens=len(targets))

    @torch.no_grad()
    def measure(batches: list[tuple[Batch, torch.Tensor]]) -> dict[str, float]:
        model.eval()
        nats = sum(float(losses(*batch)) for batch in batches)
        model.train()
        return {"validation_loss": nats / sum(len(targets) for _, targets in batches)}

    def batch_of(sentences: list[str]) -> Batch:
        rows = [encode(sentence) for sentence in sentences]
        batch = padded(rows, own.length, ids, device)
        return de.transforms.trim_to_longest(batch, multiple=own.multiple)

    def finish() -> dict[str, float]:
        copied = bert(ids, **sizes, seed=seed).bert.to(device)  # without the route
        copied.load_state_dict(model.bert.bert.state_dict())
        figures = measure(finished)
        return figures | fine_tuned(
            copied, reviews, batch_of, width=own.width, given=own.fine_tuning, seed=seed, device=device
        )

    return Setup(
        model=model,
        optimizer=whole.optimizer,
        run=whole.run,
        forward=forward,
        measure=lambda: measure(measured),
        finish=finish,
        cost=cost,
        evaluations=own.evaluations,
        values={
            "index_seconds": round(whole.index_seconds, 2),
            "parameters": sum(p.numel() for p in model.parameters()),
        },
    )


def _samples(corpus: de.corpus.Corpus, own: Settings, without: Collection[tuple[int, ...]] = ()) -> list[Any]:
    """The beginnings of the documents, without some documents."""
    documents = [tokens for i in range(len(corpus)) if tuple((tokens := corpus[i]).tolist()) not in without]
    if own.separator is not None:
        documents = [part for tokens in documents for part in _split(tokens, own.separator)]
    return [tokens[: own.length] for tokens in documents if len(tokens)]


def _split(tokens: Any, separator: int) -> list[Any]:
    return np.split(tokens, np.flatnonzero(tokens == separator) + 1)


def _shares(own: Settings, times: float) -> dict[str, float]:
    """Of the steps that are there with padded samples, what is the same of the more that there really are."""
    names = ("difficulty_share", "seqlen_share", "keep_share")
    return {name: times * getattr(own, name) for name in names}
