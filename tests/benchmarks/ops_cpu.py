"""Moving tokens on the CPU against each way that torch offers, forward and backward.

`python -m tests.benchmarks.ops_cpu`. Every way starts from the same hidden states and int32 ids and gives the
same result. Each pass runs all of them, in random order, so that what else the machine does falls on all
alike, and each some times over, so that what is short is measured warm. The way of torch's that is best for
the shape is then measured anew, with ours alone, since the best of many is best by luck too; a ratio is the
median over these passes. Where memory happens to lie moves a ratio by a tenth, so results lie elsewhere at
each go, inputs in each of several processes, and figures are medians over these.
"""

import functools
import multiprocessing
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import attrs
import torch

from dataeff import ops
from tests.benchmarks.record import write

SHAPES = [
    (1, 128, 64, 32),
    (1, 1024, 768, 512),
    (4, 128, 128, 64),
    (4, 512, 256, 128),
    (2, 1024, 1024, 256),
    (8, 512, 768, 256),
    (8, 1024, 768, 128),
    (2, 4096, 1024, 2048),
    (4, 2048, 2048, 512),
]
SOME = [(4, 512, 256, 128), (8, 512, 768, 256), (2, 4096, 1024, 2048), (4, 2048, 2048, 512)]
SAMPLING = [(8, 512, 128, 12), (8, 2048, 512, 24), (1, 32768, 8192, 24)]  # batch, seq, keep, layers
PROCESSES = 3
SECONDS = 2.0  # for one shape, move and process
SHIFT = 2**22  # bytes by which results lie apart from pass to pass, at most
LASTS = 0.0005  # seconds that one way takes in a pass, at least
MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**33)}  # freed memory is kept
Tensor = torch.Tensor
Way = Callable[..., Tensor]


@attrs.frozen
class Layout:
    """How hidden states and ids lie, and what torch offers for that: x, ids -> kept; x, y, ids -> x."""

    gather: dict[str, Way]
    scatter: dict[str, Way]
    in_place: dict[str, Way]
    batch_first: bool = True
    one_row: bool = False


def _wide(x: Tensor, ids: Tensor) -> Tensor:
    return ids.long().unsqueeze(-1).expand(*ids.shape, x.shape[-1])


def _places(x: Tensor, ids: Tensor) -> Tensor:
    batch, seq = x.shape[:2]
    return (torch.arange(0, batch * seq, seq).unsqueeze(1) + ids).view(-1)


def _places_turned(x: Tensor, ids: Tensor) -> Tensor:
    return (ids.t() * x.shape[1] + torch.arange(x.shape[1])).reshape(-1)


def _mask(x: Tensor, ids: Tensor) -> Tensor:
    return torch.zeros(x.shape[:2], dtype=torch.bool).scatter_(1, ids.long(), True)


def _pair(ids: Tensor) -> tuple[Tensor, Tensor]:
    return torch.arange(ids.shape[0]).unsqueeze(1), ids


def _pair_turned(ids: Tensor) -> tuple[Tensor, Tensor]:
    return ids.t(), torch.arange(ids.shape[0])


def _all_rows(x: Tensor, ids: Tensor) -> Tensor:
    return ids.expand(x.shape[0], -1)


LAYOUTS = {
    "rows of ids": Layout(
        {
            "index_select": lambda x, ids: (
                x.flatten(0, 1).index_select(0, _places(x, ids)).view(*ids.shape, x.shape[2])
            ),
            "gather": lambda x, ids: x.gather(1, _wide(x, ids)),
            "advanced indexing": lambda x, ids: x[_pair(ids)],
            "masked_select": lambda x, ids: x[_mask(x, ids)].view(*ids.shape, x.shape[2]),
        },
        {
            "index_copy": lambda x, y, ids: (
                x.flatten(0, 1).index_copy(0, _places(x, ids), y.flatten(0, 1)).view(x.shape)
            ),
            "scatter": lambda x, y, ids: x.scatter(1, _wide(x, ids), y),
            "advanced indexing": lambda x, y, ids: x.index_put(_pair(ids), y),
            "masked_scatter": lambda x, y, ids: x.masked_scatter(_mask(x, ids).unsqueeze(-1), y),
        },
        {
            "index_copy_": lambda x, y, ids: x.flatten(0, 1).index_copy_(0, _places(x, ids), y.flatten(0, 1)),
            "scatter_": lambda x, y, ids: x.scatter_(1, _wide(x, ids), y),
            "advanced indexing": lambda x, y, ids: x.index_put_(_pair(ids), y),
            "masked_scatter_": lambda x, y, ids: x.masked_scatter_(_mask(x, ids).unsqueeze(-1), y),
        },
    ),
    "one row of ids": Layout(
        {
            "index_select": lambda x, ids: x.index_select(1, ids),
            "gather": lambda x, ids: x.gather(1, _wide(x, _all_rows(x, ids))),
            "advanced indexing": lambda x, ids: x[:, ids],
        },
        {
            "index_copy": lambda x, y, ids: x.index_copy(1, ids.long(), y),
            "scatter": lambda x, y, ids: x.scatter(1, _wide(x, _all_rows(x, ids)), y),
            "advanced indexing": lambda x, y, ids: x.index_put(_pair(_all_rows(x, ids)), y),
        },
        {
            "index_copy_": lambda x, y, ids: x.index_copy_(1, ids.long(), y),
            "scatter_": lambda x, y, ids: x.scatter_(1, _wide(x, _all_rows(x, ids)), y),
            "advanced indexing": lambda x, y, ids: x.index_put_(_pair(_all_rows(x, ids)), y),
        },
        one_row=True,
    ),
    "tokens first": Layout(
        {
            "index_select": lambda x, ids: (
                x.flatten(0, 1).index_select(0, _places_turned(x, ids)).view(-1, *x.shape[1:])
            ),
            "gather": lambda x, ids: x.gather(0, _wide(x, ids.t())),
            "advanced indexing": lambda x, ids: x[_pair_turned(ids)],
        },
        {
            "index_copy": lambda x, y, ids: (
                x.flatten(0, 1).index_copy(0, _places_turned(x, ids), y.flatten(0, 1)).view(x.shape)
            ),
            "scatter": lambda x, y, ids: x.scatter(0, _wide(x, ids.t()), y),
            "advanced indexing": lambda x, y, ids: x.index_put(_pair_turned(ids), y),
        },
        {
            "index_copy_": lambda x, y, ids: x.flatten(0, 1).index_copy_(
                0, _places_turned(x, ids), y.flatten(0, 1)
            ),
            "scatter_": lambda x, y, ids: x.scatter_(0, _wide(x, ids.t()), y),
            "advanced indexing": lambda x, y, ids: x.index_put_(_pair_turned(ids), y),
        },
        batch_first=False,
    ),
}


def passes(ways: dict[str, Callable[[], Any]], seconds: float) -> dict[str, list[float]]:
    """How long each way takes in each pass."""
    times = {}
    for name, way in ways.items():
        way()
        start = time.perf_counter()
        way()
        times[name] = max(1, round(LASTS / (time.perf_counter() - start)))
    took: dict[str, list[float]] = {name: [] for name in ways}
    order, end = random.Random(0), time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(took.values()))) < 9:
        for name, way in order.sample(list(ways.items()), len(ways)):  # who comes first finds other caches
            shift = torch.empty(order.randrange(SHIFT), dtype=torch.uint8)  # results lie behind it
            start = time.perf_counter()
            for _ in range(times[name]):
                way()
            took[name].append((time.perf_counter() - start) / times[name])
            del shift
    return took


def compare(ours: Callable[[], Any], theirs: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """Median microseconds of each way, which of theirs is best, and our time to that, measured anew."""
    medians = {
        name: statistics.median(each) for name, each in passes({"ours": ours, **theirs}, SECONDS / 2).items()
    }
    best = min(theirs, key=medians.__getitem__)
    took = passes({"ours": ours, "best": theirs[best]}, SECONDS / 2)
    ratio = statistics.median(a / b for a, b in zip(took["ours"], took["best"], strict=True))
    return {
        "us": {name: round(1e6 * seconds, 1) for name, seconds in medians.items()},
        "best": best,
        "ours_to_best": round(ratio, 3),
    }


def shape_figures(name: str, batch: int, seq: int, width: int, keep: int) -> dict[str, Any]:
    """Each pass over one shape, in the layout of that name."""
    layout = LAYOUTS[name]
    first = layout.batch_first
    x, y, grad = (
        each if first else each.transpose(0, 1).contiguous()
        for each in (torch.randn(batch, size, width) for size in (seq, keep, seq))
    )
    ids = ops.sample_tokens(1 if layout.one_row else batch, seq, keep, key=("bench",))
    ids = ids[0] if layout.one_row else ids
    move, put, put_ = (
        each if first else functools.partial(each, batch_first=False)
        for each in (ops.gather_tokens, ops.scatter_tokens, ops.scatter_tokens_)
    )
    for way in layout.gather.values():
        assert torch.equal(way(x, ids), move(x, ids))
    for way in layout.scatter.values():
        assert torch.equal(way(x, y, ids), put(x, y, ids))
    from_x, from_y = x.clone().requires_grad_(), y.clone().requires_grad_()

    def gather(way: Way) -> dict[str, Callable[[], Any]]:
        return {
            "gather": lambda: way(x, ids),
            "gather, and backward": lambda: torch.autograd.grad(way(from_x, ids), from_x, y),
        }

    def scatter(way: Way) -> dict[str, Callable[[], Any]]:
        return {
            "scatter": lambda: way(x, y, ids),
            "scatter, and backward": lambda: torch.autograd.grad(
                way(from_x, from_y, ids), (from_x, from_y), grad
            ),
        }

    def in_place(way: Way) -> dict[str, Callable[[], Any]]:
        return {"scatter in place": lambda: way(x, y, ids)}

    figures = {}
    for runs, ours, theirs in (
        (gather, move, layout.gather),
        (scatter, put, layout.scatter),
        (in_place, put_, layout.in_place),
    ):
        others = {name: runs(way) for name, way in theirs.items()}
        for name, run in runs(ours).items():
            figures[name] = compare(run, {way: own[name] for way, own in others.items()})
    return figures


def middle(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Of what `compare` found in several processes.

    Examples:
        >>> found = [{"us": {"ours": 2.0, "a": t}, "ours_to_best": 2 / t} for t in (1.0, 2.0, 4.0)]
        >>> middle(found)
        {'us': {'ours': 2.0, 'a': 2.0}, 'best': 'a', 'ours_to_best': 1.0}
    """
    us = {name: statistics.median(own["us"][name] for own in found) for name in found[0]["us"]}
    best = min(us.keys() - {"ours"}, key=us.__getitem__)
    ratio = statistics.median(own["ours_to_best"] for own in found)
    return {"us": us, "best": best, "ours_to_best": ratio}


def fused_figures(batch: int, seq: int, width: int, keep: int) -> dict[str, Any]:
    """What comes before or after a move, apart and as torch.compile makes one loop of the two."""
    x, y, z = torch.randn(batch, seq, width), torch.randn(batch, keep, width), torch.randn(batch, keep, width)
    ids, weight = ops.sample_tokens(batch, seq, keep, key=("bench",)), torch.randn(width)

    def gather_norm() -> Tensor:
        return torch.layer_norm(ops.gather_tokens(x, ids), (width,), weight, weight)

    def add_scatter() -> Tensor:
        return ops.scatter_tokens(x, y + z, ids)

    figures = {}
    for name, apart in (("gather + norm", gather_norm), ("residual + scatter", add_scatter)):
        own = compare(torch.compile(apart), {"apart": apart})
        figures[name] = {
            "us": own["us"]["apart"],
            "compiled_us": own["us"]["ours"],
            "ratio": own["ours_to_best"],
        }
    return figures


def sampling_figures(batch: int, seq: int, keep: int, layers: int) -> dict[str, Any]:
    """All layers of a step."""
    chances = torch.ones(layers * batch, seq)
    own = compare(
        lambda: ops.sample_tokens(batch, seq, keep, key=("bench",), layers=layers),
        {
            "multinomial + sort": lambda: torch.multinomial(chances, keep).sort(1).values,
            "rand + topk + sort": lambda: torch.rand(layers * batch, seq).topk(keep, sorted=False)[1].sort(1),
        },
    )
    return {"shape": (batch, seq, keep), "layers": layers, **own}


def main() -> None:
    """Every shape, written as JSON."""
    if not os.environ.keys() >= MEMORY.keys():  # it is read when a process starts
        environment = os.environ | MEMORY
        os.execve(sys.executable, [sys.executable, "-m", "tests.benchmarks.ops_cpu"], environment)  # noqa: S606
    shapes, spawn = [], multiprocessing.get_context("spawn")
    for name in LAYOUTS:
        for shape in SHAPES if name == "rows of ids" else SOME:
            with spawn.Pool(1, maxtasksperchild=1) as pool:
                each = [pool.apply(shape_figures, (name, *shape)) for _ in range(PROCESSES)]
            runs = {run: middle([own[run] for own in each]) for run in each[0]}
            shapes.append({"layout": name, "shape": shape, "runs": runs})
            print(name, shape, {run: (own["ours_to_best"], own["best"]) for run, own in runs.items()})
    fused = [{"shape": shape, **fused_figures(*shape)} for shape in SOME]
    sampling = [sampling_figures(*shape) for shape in SAMPLING]
    print(fused, sampling, sep="\n")
    figures = {"shapes": shapes, "fused": fused, "sampling": sampling}
    write("ops_cpu", {"threads": torch.get_num_threads(), "dtype": "float32", **figures})


if __name__ == "__main__":
    main()
