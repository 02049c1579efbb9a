"""How much of a compiled step's compute that routing saves on paper it saves in time, on a CUDA device.

Run by `python -m tests.benchmarks.gpu`. GPT-2 of 124 and 350 million parameters, random weights, in bfloat16
and
compiled: forward, backward and AdamW on 8 samples of 1,024 tokens, a quarter of which enters each block but
the first and the last. On paper a step saves what torch's counter of FLOPs finds to be saved.
"""

import random
import statistics
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from dataeff import routing
from dataeff.pacing import discrete

SIZES = {
    "124M": {"n_embd": 768, "n_layer": 12, "n_head": 12},
    "350M": {"n_embd": 1024, "n_layer": 24, "n_head": 16},
}
SMALL = {"small": {"n_embd": 16, "n_layer": 4, "n_head": 2}}


def figures(
    device: str, timed: Callable[[Callable[[], None]], float], *, small: bool = False
) -> dict[str, Any]:
    """FLOPs, milliseconds and peak memory of plain and routed steps; `timed` gives milliseconds."""
    samples, seq, passes = (2, 64, 2) if small else (8, 1024, 20)
    models = {
        name: _one(size, samples, seq, passes, device, timed, backend="eager" if small else "inductor")
        for name, size in (SMALL if small else SIZES).items()
    }
    return {"samples": samples, "seq": seq, "keep": seq // 4, "models": models}


def missed(measured: dict[str, Any]) -> list[str]:
    """Where a bar is not met: 0.9 of the FLOPs saved are time saved, and memory falls."""
    return [
        f"{name}: {own['time_to_flops']} of the FLOPs saved, {own['memory']} of the memory"
        for name, own in measured["models"].items()
        if own["time_to_flops"] < 0.9 or own["memory"] >= 1
    ]


def _one(
    size: dict[str, int],
    samples: int,
    seq: int,
    passes: int,
    device: str,
    timed: Callable[[Callable[[], None]], float],
    *,
    backend: str,
) -> dict[str, Any]:
    torch.manual_seed(0)
    torch.compiler.reset()
    config = transformers.GPT2Config(**size, n_positions=seq, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    model = transformers.GPT2LMHeadModel(config).to(device, torch.bfloat16).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(0, config.vocab_size, (samples, seq), device=device)

    def step(run: Callable[..., Any]) -> None:
        logits = run(input_ids=ids, use_cache=False).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()

    def measured(run: Callable[..., Any]) -> int:
        with FlopCounterMode(display=False) as counter:
            step(run)
        return int(counter.get_total_flops())

    flops = {"plain": measured(model)}
    steps = {"plain": 0, "routed": 1}
    route = routing.attach(model, keep=discrete([seq, seq // 4], until=[0]), seed=1234)
    route.step = 1
    step(model)  # looks at each layer once, without the compiler
    flops["routed"] = measured(model)
    compiled = torch.compile(model, backend=backend)
    took: dict[str, list[float]] = {way: [] for way in steps}
    memory = dict.fromkeys(steps, 0)
    order = random.Random(0)
    for turn in range(passes + 3):
        for way in order.sample(list(steps), len(steps)):
            route.step = steps[way]
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            own = timed(lambda: step(compiled))
            if turn >= 3:  # compiled and warm
                took[way].append(own)
                memory[way] = torch.cuda.max_memory_allocated() if device == "cuda" else 1
    route.remove()
    ms = {way: statistics.median(times) for way, times in took.items()}
    of_flops, of_time = 1 - flops["routed"] / flops["plain"], 1 - ms["routed"] / ms["plain"]
    return {
        "ms": {way: round(own, 3) for way, own in ms.items()},
        "peak_bytes": memory,
        "of_flops": round(of_flops, 4),
        "of_time": round(of_time, 4),
        "time_to_flops": round(of_time / of_flops, 3),
        "memory": round(memory["routed"] / memory["plain"], 3),
    }
