"""How much of a step's compute that routing saves on paper it saves in time.

`python -m tests.benchmarks.train_step`. A causal model of 12 layers, 512 wide, on 2 samples of 1,024 tokens;
a quarter of them enters each of the ten in the middle. A step is forward, backward and AdamW. On paper it
saves what torch's counter of FLOPs finds to be saved in all matrix products, those of the head and of
attention too. Whole steps run in random order: plain, routed, routed without writing in place, and under a
route that keeps all tokens. What the last costs drowns in noise, so the hooks are timed by themselves, on
twelve layers that do nothing. Layers are not looked at for reading places: that is done once a run.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from dataeff import routing
from dataeff.demo._model import GPT
from tests.benchmarks.record import write

SAMPLES, SEQ, WIDTH, LAYERS = 2, 1024, 512, 12
WAYS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "routed": {"keep": SEQ // 4},
    "routed, copying": {"keep": SEQ // 4, "in_place": False},
    "attached, keeping all": {"keep": SEQ},
}
PASSES = 12


@contextmanager
def attached(model: torch.nn.Module, options: dict[str, Any] | None) -> Iterator[None]:
    """The model as one of the ways has it."""
    if options is None:
        yield
        return
    route = routing.attach(model, seed=1234, check=False, **options)
    route.step = 0
    try:
        yield
    finally:
        route.remove()


def seconds(run: Callable[[], None]) -> float:
    """How long one run takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


class Idle(torch.nn.Module):
    """Layers that do nothing, so that what is left is the call and its hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.Identity() for _ in range(LAYERS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` as it is."""
        for block in self.blocks:
            x = block(x)
        return x


def hooks_cost() -> float:
    """Seconds that the hooks of an inactive route add to a forward pass: medians of bursts in turns."""
    model, x = Idle(), torch.zeros(SAMPLES, SEQ, 1)

    def burst() -> float:
        return seconds(lambda: [model(x) for _ in range(100)] and None) / 100

    plain, routed = [], []
    for _ in range(100):
        plain.append(burst())
        with attached(model, {"keep": SEQ}):
            routed.append(burst())
    return statistics.median(routed) - statistics.median(plain)


def main() -> None:
    """Count, measure, write."""
    torch.manual_seed(0)
    model = GPT(vocabulary=512, length=SEQ, width=WIDTH, heads=8, layers=LAYERS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(0, 512, (SAMPLES, SEQ))

    def step() -> None:
        loss = torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    flops, took = {}, {}
    for name, options in WAYS.items():
        with attached(model, options), FlopCounterMode(display=False) as counter:
            step()
        flops[name], took[name] = counter.get_total_flops(), []
    order = random.Random(0)
    for _ in range(PASSES):
        for name in order.sample(list(WAYS), len(WAYS)):
            with attached(model, WAYS[name]):
                took[name].append(seconds(step))
    saved = {
        name: {
            "of_flops": round(1 - flops[name] / flops["plain"], 4),
            "of_time": round(1 - statistics.median(took[name]) / statistics.median(took["plain"]), 4),
        }
        for name in WAYS
        if name != "plain"
    }
    for name in ("routed", "routed, copying"):
        saved[name]["time_to_flops"] = round(saved[name]["of_time"] / saved[name]["of_flops"], 3)
    pairs = zip(took["attached, keeping all"], took["plain"], strict=True)
    hooks = hooks_cost()
    figures = {
        "model": {"layers": LAYERS, "width": WIDTH, "seq": SEQ, "samples": SAMPLES, "keep": SEQ // 4},
        "threads": torch.get_num_threads(),
        "seconds": {name: round(statistics.median(times), 4) for name, times in took.items()},
        "saved": saved,
        "overhead_of_keeping_all": round(statistics.median(a / b for a, b in pairs) - 1, 4),
        "hooks_us": round(1e6 * hooks, 1),
        "hooks_to_step": round(hooks / statistics.median(took["plain"]), 6),
    }
    print(figures)
    write("train_step", figures)


if __name__ == "__main__":
    main()
