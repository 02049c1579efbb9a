"""Vocabulary rarity of a corpus, end to end: DeepSpeed's data analyzer, dataeff and a bare scan in turn.

`python -m tests.benchmarks.index_vs_deepspeed [--quick]`, in an environment of dataeff to which `pip
install deepspeed==0.19.8 tokenizers` was added. All read the same two files, a Megatron pair in DeepSpeed's
own variant, from the page cache. What each does:

- DeepSpeed: its `DataAnalyzer` twice, first the count of each token, then the rarity of each sample, in
  whole nats (its values are integers). Two processes map and two reduce (`num_threads` and
  `num_threads_reduce`, which start processes), on one thread each. To its advantage: batches of 1,000
  samples (of 300 to 100,000 none took it clearly less processor time; its example has 10,000); samples are
  views of the mapped file, not padded; both metrics are vectorised; its logging is off. Each run is a new
  process; imports and a small first run are not counted.
- dataeff: `index.build(corpus, ["vocab_rarity"], executor="threads")`, into a new folder.
- bare scan: count, table, sum and one stable argsort in compiled loops on one core, on tokens that are in
  memory already; nothing is written.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from dataeff import corpus, index
from tests import realdata
from tests.benchmarks.index_scale import VOCABULARY, Zipf
from tests.benchmarks.record import write

PAIRS = 3
OURS = 5  # of our runs for one of theirs: they are short, and the median is what counts
BATCH = 1_000
PROCESSES = 2
BARS = {"theirs_to_ours": 20, "ours_to_bare": 2}


def _theirs(path: Path, out: Path, tokens: int) -> float:
    """Seconds that DeepSpeed takes for the index of the pair `path`, with ids below `tokens`."""
    from deepspeed.runtime.data_pipeline.data_sampling.indexed_dataset import MMapIndexedDataset
    from torch.utils.data import Subset

    multiprocessing.set_start_method("fork")
    little = Subset(MMapIndexedDataset(str(path), skip_warmup=True), range(100))
    _analyze_both(little, out.with_name("warm"), tokens)
    began = time.perf_counter()
    _analyze_both(MMapIndexedDataset(str(path), skip_warmup=True), out, tokens)
    return time.perf_counter() - began


def _analyze_both(dataset: Any, out: Path, tokens: int) -> None:
    from deepspeed.runtime.data_pipeline.data_sampling.indexed_dataset import MMapIndexedDataset

    def count(batch: list[NDArray[Any]]) -> NDArray[np.int64]:
        return np.bincount(np.concatenate(batch), minlength=tokens)

    _analyze(dataset, out, "count", count, "accumulate_value_over_samples")
    counted = MMapIndexedDataset(str(out / "count/count_metric_value"), skip_warmup=True)
    counts = np.array(counted[0])  # a view that outlives its dataset is of unmapped memory
    table = -np.log(np.maximum(counts, 1) / counts.sum())

    def rarity(batch: list[NDArray[Any]]) -> NDArray[np.int64]:
        starts = np.cumsum([0, *map(len, batch[:-1])])
        return np.rint(np.add.reduceat(table[np.concatenate(batch)], starts)).astype(np.int64)

    _analyze(dataset, out, "rarity", rarity, "single_value_per_sample")


def _analyze(dataset: Any, out: Path, name: str, function: Callable[[Any], Any], kind: str) -> None:
    from deepspeed.runtime.data_pipeline.data_sampling.data_analyzer import DataAnalyzer

    analyzer = DataAnalyzer(
        dataset,
        num_threads=PROCESSES,
        num_threads_reduce=PROCESSES,
        batch_size=BATCH,
        metric_names=[name],
        metric_functions=[function],
        metric_types=[kind],
        metric_dtypes=[np.int64],
        save_path=str(out),
        collate_fn=list,
    )
    analyzer.run_map()
    analyzer.run_reduce()


def _in_process(path: Path, out: Path, tokens: int) -> float:
    """`_theirs` in a fresh process with one thread a process: its forks hang where threads were started."""
    module = [sys.executable, "-m", "tests.benchmarks.index_vs_deepspeed", "--theirs"]
    command = [*module, str(path), str(out), str(tokens)]
    os.sync()
    ended = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        sys.exit(f"DeepSpeed's side failed:\n{ended.stderr[-2000:]}")
    return float(json.loads(ended.stdout.splitlines()[-1]))


def _ours(path: Path, out: Path) -> float:
    os.sync()
    began = time.perf_counter()
    index.build(corpus.megatron(path), ["vocab_rarity"], out=out, executor="threads", progress=False)
    return time.perf_counter() - began


def _bare(shard: corpus.Shard, tokens: int) -> float:
    began = time.perf_counter()
    counts = np.zeros(tokens, np.int64)
    _count(shard.tokens, counts)
    table = -np.log(np.maximum(counts, 1) / counts.sum())
    values = np.empty(len(shard))
    _sum(shard.tokens, shard.offsets, table, values)
    np.argsort(values, kind="stable")
    return time.perf_counter() - began


@numba.njit(error_model="numpy")
def _count(tokens: NDArray[Any], counts: NDArray[np.int64]) -> None:
    for token in tokens:
        counts[token] += 1


@numba.njit(error_model="numpy")
def _sum(tokens: NDArray[Any], offsets: NDArray[np.int64], table: NDArray[Any], out: NDArray[Any]) -> None:
    for i in range(len(out)):
        total = 0.0
        for j in range(offsets[i], offsets[i + 1]):
            total += table[tokens[j]]
        out[i] = total


def compare(path: Path, tokens: int, pairs: int) -> dict[str, Any]:
    """Seconds of each side on the pair `path`, and how far the results agree."""
    _as_deepspeed(path)
    mapped = corpus.megatron(path).shard(0, len(corpus.megatron(path)))
    shard = corpus.Shard(np.array(mapped.tokens), np.array(mapped.offsets))
    _bare(shard, tokens)
    with tempfile.TemporaryDirectory() as folder:
        _ours(path, Path(folder))
    theirs, ours, bare = [], [], []
    for _ in range(pairs):
        with tempfile.TemporaryDirectory() as name:
            folders = [Path(name) / f"ours-{i}" for i in range(OURS)]
            theirs.append(_in_process(path, Path(name) / "theirs", tokens))
            for folder in folders:
                ours.append(_ours(path, folder))
                bare.append(_bare(shard, tokens))
            agreement = _agreement(Path(name) / "theirs", folders[-1])
    seconds = {"theirs": theirs, "ours": ours, "bare": bare}
    medians = {side: statistics.median(runs) for side, runs in seconds.items()}
    return {
        "samples": len(shard),
        "tokens": shard.tokens.size,
        "median_s": {side: round(value, 4) for side, value in medians.items()},
        "runs_s": {side: [round(run, 4) for run in runs] for side, runs in seconds.items()},
        "theirs_to_ours": round(medians["theirs"] / medians["ours"], 1),
        "ours_to_bare": round(medians["ours"] / medians["bare"], 2),
        "agreement": agreement,
    }


def _agreement(theirs: Path, ours: Path) -> dict[str, float]:
    """How far the values lie apart, which is half a nat at most by rounding, and the correlation of ranks."""
    with tempfile.TemporaryDirectory() as name:
        imported = index.import_deepspeed(theirs, metrics=["rarity"], out=name)
        found, expected = np.array(imported.values("rarity")), index.open(ours).values("vocab_rarity")
    largest = float(np.abs(found - expected).max())
    spearman = float(np.corrcoef(_ranks(found), _ranks(expected))[0, 1])
    if largest > 0.5 + 1e-6 or spearman < 0.999:
        sys.exit(f"the two do not agree: {largest} nats apart, ranks correlate by {spearman}")
    return {"largest_difference_nats": round(largest, 6), "spearman": round(spearman, 7)}


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Equal values share the mean of their ranks."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - counts / 2)[which])


def _as_deepspeed(path: Path) -> None:
    """Change the code of uint16 in the index from Megatron's, 8, to DeepSpeed's, 6; dataeff reads both."""
    with path.with_name(f"{path.name}.idx").open("r+b") as file:
        file.seek(17)
        if file.read(1) == b"\x08":
            file.seek(17)
            file.write(b"\x06")


def _zipf(folder: Path, samples: int) -> tuple[Path, int]:
    Zipf(np.arange(samples + 1, dtype=np.int64) * 512).write(folder / "zipf", "megatron")
    return folder / "zipf", VOCABULARY


def _real(folder: Path, samples: int | None) -> tuple[Path, int]:
    """Dictionary entries and film reviews as tokens; only some of the entries where `samples` is given."""
    texts = [realdata.gcide(), realdata.movie_reviews()]
    tokenizer = realdata.bpe(texts)
    read = [corpus.text(path, sample_by="line", tokenizer=tokenizer) for path in texts]
    joined: corpus.Corpus = corpus.Joined(read)
    if samples is not None:
        joined = corpus.from_samples(joined.shard(0, samples))
    joined.write(folder / "real", "megatron", dtype="uint16")
    return folder / "real", 8192


def _table(figures: dict[str, Any]) -> str:
    rows = [f"{'corpus':8}{'theirs s':>10}{'ours s':>10}{'bare s':>10}{'theirs/ours':>13}{'ours/bare':>11}"]
    for name, found in figures.items():
        seconds = "".join(f"{value:10.3f}" for value in found["median_s"].values())
        rows.append(f"{name:8}{seconds}{found['theirs_to_ours']:13.1f}{found['ours_to_bare']:11.2f}")
    return "\n".join([*rows, f"{'bars':8}{'':30}{'>= 20':>13}{'<= 2':>11}"])


def main() -> None:
    """Measure, check, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the data; writes no result")
    parser.add_argument("--theirs", nargs=3, metavar=("PATH", "OUT", "TOKENS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if importlib.util.find_spec("deepspeed") is None:
        sys.exit("deepspeed is not installed: pip install deepspeed==0.19.8 tokenizers")
    if args.theirs:
        path, out, tokens = args.theirs
        with contextlib.redirect_stdout(io.StringIO()):
            seconds = _theirs(Path(path), Path(out), int(tokens))
        print(json.dumps(seconds))
        return
    with tempfile.TemporaryDirectory() as name:
        made = {
            "zipf": _zipf(Path(name), 20_000 if args.quick else 200_000),
            "real": _real(Path(name), 16_000 if args.quick else None),
        }
        figures = {key: compare(*pair, pairs=1 if args.quick else PAIRS) for key, pair in made.items()}
    print(_table(figures))
    print(json.dumps(figures) if args.quick else "")
    if not args.quick:
        write("index_vs_deepspeed", figures | {"bars": BARS}, versions={"deepspeed": version("deepspeed")})


if __name__ == "__main__":
    main()
