"""Learning curves of several runs against compute and steps, and what they were paced by."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dataeff.report._figure import new_figure

PACES = {"sequence_length": ("sequence length", "tab:purple"), "kept_tokens": ("kept tokens", "tab:red")}


def save_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path, *, title: str) -> None:
    """Write a PNG of three panels: loss by compute, loss by steps, and the paces of the last run.

    Args:
        curves: name of a run to its points, each with `steps`, `flops`, `bits_per_byte`, `sequence_length`,
            `kept_tokens` and `pool` (a share).
        path: of the PNG.
        title: above the panels.

    Raises:
        ImportError: matplotlib is not installed; the message says how to install it.
        ValueError: no runs, or a point that lacks one of these.

    Examples:
        >>> import tempfile
        >>> paces = {"sequence_length": 256, "kept_tokens": 64, "pool": 0.5}
        >>> run = [{"steps": s, "flops": 10**9 * s, "bits_per_byte": 5 - s, **paces} for s in (1, 2, 3)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_curves({"baseline": run}, Path(folder) / "curves.png", title="An example")
        ...     (Path(folder) / "curves.png").stat().st_size > 1000
        True
    """
    if not curves:
        raise ValueError("curves is {}; expected at least one run, as {'baseline': points}")
    figure = new_figure(13, 4.2)
    by_compute, by_steps, paces = figure.subplots(1, 3)
    for name, points in curves.items():
        loss = _column(name, points, "bits_per_byte")
        compute = [flops / 1e12 for flops in _column(name, points, "flops")]
        by_compute.plot(compute, loss, marker="o", markersize=3, label=name)
        by_steps.plot(_column(name, points, "steps"), loss, marker="o", markersize=3, label=name)
    by_compute.set(
        title="Loss by compute", xlabel="consumed compute (TFLOPs)", ylabel="held-out bits per byte"
    )
    by_steps.set(title="Loss by steps", xlabel="steps", ylabel="held-out bits per byte")
    by_compute.legend(frameon=False)

    name, points = list(curves.items())[-1]
    steps = _column(name, points, "steps")
    for key, (label, color) in PACES.items():
        paces.plot(steps, _column(name, points, key), label=label, color=color)
    paces.set(title=f"Paces: {name}", xlabel="steps", ylabel="tokens", ylim=(0, None))
    share = paces.twinx()
    pool = [100 * pool for pool in _column(name, points, "pool")]
    share.plot(steps, pool, "--", color="tab:green", label="pool")
    share.set(ylabel="eligible samples (%)", ylim=(0, 105))
    lines = paces.get_lines() + share.get_lines()
    paces.legend(lines, [line.get_label() for line in lines], frameon=False, loc="lower right")
    for axes in (by_compute, by_steps, paces):
        axes.grid(alpha=0.3)
        axes.spines["top"].set_visible(False)
    share.spines["top"].set_visible(False)
    figure.suptitle(title)
    figure.savefig(path, dpi=130)


def _column(name: str, points: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    for number, point in enumerate(points, 1):
        if key not in point:
            raise ValueError(f"run {name!r}, moment {number} has {', '.join(point)}; expected {key}, too")
    return [point[key] for point in points]
