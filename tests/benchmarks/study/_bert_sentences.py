"""What a pretrained encoder is good for: fine-tuned briefly, whether sentences are good or bad."""

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn import functional

import dataeff as de
from tests.benchmarks.study._bert_masks import Batch
from tests.benchmarks.study._reviews import Reviews
from tests.benchmarks.study._text import spread
from tests.benchmarks.study.sentences import Classifier


@attrs.frozen(kw_only=True)
class FineTuning:
    """The same for all arms; chosen of three by sentences of the training part."""

    sentences: int = 10**9
    """Of the training part, evenly spread; at most all."""
    epochs: int = 2
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup: float = 0.1


def fine_tuned(
    encoder: nn.Module,
    reviews: Reviews,
    batch_of: Callable[[list[str]], Batch],
    *,
    width: int,
    given: FineTuning,
    seed: int,
    device: str,
) -> dict[str, float]:
    """The accuracy and the loss on held-out sentences, after training `encoder` and a linear head.

    The head and the order of the sentences depend on the seed alone. `encoder` itself is trained.
    """
    places = spread(range(len(reviews.train)), given.sentences)
    sentences = [reviews.train[i] for i in places]
    labels = torch.tensor([reviews.train_labels[i] for i in places], device=device)
    torch.manual_seed(de.rng.key(seed, "head") % 2**63)
    model = Classifier(encoder, width).to(device).train()
    steps = given.epochs * -(-len(sentences) // given.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=given.learning_rate, weight_decay=0.01, fused=True)
    rate = de.lr.linear(warmup=round(given.warmup * steps), total=steps)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    order = de.samplers.shuffled(len(labels), batch_size=given.batch_size, seed=seed, steps=steps)
    for ids in order:
        loss = functional.cross_entropy(model(**batch_of([sentences[i] for i in ids])), labels[list(ids)])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
    return _measured(model.eval(), reviews, batch_of, device)


@torch.no_grad()
def _measured(model: nn.Module, reviews: Reviews, batch_of: Any, device: str) -> dict[str, float]:
    nats, right, many = 0.0, 0, len(reviews.test)
    by_length = sorted(range(many), key=lambda i: len(reviews.test[i]))
    for start in range(0, many, 64):
        some = by_length[start : start + 64]
        logits = model(**batch_of([reviews.test[i] for i in some]))
        targets = torch.tensor([reviews.test_labels[i] for i in some], device=device)
        nats += float(functional.cross_entropy(logits, targets, reduction="sum"))
        right += int((logits.argmax(-1) == targets).sum())
    return {"accuracy": right / many, "sentence_loss": nats / many}
