"""Moving and sampling tokens on CUDA, against the bandwidth of a copy, torch and DeepSpeed's kernels.

Called by `python -m tests.benchmarks.gpu`. Times are medians by CUDA events with the L2 cache cleared before
each run; those of small moves are Python's as much as the kernel's, so all that a CUDA graph can hold is also
timed in one, with a cache that is as the run before left it. A move of K of S tokens reads and writes
B * K * C numbers; the limit is a device-to-device copy of as many, timed in the same way. DeepSpeed's kernels
are compiled on the machine from its source package if DEEPSPEED_SOURCE names the folder that holds its
`csrc`; they know float16, not bfloat16, and are given the same bits as such.
"""

import contextlib
import gc
import importlib.util
import os
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dataeff import ops

SHAPES = [
    (batch, seq, width, seq // part)
    for batch, seq, width, parts in [
        (8, 1024, 768, (8, 2)),
        (64, 1024, 768, (8, 4, 2)),
        (16, 2048, 2048, (8, 4, 2)),
        (8, 8192, 768, (8, 2)),
        (64, 8192, 768, (8, 2)),
        (8, 1024, 8192, (8, 2)),
        (64, 2048, 4096, (8, 4, 2)),
        (64, 1024, 8192, (8, 2)),
        (8, 8192, 8192, (8, 2)),
        (64, 8192, 8192, (8, 2)),  # 2**32 numbers
    ]
    for part in parts
]
SAMPLING = [(8, 1024, 256), (16, 2048, 1024), (64, 2048, 512), (8, 8192, 2048)]
FUSED = [(64, 1024, 768, 256), (16, 2048, 2048, 1024), (64, 2048, 4096, 512)]
LAYERS = 24
MOVES = ("gather", "scatter in place")
OFFSETS = 2**31  # numbers up to which DeepSpeed's kernels reach: their offsets are of 32 bits
SORTED = 2048  # tokens that DeepSpeed's sort takes; of more it writes beyond its buffer of 4 * (512 + 1)
WAITING = ("masked_select", "masked_scatter_")  # for the device, or for memory: no graph holds these
Tensor = torch.Tensor
Run = Callable[[], Any]
Timer = Callable[[Run], Any]


def milliseconds(run: Run) -> float:
    """The median time of a run on the device."""
    from triton.testing import do_bench

    return float(do_bench(run, warmup=10, rep=40, return_mode="median"))


def in_a_graph(run: Run) -> float | None:
    """The time of what a run does on the device, without Python's; None where no graph can hold it."""
    from triton.testing import do_bench_cudagraph

    torch.cuda.empty_cache()  # a graph has memory of its own
    gc.disable()  # to unload a kernel ends a capture
    try:
        return float(do_bench_cudagraph(run, rep=10, return_mode="median"))
    except RuntimeError:
        traceback.print_exc()
        return None
    finally:
        gc.enable()


def deepspeed_kernels() -> tuple[Any, str]:
    """DeepSpeed's operators, compiled, or None; and what came of it, in words."""
    if (source := os.environ.get("DEEPSPEED_SOURCE")) is None:
        return None, "DEEPSPEED_SOURCE is not set"
    from torch.utils.cpp_extension import load

    folder = Path(source) / "csrc"
    names = ["pt_binding.cpp", "gather_scatter.cu", "slice_attn_masks.cu", "token_sort.cu"]
    undone = [f"-U__CUDA_NO_HALF{what}__" for what in ("_OPERATORS", "_CONVERSIONS", "2_OPERATORS")]
    try:
        kernels = load(
            "random_ltd",
            [str(folder / "random_ltd" / name) for name in names],
            extra_include_paths=[str(folder / "includes"), *_curand()],
            extra_cuda_cflags=["-O3", "--use_fast_math", *undone],  # as its own builder has it
        )
    except (OSError, RuntimeError, ImportError) as error:  # ours are measured all the same
        traceback.print_exc()
        return None, _short(error)
    return kernels, "compiled"


def _curand() -> list[str]:
    """Where its headers are if CUDA's compiler came without: among torch's own wheels."""
    from torch.utils.cpp_extension import CUDA_HOME

    if CUDA_HOME is None or (Path(CUDA_HOME) / "include" / "curand_kernel.h").exists():
        return []
    spec = importlib.util.find_spec("nvidia")
    wheels = spec.submodule_search_locations if spec else None
    found = [path for own in wheels or [] for path in Path(own).glob("*/include/curand_kernel.h")]
    return [str(path.parent) for path in found]


def torch_ways(x: Tensor, y: Tensor, ids: Tensor) -> tuple[dict[str, Run], dict[str, Run]]:
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
    batch: int, seq: int, width: int, keep: int, *, device: str, timer: Timer, graph: Timer, theirs: Any
) -> dict[str, Any]:
    """Times of one shape in milliseconds, and the share of the limit that ours reaches."""
    x = torch.randn(batch, seq, width, device=device, dtype=torch.bfloat16)
    y = torch.randn(batch, keep, width, device=device, dtype=torch.bfloat16)
    ids = ops.sample_tokens(batch, seq, keep, key=("bench",), device=device)
    out = torch.empty_like(y)
    gathers, scatters = torch_ways(x, y, ids)
    if theirs is not None and x.numel() <= OFFSETS:
        half, rows = x.view(torch.float16), y.view(torch.float16)
        gathers["DeepSpeed"] = lambda: theirs.token_gather(half, ids, True)
        scatters["DeepSpeed"] = lambda: theirs.token_scatter_(half, rows, ids, True)

    def gathered(way: Run) -> None:
        assert torch.equal(way().view(y.dtype).view(y.shape), ops.gather_tokens(x, ids))

    def scattered(way: Run) -> None:
        ops.scatter_tokens_(x, -y, ids)
        way()
        assert torch.equal(ops.gather_tokens(x, ids), y)

    def copy() -> Tensor:
        return out.copy_(y)

    with torch.no_grad():
        limit = timer(copy), graph(copy)
        figures: dict[str, Any] = {
            "shape": (batch, seq, width, keep),
            "copy_ms": limit[0],
            "copy_graph_ms": limit[1],
            "copy_gb_per_s": 2 * y.numel() * y.itemsize / limit[0] / 1e6,
        }
        for name, ours, ways, right in (
            ("gather", lambda: ops.gather_tokens(x, ids), gathers, gathered),
            ("scatter in place", lambda: ops.scatter_tokens_(x, y, ids), scatters, scattered),
        ):
            figures[name] = _compared(ours, ways, right, timer, graph, limit)
    return figures


def _compared(
    ours: Run,
    others: dict[str, Run],
    right: Callable[[Run], None],
    timer: Timer,
    graph: Timer,
    limit: tuple[float, float | None],
) -> dict[str, Any]:
    """Milliseconds of each way, one by one and in a graph; the share of the limit; what would not run."""
    ms, in_graph, left_out = {"ours": timer(ours)}, {"ours": graph(ours)}, {}
    for name, way in others.items():
        try:
            right(way)
            ms[name] = timer(way)
            in_graph[name] = None if name in WAITING else graph(way)
        except RuntimeError as error:  # of memory, above all
            left_out[name] = _short(error)
        _free()
    return {
        "ms": ms,
        "graph_ms": in_graph,
        "of_the_limit": limit[0] / ms["ours"],
        "of_the_limit_in_a_graph": limit[1] / in_graph["ours"] if limit[1] and in_graph["ours"] else None,
        "left_out": left_out,
    }


def _short(error: Exception) -> str:
    words = re.split(r"[:.\n]", str(error))[0]
    return f"{type(error).__name__}: {words}"


def _free() -> None:
    gc.collect()
    with contextlib.suppress(RuntimeError):  # the device is in an error, of which the next call tells
        torch.cuda.empty_cache()


def sampling_figures(
    batch: int, seq: int, keep: int, *, device: str, timer: Timer, theirs: Any
) -> dict[str, Any]:
    """Milliseconds to draw for all layers at once, and as the incumbent does: multinomial, then a sort."""
    chances = torch.ones(LAYERS * batch, seq, device=device)
    sorts = theirs is not None and seq <= SORTED

    def drawn() -> Tensor:
        return torch.multinomial(chances, keep).view(LAYERS, batch, keep).to(torch.int32)

    def multinomial() -> Tensor:
        own = drawn()
        return theirs.token_sort_(own, seq) if sorts else own.sort(-1).values

    if sorts:
        own = drawn()
        assert torch.equal(own.sort(-1).values, theirs.token_sort_(own.clone(), seq))
    ours = timer(lambda: ops.sample_tokens(batch, seq, keep, key=("bench",), layers=LAYERS, device=device))
    incumbent = timer(multinomial)
    return {
        "shape": (batch, seq, keep),
        "layers": LAYERS,
        "ours": ours,
        "multinomial and sort": incumbent,
        "sorted_by": "DeepSpeed" if sorts else "torch",
        "ratio": incumbent / ours,
    }


def fused_figures(
    batch: int, seq: int, width: int, keep: int, *, device: str, timer: Timer, backend: str
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
            "compiled": timer(torch.compile(form(ours), backend=backend)),
            "compiled from torch's calls": timer(torch.compile(form(plain), backend=backend)),
        }
    return figures


def figures(
    device: str = "cuda",
    timer: Timer = milliseconds,
    graph: Timer = in_a_graph,
    *,
    small: bool = False,
    known: dict[str, Any] | None = None,
    put: Callable[[dict[str, Any]], object] = lambda figures: None,
) -> dict[str, Any]:
    """All of it; `small` is for trying the script.

    What `known` has is not measured again; all there is so far is given to `put` after every shape. A shape
    that fails is noted, and the rest goes on.
    """
    theirs, said = (None, "not tried") if small else deepspeed_kernels()
    known = known if known and known["deepspeed"] == said else {}
    move, one = {"graph": graph, "theirs": theirs}, [(2, 16, 8, 4)]
    card = torch.cuda.get_device_name() if device == "cuda" else device
    found: dict[str, Any] = {"device": card, "dtype": "bfloat16", "deepspeed": said}
    for name, measure, shapes, settings in (
        ("moves", move_figures, one if small else SHAPES, move),
        ("sampling", sampling_figures, [(2, 16, 4)] if small else SAMPLING, {"theirs": theirs}),
        ("fused", fused_figures, one if small else FUSED, {"backend": "eager" if small else "inductor"}),
    ):
        done = {tuple(own["shape"]): own for own in known.get(name, []) if "failed" not in own}
        found[name] = []
        for shape in shapes:
            if shape in done:
                found[name].append(done[shape])
                continue
            found[name].append(_tried(measure, shape, {"device": device, "timer": timer, **settings}))
            put(found)
    return found


def _tried(measure: Callable[..., Any], shape: tuple[int, ...], settings: dict[str, Any]) -> Any:
    try:
        return measure(*shape, **settings)
    except Exception as error:
        traceback.print_exc()
        return {"shape": shape, "failed": _short(error)}
    finally:
        _free()


def failed(measured: dict[str, Any]) -> bool:
    """Whether a shape could not be measured."""
    return any("failed" in own for name in ("moves", "sampling", "fused") for own in measured[name])


def missed(measured: dict[str, Any]) -> list[str]:
    """Where a bar is not met: 90% of a copy's bandwidth, no way faster, sampling five times as fast."""
    found = []
    for own, name in ((own, name) for own in measured["moves"] for name in MOVES if "failed" not in own):
        ms, where = own[name]["ms"], f"{name} at {tuple(own['shape'])}"
        if own[name]["of_the_limit"] < 0.9:
            found.append(f"{where}: {own[name]['of_the_limit']:.0%} of the limit")
        best = min(ms, key=ms.__getitem__)
        if best != "ours":
            found.append(f"{where}: {ms['ours'] / ms[best]:.2f} times as long as {best}")
    slow = [own for own in measured["sampling"] if own.get("ratio", 5) < 5]
    return found + [f"sampling at {tuple(own['shape'])}: {own['ratio']:.1f} times faster" for own in slow]


def table(measured: dict[str, Any], name: str) -> list[tuple[str, ...]]:
    """The rows of the table of one move; ratios are of our time to that of another."""
    alone = "of the limit", "to torch's best", "to DeepSpeed"
    rows: list[tuple[str, ...]] = [
        (f"{name}: B, S, C -> K", "copy GB/s", "us", *alone, "torch's best", "in a graph: us", *alone)
    ]
    for own in measured["moves"]:
        if "failed" in own:
            continue
        batch, seq, width, keep = own["shape"]
        times, copies = own[name], (own["copy_ms"], own["copy_graph_ms"])
        cells = [f"{batch}, {seq}, {width} -> {keep}", f"{own['copy_gb_per_s']:,.0f}"]
        for took, copy in zip((times["ms"], times["graph_ms"]), copies, strict=True):
            theirs = {way: ms for way, ms in took.items() if ms and way not in ("ours", "DeepSpeed")}
            best = min(theirs, key=theirs.__getitem__, default="")
            cells += [f"{1e3 * took['ours']:,.1f}" if took["ours"] else ""]
            cells += [_ratio(copy, took["ours"], ".0%"), _ratio(took["ours"], theirs.get(best), ".2f")]
            cells += [_ratio(took["ours"], took.get("DeepSpeed"), ".2f")]
            cells += [best] if took is times["ms"] else []
        rows.append(tuple(cells))
    return rows


def _ratio(a: float | None, b: float | None, form: str) -> str:
    return f"{a / b:{form}}" if a and b else ""


def fused_table(measured: dict[str, Any]) -> list[tuple[str, ...]]:
    """The rows of the table of moves with what stands beside them: microseconds."""
    forms, ways = (
        ("gather + norm", "residual + scatter"),
        ("apart", "compiled", "compiled from torch's calls"),
    )
    rows = [
        ("B, S, C -> K", *(f"{form}: {way}" if way == "apart" else way for form in forms for way in ways))
    ]
    for own in measured["fused"]:
        if "failed" not in own:
            batch, seq, width, keep = own["shape"]
            times = (f"{1e3 * own[form][way]:,.1f}" for form in forms for way in ways)
            rows.append((f"{batch}, {seq}, {width} -> {keep}", *times))
    return rows


def left_out(measured: dict[str, Any]) -> list[str]:
    """A line for all that could not be measured."""
    lines = [] if measured["deepspeed"] == "compiled" else [f"DeepSpeed: {measured['deepspeed']}"]
    for part in ("moves", "sampling", "fused"):
        for own in measured[part]:
            shape = ", ".join(map(str, own["shape"]))
            lines += [f"{part}, {shape}: {own['failed']}"] if "failed" in own else []
            for name in ("gather", "scatter in place"):
                lines += [
                    f"{way}, {shape}: {why}" for way, why in own.get(name, {}).get("left_out", {}).items()
                ]
    return lines


def plot(measured: dict[str, Any], path: Path) -> None:
    """Achieved bandwidth against bytes moved, with that of a copy."""
    import matplotlib.pyplot as plt

    moves = [own for own in measured["moves"] if "failed" not in own]
    moves = sorted(moves, key=lambda own: own["shape"][0] * own["shape"][2] * own["shape"][3])
    sizes = [2 * 2 * own["shape"][0] * own["shape"][2] * own["shape"][3] for own in moves]
    megabytes = [size / 1e6 for size in sizes]
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axis, name in zip(axes, ("gather", "scatter in place"), strict=True):
        limit = [own["copy_gb_per_s"] for own in moves]
        axis.plot(megabytes, limit, color="black", linestyle="--", label="copy: the limit")
        for way in dict.fromkeys(way for own in moves for way in own[name]["ms"]):
            times = [own[name]["ms"].get(way) for own in moves]
            rates = [size / ms / 1e6 if ms else None for size, ms in zip(sizes, times, strict=True)]
            strong = {"linewidth": 2.5} if way == "ours" else {"linestyle": "none", "alpha": 0.8}
            axis.plot(megabytes, rates, marker=".", label=way, **strong)
        axis.set(title=name, xscale="log", xlabel="MB read and written", ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    axes[0].set_ylabel("GB/s")
    figure.savefig(path, dpi=110)
    plt.close(figure)
