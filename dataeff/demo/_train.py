"""The demo's training loop: one for both arms, as a user would write it."""

import math
import time
from typing import Any

import attrs
import torch
from torch.nn import functional
from tqdm import tqdm

import dataeff as de
from dataeff.demo._model import GPT


@attrs.frozen
class Config:
    """Sizes of the model and of a step. `length` is in tokens (bytes), `batch_size` in samples."""

    length: int = 256
    batch_size: int = 8
    width: int = 128
    heads: int = 4
    layers: int = 6
    learning_rate: float = 1e-3
    warmup: int = 20


@attrs.frozen
class Arm:
    """What an arm trains on: the sampler's curriculum, and paces of sequence length and kept tokens."""

    name: str
    curriculum: de.Curriculum
    seqlen: de.pacing.Pace
    keep: de.pacing.Pace


def arms(index: de.index.Index, config: Config, *, steps: int) -> tuple[Arm, Arm]:
    """The baseline, and a curriculum with random-LTD: the recipe of arXiv 2212.03597, scaled down.

    Vocabulary rarity from the easiest percentile to all by a square root; sequence length and kept tokens
    from a quarter and an eighth to all, linearly; all three over `steps`.
    """
    full = config.length

    def by_rarity(percentile: float | de.pacing.Pace) -> de.Curriculum:
        return de.Curriculum(index, {"vocab_rarity": de.paced(percentile, by="percentile")})

    return (
        Arm("baseline", by_rarity(100), de.pacing.constant(full), de.pacing.constant(full)),
        Arm(
            "curriculum + random-LTD",
            by_rarity(de.pacing.root(1, 100, steps=steps, degree=2)),
            de.pacing.linear(full // 4, full, steps=steps, multiple=8),
            de.pacing.linear(full // 8, full, steps=steps, multiple=16),
        ),
    )


def train(
    arm: Arm,
    windows: de.corpus.Corpus,
    held_out: torch.Tensor,
    config: Config,
    *,
    seed: int,
    device: str,
    steps: int,
    flops: int = 0,
) -> list[dict[str, Any]]:
    """Train a fresh model for `steps`, and on until it has consumed `flops`.

    Gives what it had consumed and reached at ten steps on the way, at `steps` and at the end. The seconds
    are those of training, without evaluation.
    """
    model = fresh(config, seed=seed).to(device)
    route = de.routing.attach(model, router="random_ltd", keep=arm.keep, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.95))
    rise = max(1, min(config.warmup, steps // 10))
    warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / rise))
    sampler = de.samplers.curriculum(arm.curriculum, batch_size=config.batch_size, seed=seed, steps=2**31)
    dataset, clock, consumed, seconds = windows.dataset(), de.Clock(), 0, 0.0
    points = []

    with tqdm(total=flops or steps, desc=arm.name, unit="FLOP" if flops else "step", unit_scale=True) as bar:
        for ids in sampler:
            began = time.perf_counter()
            seqlen, route.step = int(arm.seqlen(ids.step)), ids.step
            batch = torch.stack([dataset[i] for i in ids])  # (B, S + 1)
            batch = de.transforms.truncate(batch, seqlen + 1).to(device)
            loss = next_token_loss(model, batch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            warmup.step()
            if device != "cpu":
                loss.item()  # wait for the device, so that the seconds are its own
            seconds += time.perf_counter() - began

            clock.tick(
                samples=len(ids),
                tokens=len(ids) * seqlen,
                layer_tokens=route.layer_tokens(len(ids), seqlen),
            )
            keep = route.keep_at(seqlen)
            cost = model.flops(len(ids), seqlen, keep=keep, routed=len(route.layers))
            consumed += cost
            bar.update(min(cost, flops - bar.n) if flops else 1)
            done = clock.steps >= steps and consumed >= flops
            if done or clock.steps == steps or clock.steps % -(-steps // 10) == 0:
                point = clock.counts() | {"flops": consumed, "seconds": round(seconds, 3)}
                point |= {"sequence_length": seqlen, "kept_tokens": keep}
                point |= {"pool": arm.curriculum.pool_size(ids.step) / len(windows)}
                point |= {"bits_per_byte": bits_per_byte(model, held_out.to(device))}
                points.append(point)
                bar.set_postfix_str(f"{point['bits_per_byte']:.3f} bits per byte")
            if done:
                break
    return points


def fresh(config: Config, *, seed: int) -> GPT:
    """A new model; its weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT(
            vocabulary=256,
            length=config.length,
            width=config.width,
            heads=config.heads,
            layers=config.layers,
        )


def next_token_loss(model: GPT, windows: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each token from those before it, in nats. (B, S + 1) int64 -> ()."""
    logits = model(windows[:, :-1])
    return functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


@torch.no_grad()
def bits_per_byte(model: GPT, windows: torch.Tensor) -> float:
    """The model's mean loss on held-out windows, in bits per byte. ValueError if it is not finite."""
    model.eval()
    batches = torch.split(windows, 32)
    nats = sum(float(next_token_loss(model, batch)) * len(batch) for batch in batches)
    model.train()
    if not math.isfinite(nats):
        raise ValueError("the loss is not finite: training diverged; try another --seed")
    return nats / len(windows) / math.log(2)
