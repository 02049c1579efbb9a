"""The demo's training loop: one for both arms, as a user would write it."""

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

import dataeff as de
from dataeff.clock import Log
from dataeff.demo._arms import Arm, Config
from dataeff.demo._model import GPT

VOCABULARY = 256  # tokens are bytes


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
    log: Log | None = None,
) -> list[dict[str, Any]]:
    """Train a fresh model for `steps`, and on until it has consumed `flops`.

    Gives what it had consumed and reached at ten steps on the way, at `steps` and at the end. The seconds
    are those of training, without evaluation. The `log` gets what it had consumed, its paces and its learning
    rate at every step, the same measures where they were taken, and how often samples came at the end.
    """
    model = fresh(config, seed=seed).to(device)
    route = de.routing.attach(model, router="random_ltd", keep=arm.keep, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.95))
    sampler = de.samplers.curriculum(arm.curriculum, batch_size=config.batch_size, seed=seed, steps=2**31)
    cost = de.flops.transformer(width=config.width, vocabulary=VOCABULARY)
    dataset, held_out, points = windows.dataset(), held_out.to(device), []
    warmup = de.lr.constant(warmup=max(1, min(config.warmup, steps // 10)))  # no decay: any steps compare
    clock = de.Clock()
    rate = de.lr.by_clock(optimizer, lambda done: warmup(done + 1), clock, on="steps")  # of the step to come

    with tqdm(total=flops or steps, desc=arm.name, unit="FLOP" if flops else "step", unit_scale=True) as bar:
        for ids in sampler:
            seqlen, route.step = int(arm.seqlen(ids.step)), ids.step
            batch = torch.stack([dataset[i] for i in ids])  # (B, S + 1)
            batch = de.transforms.truncate(batch, seqlen + 1).to(device)
            loss = next_token_loss(model, batch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if device != "cpu":
                loss.item()  # wait for the device, so that the seconds are its own
            clock.tick(samples=len(ids), tokens=len(ids) * seqlen, route=route, cost=cost)

            with clock.paused():
                bar.update(min(clock.flops, flops) - bar.n if flops else 1)
                ended = clock.steps >= steps and clock.flops >= flops
                values: dict[str, Any] = {"sequence_length": seqlen, "kept_tokens": route.keep_at(seqlen)}
                values |= {"pool": arm.curriculum.pool_size(ids.step) / len(windows)}
                if ended or is_due(clock.steps, steps):
                    values |= {"bits_per_byte": bits_per_byte(model, held_out)}
                    points.append(clock.counts() | {"seconds": round(clock.seconds, 3)} | values)
                    bar.set_postfix_str(f"{values['bits_per_byte']:.3f} bits per byte")
                if ended:
                    values |= {"exposures": np.bincount(sampler.exposures(0, clock.steps))}
                if log is not None:
                    log.write(clock, lr=rate.get_last_lr()[0], **values)
            if ended:
                break
            rate.step()
    return points


def is_due(step: int, steps: int) -> bool:
    """Whether to measure after `step`: ten times in `steps`, and at their end.

    Examples:
        >>> [step for step in range(1, 26) if is_due(step, 25)]
        [3, 6, 9, 12, 15, 18, 21, 24, 25]
    """
    return step == steps or step % -(-steps // 10) == 0


def fresh(config: Config, *, seed: int) -> GPT:
    """A new model; its weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT(
            vocabulary=VOCABULARY,
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
