"""The whole way through, on real text: a baseline against a curriculum with token dropping."""

import datetime
import os
import platform
import re
from pathlib import Path
from typing import Any

import attrs
import torch

import dataeff as de
from dataeff import corpus
from dataeff.clock import Log
from dataeff.demo._arms import Arm, Config, arms
from dataeff.demo._text import load, split
from dataeff.demo._train import train

__all__ = ["Arm", "Config", "arms", "log_of", "run", "table", "train"]

WINDOWS_HELD_OUT = 128  # at most: evaluation is not to take longer than training


def run(
    *,
    steps: int,
    seed: int,
    device: str,
    text: Path | None,
    index: Path,
    config: Config,
    logs: Path | None = None,
) -> dict[str, Any]:
    """Train the same small GPT twice from the same seed and give every figure, for JSON.

    Args:
        steps: of the baseline; the other arm trains until it has consumed the same compute.
        seed: of the weights, the samples and the kept tokens.
        device: that torch knows.
        text: a file or folder of text; by default what Python carries.
        index: the folder for the index.
        config: sizes.
        logs: the folder for a log of each arm, at `log_of`, begun afresh; by default none are written.

    Raises:
        FileNotFoundError: nothing is at `text`.
        ValueError: too little text, a device that is not there, an `index` of other text.
    """
    check_device(device)
    window = config.length + 1
    material = split(*load(text), page=4 * window, share=0.05, need=40 * window)
    windows = corpus.from_samples([material.train]).windows(window)
    held_out = corpus.from_samples([material.held_out]).windows(window)
    count = min(len(held_out), WINDOWS_HELD_OUT)
    held_out_ids = torch.stack([held_out.dataset()[i] for i in range(count)])
    built = de.index.build(windows, ["vocab_rarity"], out=index)
    baseline, efficient = arms(built, config, steps=steps)
    opened = {arm.name: log_of(logs, arm.name) for arm in (baseline, efficient)} if logs else {}
    for log in opened.values():
        log.path.unlink(missing_ok=True)

    def points(arm: Arm, flops: int = 0) -> list[dict[str, Any]]:
        return train(
            arm,
            windows,
            held_out_ids,
            config,
            seed=seed,
            device=device,
            steps=steps,
            flops=flops,
            log=opened.get(arm.name),
        )

    reference = points(baseline)
    curves = {baseline.name: reference, efficient.name: points(efficient, reference[-1]["flops"])}
    return {
        "text": {
            "source": material.source,
            "training_bytes": len(material.train),
            "held_out_bytes": count * config.length,
        },
        "settings": {"steps": steps, "seed": seed, "device": device} | attrs.asdict(config),
        "paces": {
            arm.name: {
                "seqlen": repr(arm.seqlen),
                "keep": repr(arm.keep),
                "pool": repr(arm.curriculum.metrics),
            }
            for arm in (baseline, efficient)
        },
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "curves": curves,
    }


def log_of(folder: Path, name: str) -> Log:
    """The log of an arm among others, in a folder of its own, as `dataeff report` takes it.

    Examples:
        >>> log_of(Path("out"), "curriculum + random-LTD").path.as_posix()
        'out/curriculum-random-ltd/log.jsonl'
    """
    return Log(folder / re.sub(r"\W+", "-", name).lower() / "log.jsonl")


def check_device(device: str) -> None:
    """Raise ValueError unless torch can compute on `device`.

    Examples:
        >>> check_device("abacus")
        Traceback (most recent call last):
        ...
        ValueError: device 'abacus' is not there; expected one that torch can use, as 'cpu' or 'cuda'
    """
    try:
        torch.ones(1, device=device).add(1).item()
    except (RuntimeError, AssertionError, ImportError):
        raise ValueError(
            f"device {device!r} is not there; expected one that torch can use, as 'cpu' or 'cuda'"
        ) from None


def table(results: dict[str, Any]) -> str:
    """The comparison at equal steps and at equal compute, as text."""
    steps = results["settings"]["steps"]
    baseline, efficient = results["curves"]
    reference = results["curves"][baseline][-1]
    at_steps = next(point for point in results["curves"][efficient] if point["steps"] == steps)
    rows = [
        (baseline, reference),
        (f"{efficient}, equal steps", at_steps),
        (f"{efficient}, equal compute", results["curves"][efficient][-1]),
    ]
    header = (
        f"{'':39}{'steps':>7}{'tokens':>12}{'layer tokens':>14}{'TFLOPs':>9}{'seconds':>9}{'bits/byte':>11}"
    )
    lines = [header] + [
        f"{name:39}{point['steps']:>7,}{point['tokens']:>12,}{point['layer_tokens']:>14,}"
        f"{point['flops'] / 1e12:>9.2f}{point['seconds']:>9.1f}{point['bits_per_byte']:>11.3f}"
        for name, point in rows
    ]
    text = results["text"]
    lines += [
        "",
        f"Text: {text['source']}.",
        f"Trained on {text['training_bytes']:,} bytes of it, measured on {text['held_out_bytes']:,} others; "
        f"seed {results['settings']['seed']}, one run of each.",
        "A small model and little text: this shows the parts at work, not what they save on yours.",
    ]
    return "\n".join(lines)
