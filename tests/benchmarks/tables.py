"""Tables for docs/benchmarks.md, made from the committed results: `python -m tests.benchmarks.tables`."""

import json
import textwrap
from collections.abc import Callable
from typing import Any

from tests.benchmarks import ops_gpu as gpu
from tests.benchmarks.record import RESULTS


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines) + "\n"


REASONS = {
    "knows by itself where its tokens stand": "their layers find neighbours or positions by themselves",
    "expected (B, S, C)": "their layers take something else than (B, S, C)",
    "declare its token axes": "an argument is to be declared",
    "say attach(..., batch_first": "their layers take (S, B, C): say batch_first=False",
    "no batch axis": "an argument has no batch axis: only with shared=True",
    "no stack of": "no stack of like blocks: name them",
    "only part of a block": "their blocks are in pieces",
    "cannot be made small": "could not be made small",
    "untouched, it fails": "would not run on what is tried here",
    "": "for another reason",
}
"""By what a refusal says."""


def architectures(figures: dict[str, Any]) -> str:
    """The model types, by how routing them ended."""
    types, lines = figures["types"], []
    tried = sum(own["how"] != "not tried" for own in types.values())
    for how in ("served", "differs", "fails", "refused", "not tried"):
        found = {name: own["why"] for name, own in types.items() if own["how"] == how}
        if not found:
            continue
        of = f"{len(types)} model types" if how == "not tried" else f"the {tried} model types that were tried"
        lines.append(f"{how}: {len(found)} of {of}")
        groups: dict[str, list[str]] = {}
        for name, why in found.items():
            said = next(words for phrase, words in REASONS.items() if phrase in why)
            groups.setdefault(said if how in ("refused", "not tried") else "", []).append(name)
        for said, names in groups.items():
            text = f"{said}: {', '.join(names)}" if said else ", ".join(names)
            lines += textwrap.wrap(
                text, 110, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
            )
        lines.append("")
    return "\n".join(lines)


def index_vs_deepspeed(figures: dict[str, Any]) -> str:
    """Median seconds of each, and the ratios."""
    rows = [
        ("corpus", "samples", "tokens", "DeepSpeed s", "dataeff s", "bare scan s", "ratio", "to bare scan")
    ]
    for name in ("zipf", "real"):
        own = figures[name]
        took = own["median_s"]
        rows.append(
            (
                name,
                f"{own['samples']:,}",
                f"{own['tokens']:,}",
                f"{took['theirs']:.2f}",
                f"{took['ours']:.3f}",
                f"{took['bare']:.3f}",
                f"{took['theirs'] / took['ours']:.1f}",
                f"{took['ours'] / took['bare']:.2f}",
            )
        )
    return _aligned(rows)


def index_scale(figures: dict[str, Any]) -> str:
    """Time, cost and peak memory by size, then what a trillion tokens takes."""
    rows = [("work", "seconds", "ns each", "peak MiB")]
    for own in figures["indexes"]:
        work = f"index of {own['tokens']:,} tokens in {own['samples']:,} samples"
        rows.append((work, f"{own['seconds']:.3f}", f"{own['ns_per_token']:.2f}", f"{own['peak_mib']:.0f}"))
    order = figures["order"]
    work = f"order of {order['values']:,} values"
    rows.append((work, f"{order['seconds']:.1f}", f"{order['ns_per_value']:.0f}", f"{order['peak_mib']:.0f}"))
    paper = [("on paper: 10**12 tokens", "cores each", "scan s", "needs GB/s each", "then order s")]
    for own in figures["trillion_tokens"]:
        cells = (own["cores_per_machine"], own["seconds"], own["disk_gb_per_s_per_machine"])
        machines, last = f"{own['machines']} machines", own["then_order_on_one_machine_s"]
        paper.append((machines, *map(str, cells), str(last)))
    return _aligned(rows) + "\n" + _aligned(paper)


def plan_recipes(figures: dict[str, Any]) -> str:
    """Steps and consumption of each published recipe, and what going through it takes."""
    rows = [("recipe", "steps", "tokens", "layer tokens", "ms")]
    for name, own in figures.items():
        counts = (f"{own[axis]:,}" for axis in ("steps", "tokens", "layer_tokens"))
        rows.append((name, *counts, f"{1e3 * own['seconds']:.1f}"))
    return _aligned(rows)


def sampler_vs_deepspeed(figures: dict[str, Any]) -> str:
    """Batches a second and the slowest step of each, the ratio, then what 100 million samples take."""
    rows = [("metrics", "sampler", "batches/s", "slowest step ms", "ratio")]
    for metrics in ("one", "two"):
        own = figures[metrics]
        for key, title in {"theirs": "DeepSpeed", "ours": "dataeff", "ours_finer": "dataeff, finer"}.items():
            ratio = f"{own['ours_to_theirs']:.1f}" if key == "ours" else ""
            rate, slowest = own[key]["batches_per_s"], own[key]["slowest_ms"]
            rows.append((metrics, title, f"{rate:,}", f"{slowest:.2f}", ratio))
    scale, budget = figures["at_scale"], figures["by_tokens"]
    epoch = [
        (f"token_budget on {budget['samples']:,} samples", ""),
        (f"all {budget['batches']:,} batches of an epoch", f"{budget['token_budget_s']:.2f} s"),
    ]
    paper = [
        (f"at {scale['samples']:,} samples", ""),
        ("merging two orders, once", f"{scale['merge_s']:.1f} s"),
        ("opening the merged order", f"{scale['open_s']:.3f} s"),
        ("making the sampler", f"{scale['make_sampler_s']:.3f} s"),
        ("batches a second", f"{scale['batches_per_s']:,}"),
        ("slowest step", f"{scale['slowest_ms']:.2f} ms"),
        ("memory beyond mapped files", f"{scale['memory_mb']:.0f} MB"),
        ("state", f"{scale['state_bytes']} bytes"),
    ]
    return _aligned(rows) + "\n" + _aligned(epoch) + "\n" + _aligned(paper)


def ops_cpu(figures: dict[str, Any]) -> str:
    """Our time, and its ratio to the best of torch's ways, by shape; then what compiling gives, and ids."""
    moves: dict[str, list[tuple[str, ...]]] = {}
    for own in figures["shapes"]:
        batch, seq, width, keep = own["shape"]
        head = (
            f"{own['layout']}: B, S, C -> K",
            *(c for run in own["runs"] for c in (f"{run}: us", "ratio")),
        )
        cells = (
            cell
            for run in own["runs"].values()
            for cell in (f"{run['us']['ours']:,.0f}", f"{run['ours_to_best']:.2f}")
        )
        moves.setdefault(own["layout"], [head]).append((f"{batch}, {seq}, {width} -> {keep}", *cells))
    fused = [("B, S, C -> K", "gather + norm: us", "compiled us", "residual + scatter: us", "compiled us")]
    for own in figures["fused"]:
        batch, seq, width, keep = own["shape"]
        pairs = (own["gather + norm"], own["residual + scatter"])
        times = (f"{pair[key]:,.0f}" for pair in pairs for key in ("us", "compiled_us"))
        fused.append((f"{batch}, {seq}, {width} -> {keep}", *times))
    drawn = [("B, S -> K, layers", "sample_tokens: us", "multinomial + sort", "rand + topk + sort")]
    for own in figures["sampling"]:
        batch, seq, keep = own["shape"]
        drawn.append(
            (f"{batch}, {seq} -> {keep}, {own['layers']}", *(f"{took:,.0f}" for took in own["us"].values()))
        )
    return "\n".join(_aligned(each) for each in (*moves.values(), fused, drawn))


def ops_gpu(figures: dict[str, Any]) -> str:
    """Moves against a copy, the best of torch's ways and DeepSpeed; fused; sampling; what is not there."""
    drawn = [("B, S -> K, layers", "sample_tokens: us", "multinomial + sort", "ratio", "sorted by")]
    for own in figures["sampling"]:
        if "failed" in own:
            continue
        batch, seq, keep = own["shape"]
        times = f"{1e3 * own['ours']:.0f}", f"{1e3 * own['multinomial and sort']:.0f}"
        row = f"{batch}, {seq} -> {keep}, {own['layers']}", *times, f"{own['ratio']:.1f}", own["sorted_by"]
        drawn.append(row)
    moves = (gpu.table(figures, name) for name in ("gather", "scatter in place"))
    tables = "\n".join(_aligned(rows) for rows in (*moves, gpu.fused_table(figures), drawn))
    missing = "".join(f"{line}\n" for line in gpu.left_out(figures))
    return f"{figures['device']}, {figures['dtype']}\n\n{tables}" + (
        f"\nnot measured:\n{missing}" if missing else ""
    )


def train_step(figures: dict[str, Any]) -> str:
    """What each way saves of a step's matrix products and of its time."""
    rows = [("step", "seconds", "FLOPs saved", "time saved", "time to FLOPs")]
    for name, took in figures["seconds"].items():
        own = figures["saved"].get(name)
        shares = (f"{own['of_flops']:.1%}", f"{own['of_time']:.1%}") if own else ("", "")
        ratio = f"{own['time_to_flops']:.2f}" if own and "time_to_flops" in own else ""
        rows.append((name, f"{took:.3f}", *shares, ratio))
    hooks = [
        ("the hooks of an inactive route", f"{figures['hooks_us']:.0f} us"),
        ("of a step", f"{figures['hooks_to_step']:.4%}"),
    ]
    return _aligned(rows) + "\n" + _aligned(hooks)


def train_step_gpu(figures: dict[str, Any]) -> str:
    """What each size of GPT-2 saves of a compiled step's matrix products, of its time, and of its memory."""
    rows = [("model", "plain ms", "routed ms", "FLOPs saved", "time saved", "time to FLOPs", "peak memory")]
    for name, own in figures["models"].items():
        times = f"{own['ms']['plain']:.1f}", f"{own['ms']['routed']:.1f}"
        shares = f"{own['of_flops']:.1%}", f"{own['of_time']:.1%}", f"{own['time_to_flops']:.2f}"
        rows.append((name, *times, *shares, f"{own['memory']:.0%}"))
    return _aligned(rows)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "architectures": architectures,
    "index_scale": index_scale,
    "index_vs_deepspeed": index_vs_deepspeed,
    "ops_cpu": ops_cpu,
    "ops_gpu": ops_gpu,
    "plan_recipes": plan_recipes,
    "sampler_vs_deepspeed": sampler_vs_deepspeed,
    "train_step": train_step,
    "train_step_gpu": train_step_gpu,
}


def table(name: str) -> str:
    """The table of one committed result, with where and when it was measured."""
    record = json.loads((RESULTS / f"{name}.json").read_text())
    versions = ", ".join(f"{what} {version}" for what, version in record["versions"].items())
    made = f"{record['date'][:10]}, {record['machine']['cores']} cores, {versions}"
    return f"{TABLES[name](record['figures'])}\n{made}\n"


def measured() -> list[str]:
    """What there are results of; the rest is due."""
    return [name for name in TABLES if (RESULTS / f"{name}.json").exists()]


if __name__ == "__main__":
    for name in measured():
        (RESULTS / f"{name}.txt").write_text(table(name))
        print(table(name))
    if "ops_gpu" in measured():
        gpu.plot(json.loads((RESULTS / "ops_gpu.json").read_text())["figures"], RESULTS / "ops_gpu.png")
