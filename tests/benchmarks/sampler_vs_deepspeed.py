"""Batches of a curriculum: DeepSpeed's sampler and dataeff's in turn, then dataeff's alone at 100M samples.

`python -m tests.benchmarks.sampler_vs_deepspeed [--quick]`, in an environment of dataeff to which `pip
install deepspeed==0.19.8` was added. Global batches of 512 of 1M samples over 2,000 steps of a root pace of
degree 2 from percentile 1 to 100, by one metric and by two. What each does:

- DeepSpeed: `DeepSpeedDataSampler` on one process, iterated; its percentiles are whole numbers. Its files
  have one row a percentile, as its analyzer merges them. Its logging is off. That it is made and its files
  are opened does not count.
- dataeff: `samplers.curriculum`, iterated, with the same paces (`multiple=1`, so the same percentiles), and
  once more without, so that nearly every step has a new pool. That it is made does not count.

Batches by tokens are those of an epoch of samples of 1 to 2,047 tokens, in batches of 65,536 with padding.

The median over the runs is compared. At 100M samples a fresh process opens the curriculum of two metrics,
whose order is kept beside the index, and takes the same 2,000 steps, twice. Its own memory is what it holds
at the end beyond what it held after the imports, compiled code among it, without mapped files.
"""

import argparse
import importlib.util
import itertools
import json
import logging
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import dataeff as de
from tests.benchmarks.record import write

SAMPLES, STEPS, BATCH = 1_000_000, 2_000, 512
MANY = 100_000_000
RUNS = 3
METRICS = ("first", "second")
LONGEST, BUDGET = 2_048, 65_536  # tokens of a sample, and of a batch
BARS = {
    "one": 20,
    "two": 100,
    "slowest_ms": 5,
    "open_s": 0.5,
    "memory_mb": 200,
    "state_bytes": 300,
    "token_budget_s": 2,
}


def _values(samples: int) -> dict[str, NDArray[np.float32]]:
    stream = np.random.default_rng(0)
    return {name: stream.random(samples, np.float32) for name in METRICS}


def _curriculum(index: de.index.Index, metrics: Iterable[str], multiple: int | None) -> de.Curriculum:
    pace = de.pacing.root(1, 100, steps=STEPS, degree=2, multiple=multiple)
    return de.Curriculum(index, {name: de.paced(pace, by="percentile") for name in metrics})


def _sampler(curriculum: de.Curriculum) -> Any:
    return de.samplers.curriculum(curriculum, batch_size=BATCH, seed=1234, steps=STEPS)


def _put_theirs(folder: Path, index: de.index.Index) -> None:
    """Each metric's samples in rows of one percentile each, as files of DeepSpeed."""
    from deepspeed.runtime.data_pipeline.data_sampling.utils import (
        close_mmap_dataset_builder,
        create_mmap_dataset_builder,
    )

    for name in METRICS:
        for kind, rows in {
            "samples": np.array_split(index.order(name), 100),
            "values": [np.array([percentile]) for percentile in range(100)],
        }.items():
            path = str(folder / f"{name}-{kind}")
            builder = create_mmap_dataset_builder(path, np.int64)
            for row in rows:
                builder.add_item_numpy(np.asarray(row, np.int64))
            close_mmap_dataset_builder(builder, path)


def _theirs(folder: Path, metrics: Iterable[str], samples: int) -> Iterable[list[int]]:
    import deepspeed.comm
    from deepspeed.runtime.data_pipeline.data_sampling.data_sampler import DeepSpeedDataSampler

    pace = {"total_curriculum_step": STEPS, "difficulty_step": 1, "root_degree": 2}
    of_each = {
        name: {
            "index_to_sample_path": str(folder / f"{name}-samples"),
            "index_to_metric_path": str(folder / f"{name}-values"),
            "difficulty_type": "percentile",
            "clustering_type": "schedule_based",
            "min_difficulty": 1,
            "max_difficulty": 100,
            "schedule_type": "fixed_root",
            "schedule_config": pace,
        }
        for name in metrics
    }
    clusters = tempfile.mkdtemp(dir=folder)
    learning = {"enabled": True, "data_cluster_path": clusters, "curriculum_metrics": of_each}
    config = {"seed": 1234, "data_sampling": {"num_epochs": 1000, "curriculum_learning": learning}}
    group = deepspeed.comm.get_world_group()
    return DeepSpeedDataSampler(config, samples, BATCH, 0, 1, group, 1, 0)


def _start_theirs(folder: Path) -> None:
    import deepspeed.comm
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=0, world_size=1)
    deepspeed.comm.init_distributed("gloo", verbose=False)


def _run(batches: Iterable[list[int]]) -> dict[str, float]:
    took = []
    stream = iter(batches)
    for _ in range(STEPS):
        began = time.perf_counter()
        batch = next(stream)
        took.append(time.perf_counter() - began)
        if len(batch) != BATCH:
            sys.exit(f"a batch of {len(batch)}; expected {BATCH}")
    return {"batches_per_s": STEPS / sum(took), "slowest_ms": max(took) * 1e3}


def _middle(runs: list[dict[str, float]]) -> dict[str, float]:
    return {
        "batches_per_s": round(statistics.median(run["batches_per_s"] for run in runs)),
        "slowest_ms": round(statistics.median(run["slowest_ms"] for run in runs), 3),
    }


def compare(folder: Path, metrics: tuple[str, ...], samples: int, runs: int) -> dict[str, Any]:
    """Both in turn, `runs` times each; the pools are checked to be of the same sizes."""
    index = de.index.open(folder / "index")
    ours = {
        "ours": _curriculum(index, metrics, multiple=1),
        "ours_finer": _curriculum(index, metrics, multiple=None),
    }
    made: dict[str, Callable[[], Iterable[list[int]]]] = {
        "theirs": lambda: _theirs(folder, metrics, samples),
        **{name: (lambda curriculum=curriculum: _sampler(curriculum)) for name, curriculum in ours.items()},
    }
    took: dict[str, list[dict[str, float]]] = {name: [] for name in made}
    _run(_sampler(ours["ours"]))
    for _, name in itertools.product(range(runs), made):
        took[name].append(_run(made[name]()))
    found: dict[str, Any] = {name: _middle(of_it) for name, of_it in took.items()}
    ratio = found["ours"]["batches_per_s"] / found["theirs"]["batches_per_s"]
    return found | {"cohorts": len(ours["ours"].pools), "ours_to_theirs": round(ratio, 1)}


def by_tokens(samples: int) -> dict[str, float]:
    """All batches of a token budget over an epoch: planned, and handed out."""
    lengths = np.random.default_rng(0).integers(1, LONGEST, samples)
    took = []
    for _ in range(RUNS):
        stream = de.samplers.shuffled(samples, batch_size=BATCH, seed=1234)
        began = time.perf_counter()
        sampler = de.samplers.token_budget(stream, lengths=lengths, max_tokens=BUDGET)
        drawn = sum(map(len, sampler))
        took.append(time.perf_counter() - began)
        if drawn != len(stream) * BATCH:
            sys.exit(f"{drawn} samples in all; expected {len(stream) * BATCH}")
    return {"samples": samples, "batches": len(sampler), "token_budget_s": round(statistics.median(took), 3)}


def _own_memory() -> float:
    """MB that this process holds, without mapped files."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024 / 1e6


def at_scale(index: Path) -> dict[str, float]:
    """In a fresh process: open the curriculum of two metrics, whose order is kept; take all steps twice."""
    before = _own_memory()
    _run(_sampler(_curriculum(_warm(index), METRICS, multiple=None)))
    began = time.perf_counter()
    curriculum = _curriculum(de.index.open(index), METRICS, multiple=None)
    opened = time.perf_counter() - began
    began = time.perf_counter()
    sampler = _sampler(curriculum)
    made = time.perf_counter() - began
    first, second = _run(sampler), _run(_sampler(curriculum))
    return {
        "open_s": round(opened, 3),
        "make_sampler_s": round(made, 3),
        "batches_per_s": round(second["batches_per_s"]),
        "slowest_ms": round(max(first["slowest_ms"], second["slowest_ms"]), 3),
        "memory_mb": round(_own_memory() - before, 1),
        "state_bytes": len(pickle.dumps(sampler.state_dict())),
    }


def _warm(index: Path) -> de.index.Index:
    """A small index, on which all code is compiled and loaded before anything is measured."""
    return de.index.from_values(_values(2**20), out=Path(tempfile.mkdtemp(dir=index.parent)))


def main() -> None:
    """Measure, check, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a hundredth of the samples; writes no result")
    parser.add_argument("--at-scale", metavar="INDEX", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.at_scale:
        print(json.dumps(at_scale(args.at_scale)))
        return
    if importlib.util.find_spec("deepspeed") is None:
        sys.exit("deepspeed is not installed: pip install deepspeed==0.19.8")
    samples, many = (SAMPLES // 10, MANY // 50) if args.quick else (SAMPLES, MANY)
    figures: dict[str, Any] = {"samples": samples, "steps": STEPS, "batch_size": BATCH, "bars": BARS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _start_theirs(folder)
        index = de.index.from_values(_values(samples), out=folder / "index")
        _put_theirs(folder, index)
        runs = 1 if args.quick else RUNS
        figures["one"] = compare(folder, METRICS[:1], samples, runs)
        figures["two"] = compare(folder, METRICS, samples, runs)
    figures["by_tokens"] = by_tokens(samples)
    with tempfile.TemporaryDirectory() as name:
        index = de.index.from_values(_values(many), out=Path(name) / "index")
        began = time.perf_counter()
        _curriculum(index, METRICS, multiple=None)
        merge = {"samples": many, "merge_s": round(time.perf_counter() - began, 1)}
        module = [sys.executable, "-m", "tests.benchmarks.sampler_vs_deepspeed", "--at-scale"]
        ran = subprocess.run([*module, str(index.path)], capture_output=True, text=True, check=True)
        figures["at_scale"] = merge | json.loads(ran.stdout.splitlines()[-1])
    print(json.dumps(figures, indent=1))
    if not args.quick:
        write("sampler_vs_deepspeed", figures, versions={"deepspeed": version("deepspeed")})


if __name__ == "__main__":
    main()
