"""Moving and sampling tokens on CUDA, against the bandwidth of a copy, torch and DeepSpeed's kernels.

Called by `python -m tests.benchmarks.gpu`. Times are medians by CUDA events with the L2 cache cleared before
each run. A move of K of S tokens reads and writes B * K * C numbers; the limit is a device-to-device copy of
as many. DeepSpeed's kernels are compiled on the machine from its source package if DEEPSPEED_SOURCE names the
folder that holds its `csrc`; they know float16, not bfloat16, so ours is measured with both.
"""

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dataeff import ops

SHAPES = [
    (batch, seq, width, seq // part)
    for batch, seq, width in [
        (8, 1024, 768),
        (8, 8192, 768),
        (64, 1024, 768),
        (16, 2048, 2048),
        (8, 1024, 8192),
        (64, 2048, 4096),
        (64, 8192, 768),
        (16, 8192, 8192),
    ]
    for part in (8, 4, 2)
]
SAMPLING = [(8, 1024, 256), (16, 2048, 1024), (64, 2048, 512), (8, 8192, 2048)]
LAYERS = 24
Tensor = torch.Tensor
Timer = Callable[[Callable[[], Any]], float]


def milliseconds(run: Callable[[], Any]) -> float:
    """The median time of a run on the device."""
    from triton.testing import do_bench

    return float(do_bench(run, warmup=10, rep=40, return_mode="median"))


def deepspeed_kernels() -> Any:
    """DeepSpeed's operators, compiled; None without its source, or where that does not compile."""
    if (source := os.environ.get("DEEPSPEED_SOURCE")) is None:
        return None
    from torch.utils.cpp_extension import load

    folder = Path(source) / "csrc"
    names = ["pt_binding.cpp", "gather_scatter.cu", "slice_attn_masks.cu", "token_sort.cu"]
    try:
        return load(
            "random_ltd",
            [str(folder / "random_ltd" / name) for name in names],
            extra_include_paths=[str(folder / "includes")],
            extra_cuda_cflags=["-O3", "--use_fast_math"],
            extra_ldflags=["-lcurand"],
        )
    except (OSError, RuntimeError, ImportError):  # ours are measured all the same
        traceback.print_exc()
        return None


def torch_ways(x: Tensor, y: Tensor, ids: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    """What torch offers to gather, and to scatter in place; what can be made ready once is."""
    batch, seq, width = x.shape
    wide = ids.long().unsqueeze(-1).expand(-1, -1, width)
    places = (torch.arange(0, batch * seq, seq, device=x.device).unsqueeze(1) + ids).view(-1)
    pair = torch.arange(batch, device=x.device).unsqueeze(1), ids.long()
    mask = torch.zeros(batch, seq, dtype=torch.bool, device=x.device).scatter_(1, ids.long(), True)
    flat, rows = x.view(-1, width), y.view(-1, width)
    gathers = {
        "index_select": lambda: flat.index_select(0, places),
        "gather": lambda: x.gather(1, wide),
        "advanced indexing": lambda: x[pair],
        "masked_select": lambda: x[mask],
    }
    scatters = {
        "index_copy_": lambda: flat.index_copy_(0, places, rows),
        "scatter_": lambda: x.scatter_(1, wide, y),
        "advanced indexing": lambda: x.index_put_(pair, y),
        "masked_scatter_": lambda: x.masked_scatter_(mask.unsqueeze(-1), y),
    }
    return gathers, scatters


def move_figures(
    batch: int, seq: int, width: int, keep: int, *, device: str, timer: Timer, theirs: Any
) -> dict[str, Any]:
    """Times of one shape in milliseconds, and the share of the limit that ours reaches."""
    x = torch.randn(batch, seq, width, device=device, dtype=torch.bfloat16)
    y = torch.randn(batch, keep, width, device=device, dtype=torch.bfloat16)
    ids = ops.sample_tokens(batch, seq, keep, key=("bench",), device=device)
    out = torch.empty_like(y)
    gathers, scatters = torch_ways(x, y, ids)
    for way in gathers.values():
        assert torch.equal(way().view(y.shape), ops.gather_tokens(x, ids))
    with torch.no_grad():
        copy = timer(lambda: out.copy_(y))
        figures = {
            "shape": (batch, seq, width, keep),
            "copy_ms": copy,
            "copy_gb_per_s": 2 * y.numel() * y.itemsize / copy / 1e6,
            "gather": {"ours": timer(lambda: ops.gather_tokens(x, ids))},
            "scatter in place": {"ours": timer(lambda: ops.scatter_tokens_(x, y, ids))},
        }
        for name, ways in (("gather", gathers), ("scatter in place", scatters)):
            figures[name] |= {way: timer(run) for way, run in ways.items()}
        if theirs is not None:
            half, rows = x.half(), y.half()
            figures["gather"]["ours, fp16"] = timer(lambda: ops.gather_tokens(half, ids))
            figures["gather"]["DeepSpeed, fp16"] = timer(lambda: theirs.token_gather(half, ids, True))
            figures["scatter in place"]["ours, fp16"] = timer(lambda: ops.scatter_tokens_(half, rows, ids))
            figures["scatter in place"]["DeepSpeed, fp16"] = timer(
                lambda: theirs.token_scatter_(half, rows, ids, True)
            )
    for name in ("gather", "scatter in place"):
        own = figures[name]
        others = [took for way, took in own.items() if not way.startswith("ours")]
        figures[name] |= {"of_the_limit": copy / own["ours"], "best_other_to_ours": min(others) / own["ours"]}
    return figures


def sampling_figures(
    batch: int, seq: int, keep: int, *, device: str, timer: Timer, theirs: Any
) -> dict[str, Any]:
    """Milliseconds to draw for all layers at once, and as the incumbent does: multinomial, then a sort."""
    chances = torch.ones(LAYERS * batch, seq, device=device)

    def multinomial() -> Tensor:
        drawn = torch.multinomial(chances, keep).view(LAYERS, batch, keep).to(torch.int32)
        return drawn.sort(-1).values if theirs is None else theirs.token_sort_(drawn, seq)

    ours = timer(lambda: ops.sample_tokens(batch, seq, keep, key=("bench",), layers=LAYERS, device=device))
    incumbent = timer(multinomial)
    return {
        "shape": (batch, seq, keep),
        "layers": LAYERS,
        "ours": ours,
        "multinomial and sort": incumbent,
        "ratio": incumbent / ours,
    }


def fused_figures(
    batch: int, seq: int, width: int, keep: int, *, device: str, timer: Timer
) -> dict[str, Any]:
    """Gather and norm, residual and scatter: apart, compiled around our operators, or from torch's calls."""
    from dataeff.ops import reference

    x, y, z = (torch.randn(batch, n, width, device=device, dtype=torch.bfloat16) for n in (seq, keep, keep))
    weight = torch.ones(width, device=device, dtype=torch.bfloat16)
    ids = ops.sample_tokens(batch, seq, keep, key=("bench",), device=device)

    def gather_norm(move: Callable[..., Tensor]) -> Callable[[], Tensor]:
        return lambda: torch.rms_norm(move(x, ids), (width,), weight)

    def add_scatter(move: Callable[..., Tensor]) -> Callable[[], Tensor]:
        return lambda: move(x, y + z, ids)

    figures: dict[str, Any] = {"shape": (batch, seq, width, keep)}
    for name, form, ours, plain in (
        ("gather + norm", gather_norm, ops.gather_tokens, reference.gather),
        ("residual + scatter", add_scatter, ops.scatter_tokens, reference.scatter),
    ):
        torch.compiler.reset()
        figures[name] = {
            "apart": timer(form(ours)),
            "compiled": timer(torch.compile(form(ours))),
            "compiled from torch's calls": timer(torch.compile(form(plain))),
        }
    return figures


def figures(device: str = "cuda", timer: Timer = milliseconds, *, small: bool = False) -> dict[str, Any]:
    """All of it; `small` is for trying the script."""
    theirs = None if small else deepspeed_kernels()
    shapes = [(2, 16, 8, 4)] if small else SHAPES
    sampling = [(2, 16, 4)] if small else SAMPLING
    settings: dict[str, Any] = {"device": device, "timer": timer}
    return {
        "dtype": "bfloat16",
        "deepspeed": theirs is not None,
        "moves": [move_figures(*shape, **settings, theirs=theirs) for shape in shapes],
        "sampling": [sampling_figures(*shape, **settings, theirs=theirs) for shape in sampling],
        "fused": [] if small else [fused_figures(*shape, **settings) for shape in SHAPES[10:22:11]],
    }


def table(measured: dict[str, Any]) -> list[tuple[str, ...]]:
    """The rows of the table of moves."""
    rows = [
        ("B", "S", "C", "K", "copy GB/s", "gather", "of limit", "to best", "scatter_", "of limit", "to best")
    ]
    for own in measured["moves"]:
        cells = [f"{size:,}" for size in own["shape"]] + [f"{own['copy_gb_per_s']:,.0f}"]
        for name in ("gather", "scatter in place"):
            times = own[name]
            cells += [f"{1e3 * times['ours']:.1f} us", f"{times['of_the_limit']:.0%}"]
            cells += [f"{times['best_other_to_ours']:.2f}"]
        rows.append(tuple(cells))
    return rows


def plot(measured: dict[str, Any], path: Path) -> None:
    """Achieved bandwidth against bytes moved, with that of a copy."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axis, name in zip(axes, ("gather", "scatter in place"), strict=True):
        sizes = [2 * 2 * own["shape"][0] * own["shape"][3] * own["shape"][2] for own in measured["moves"]]
        order = sorted(range(len(sizes)), key=sizes.__getitem__)
        megabytes = [sizes[i] / 1e6 for i in order]
        others = sorted({way for own in measured["moves"] for way in own[name]} - {"of_the_limit", "ours"})
        lines = {"ours": "ours"} | {way: way for way in others if not way.startswith(("best", "ours"))}
        limit = [measured["moves"][i]["copy_gb_per_s"] for i in order]
        axis.plot(megabytes, limit, color="black", linestyle="--", label="copy: the limit")
        for way, label in lines.items():
            times = [measured["moves"][i][name].get(way) for i in order]
            rates = [
                size / ms / 1e6 if ms else None
                for size, ms in zip([sizes[i] for i in order], times, strict=True)
            ]
            strong = {"linewidth": 2.5} if way == "ours" else {"linestyle": "none", "alpha": 0.8}
            axis.plot(megabytes, rates, marker=".", label=label, **strong)
        axis.set(title=name, xscale="log", xlabel="MB read and written", ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    axes[0].set_ylabel("GB/s")
    figure.savefig(path, dpi=110)
    plt.close(figure)
