"""The training loop of every study: to the end of a budget, with checkpoints from which nothing differs."""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn
from tqdm import tqdm

import dataeff as de
from dataeff import _files
from dataeff.clock import Log

DIVERGED = 1.3
"""A validation perplexity above so many times its best counts as divergence: the tuner's rule."""


@attrs.frozen
class Forward:
    """The loss of a batch, and what of it the clock counts."""

    loss: torch.Tensor
    samples: int
    tokens: int
    loss_tokens: int | None = None


@attrs.frozen(eq=False)
class Setup:
    """What a task gives the loop."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    run: de.composition.Composed
    forward: Callable[[Any], Forward]
    """Of the sampler's batch of ids."""
    measure: Callable[[], dict[str, float]]
    """Figures of the model as it is, "validation_loss" among them; on the way."""
    finish: Callable[[], dict[str, float]]
    """The same at the end, where it may take longer."""
    cost: Any
    evaluations: int
    clip: float = 1.0
    values: dict[str, Any] = attrs.field(factory=dict)
    """Of the run, for its result."""


@attrs.define
class Watched:
    """How steady validation was; part of the checkpoint. Training losses rise with the difficulty."""

    best: float = math.inf
    rises: int = 0
    diverged: bool = False

    def take(self, loss: float) -> None:
        """A validation loss, of the samples that are measured on the way."""
        self.rises += not loss <= self.best
        self.diverged |= not loss <= self.best + math.log(DIVERGED)
        self.best = min(self.best, loss)


def train(
    setup: Setup,
    folder: Path,
    *,
    every: float = 60.0,
    stop: Callable[[], bool] = lambda: False,
    name: str = "run",
) -> dict[str, Any] | None:
    """Train to the end of the plan, or from where `folder` has it. Its curve and totals; None if stopped.

    A checkpoint is written every so many seconds, and when `stop` says to.
    """
    clock = setup.run.parts["clock"]
    (axis, end), *_ = setup.run.plan.until.items()
    folder.mkdir(parents=True, exist_ok=True)
    log, watched = Log(folder / "curve.jsonl"), Watched()
    _resume(folder, setup, watched)
    log.rewind(clock)
    saved, alive, before = time.monotonic(), True, getattr(clock, axis)
    with tqdm(desc=name, total=end, initial=before, unit=f" {axis}", unit_scale=True) as bar:
        for loss in steps(setup):
            with clock.paused():
                alive = math.isfinite(loss)
                reached, due = getattr(clock, axis), setup.evaluations
                bar.update(reached - before)
                if alive and reached < end and reached * due // end > before * due // end:
                    figures = setup.measure()
                    watched.take(figures["validation_loss"])
                    log.write(clock, **figures)
                    bar.set_postfix_str(f"validation loss {figures['validation_loss']:.3f}")
                before = reached
                if time.monotonic() - saved > every or stop():
                    _save(folder, setup, watched)
                    saved = time.monotonic()
                    if stop():
                        return None
                if not alive:
                    break
    _save(folder, setup, watched)  # measuring may take long, and be cut off
    figures = setup.finish() if alive else {"validation_loss": math.nan}
    rows = de.clock.read_log(log.path) if log.path.exists() else []  # a run may end before it is measured
    return {
        **setup.values,
        "final": figures,
        "totals": _totals(clock),
        "fluctuations": watched.rises,
        "diverged": watched.diverged or not alive,
        "curve": [_row(row) for row in rows],
    }


def steps(setup: Setup) -> Iterator[float]:
    """Train to the end of the plan; gives the loss of each step when it is done, and counted."""
    clock, sampler, route, rate = (setup.run.parts.get(part) for part in ("clock", "sampler", "route", "lr"))
    parameters = [p for group in setup.optimizer.param_groups for p in group["params"]]
    for ids in _batches(sampler):
        if clock.reached(**setup.run.plan.until):
            return
        if route is not None:
            route.step = ids.step
        forward = setup.forward(ids)
        setup.optimizer.zero_grad()
        forward.loss.backward()
        nn.utils.clip_grad_norm_(parameters, setup.clip)
        setup.optimizer.step()
        loss = forward.loss.item()
        clock.tick(
            samples=forward.samples,
            tokens=forward.tokens,
            loss_tokens=forward.loss_tokens,
            route=route,
            cost=setup.cost,
        )
        rate.step()
        yield loss


def _batches(sampler: Any) -> Iterator[Any]:
    """The sampler's batches, to the end of its last epoch where it has such."""
    yield from sampler
    while getattr(sampler, "epoch", 0) + 1 < getattr(sampler, "epochs", 1):
        yield from sampler


def _resume(folder: Path, setup: Setup, watched: Watched) -> None:
    path = folder / "checkpoint.pt"
    if not path.exists():
        setup.run.load_state_dict(setup.run.state_dict())  # taking in its own, the clock starts now
        return
    try:
        state = torch.load(path, weights_only=True)
        setup.model.load_state_dict(state["model"])
        setup.optimizer.load_state_dict(state["optimizer"])
        for name, value in state["watched"].items():
            setattr(watched, name, value)
        setup.run.load_state_dict(state["run"])
    except Exception as error:  # damage may look like anything
        why = str(error).partition("\n")[0] or type(error).__name__
        said = f"{path} cannot be gone on from ({why}); delete it and the run begins anew"
        raise ValueError(said) from error


def _save(folder: Path, setup: Setup, watched: Watched) -> None:
    state = {
        "model": setup.model.state_dict(),
        "optimizer": setup.optimizer.state_dict(),
        "run": setup.run.state_dict(),
        "watched": attrs.asdict(watched),
    }
    _files.write(folder / "checkpoint.pt", lambda file: torch.save(state, file))


def _totals(clock: de.Clock) -> dict[str, Any]:
    counts = clock.counts()
    return counts | {"seconds": round(clock.seconds, 2)}


def _row(moment: dict[str, Any]) -> dict[str, Any]:
    """A moment of the curve with the counts that it is plotted against."""
    counts = {axis: moment[axis] for axis in ("steps", "tokens", "layer_tokens", "flops")}
    figures = {
        name: round(value, 4) for name, value in moment.items() if name not in (*de.clock.AXES, "seconds")
    }
    return counts | {"seconds": round(moment["seconds"], 2)} | figures
