"""Time and memory of an index of 2 billion tokens, and of the order of 200 million values.

`python -m tests.benchmarks.index_scale [--quick]`. It writes up to 6 GB of temporary files; TMPDIR must be
on a disk, as memory-mapped files in memory would count as memory. Each measured call runs in a process of
its own, whose memory is read about every 2 ms, less what it had after imports and compilation. Files that
were just written are read from the page cache where it holds them, so no figure here includes reading a
cold disk.
"""

import argparse
import math
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import numpy as np
from numpy.typing import NDArray

from dataeff import _files, corpus, index, rng
from dataeff._kernel import kernel
from dataeff.index import _order
from tests.benchmarks.record import write

METRICS = ["vocab_rarity", "length"]
MEAN = 500  # tokens of a sample
VOCABULARY = 50_000
BLOCK = 2**24
GIB = 2**30
BYTES, PASSES = 2, 3  # of a token on disk; over the corpus: to identify, to count, to score
MACHINES, TRILLION = 100, 10**12
_BITS = 20  # of the table that tokens are drawn from

_cumulated = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
_TABLE = np.searchsorted(_cumulated, (np.arange(2**_BITS) + 0.5) / 2**_BITS * _cumulated[-1]).astype(
    np.uint16
)


@attrs.frozen(eq=False)
class Zipf(corpus.Corpus):
    """Samples that exist only when read: token number i of all is a function of `seed` and i alone. uint16.

    Token t has a probability in proportion to 1 / (t + 1).

    Examples:
        >>> samples = Zipf(np.array([0, 3, 5]))
        >>> samples[1].tolist() == samples.shard(0, 2).tokens[3:].tolist()
        True
    """

    offsets: NDArray[np.int64]
    seed: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def shard(self, start: int, stop: int) -> corpus.Shard:
        """Samples `start` up to `stop`."""
        offsets = self.offsets[start : stop + 1]
        tokens = np.empty(offsets[-1] - offsets[0], np.uint16)
        _draw(np.uint64(rng.key(self.seed, "zipf")), np.uint64(offsets[0]), _TABLE, tokens)
        return corpus.Shard(tokens, offsets - offsets[0])


@kernel
def _mixed(key: np.uint64, number: np.uint64) -> np.uint64:
    x = key + number * np.uint64(0x9E3779B97F4A7C15)  # SplitMix64
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@kernel
def _draw(key: np.uint64, first: np.uint64, table: NDArray[Any], out: NDArray[Any]) -> None:
    for i in range(len(out)):
        out[i] = table[_mixed(key, first + np.uint64(i)) >> np.uint64(64 - _BITS)]


@kernel
def _uniform(key: np.uint64, first: np.uint64, out: NDArray[np.float64]) -> None:
    for i in range(len(out)):
        out[i] = (_mixed(key, first + np.uint64(i)) >> np.uint64(40)) / 2.0**24


def ragged(tokens: int) -> NDArray[np.int64]:
    """Offsets of samples that are log-normal in length, with a mean of 500 and many times that at most."""
    lengths = np.random.default_rng(tokens).lognormal(size=tokens // MEAN)
    ends = np.cumsum(lengths)
    return np.concatenate([[0], np.rint(ends * (tokens / ends[-1]))]).astype(np.int64)


def index_of(tokens: int, repeats: int, folder: Path) -> dict[str, Any]:
    """Seconds and memory of an index of so many tokens, with its values checked."""
    path = folder / f"tokens-{tokens}"
    Zipf(ragged(tokens)).write(path, "megatron")
    os.sync()
    seconds, peak = measured(_build, path, folder / "index", repeats)
    median = statistics.median(seconds)
    figures = {
        "tokens": tokens,
        "samples": tokens // MEAN,
        "seconds": round(median, 4),
        "runs": [round(some, 4) for some in seconds],
        "ns_per_token": round(median / tokens * 1e9, 3),
        "peak_mib": round(peak / 2**20, 1),
        "largest_error": _check_values(corpus.megatron(path), index.open(folder / "index")),
    }
    for suffix in ("bin", "idx"):
        path.with_name(f"{path.name}.{suffix}").unlink()
    print("index", figures)
    return figures


def order_of(count: int, folder: Path) -> dict[str, Any]:
    """Seconds and memory of the order of so many values, which is checked."""
    path, out = folder / "values.npy", folder / "order.npy"
    _files.write_rows([path], count, [np.float64], _value_blocks(count))
    os.sync()
    seconds, peak = measured(_sort, path, out, 1)
    _check_order(_files.read_array(path), _files.read_array(out))
    path.unlink()
    out.unlink()
    figures = {
        "values": count,
        "seconds": round(seconds[0], 3),
        "ns_per_value": round(seconds[0] / count * 1e9, 2),
        "peak_mib": round(peak / 2**20, 1),
        "sorted_by_value_then_id": True,
    }
    print("order", figures)
    return figures


def measured(task: Callable[[Path, Path], None], path: Path, out: Path, runs: int) -> tuple[list[float], int]:
    """Seconds of each run of `task(path, out)` in a fresh process, and the bytes that all added at most."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(there, task, path, out, runs))
    process.start()
    there.close()
    here.recv()  # it is warm
    before = peak = _memory(process.pid)
    here.send("go")
    while not here.poll(0.002):
        peak = max(peak, _memory(process.pid))
    seconds = here.recv()
    process.join()
    return seconds, peak - before


def _serve(pipe: Connection, task: Callable[[Path, Path], None], path: Path, out: Path, runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _warm(Path(folder))
    pipe.send("warm")
    pipe.recv()
    seconds = []
    for _ in range(runs):
        shutil.rmtree(out, ignore_errors=True)
        began = time.perf_counter()
        task(path, out)
        seconds.append(time.perf_counter() - began)
    pipe.send(seconds)


def _build(path: Path, out: Path) -> None:
    index.build(corpus.open(path), METRICS, out=out, executor="threads", progress=False)


def _sort(path: Path, out: Path) -> None:
    _order.write_order(_files.read_array(path), out)


def _warm(folder: Path) -> None:
    """Import and compile all that is measured, on a little of the same data."""
    Zipf(ragged(10_000)).write(folder / "tokens", "megatron")
    _build(folder / "tokens", folder / "index")
    _files.write_rows([folder / "values.npy"], 1000, [np.float64], _value_blocks(1000))
    with mock.patch.object(_order, "RUN", 100):
        _sort(folder / "values.npy", folder / "order.npy")


def _memory(process: int | None) -> int:
    """Bytes that a process has of its own: those that are no page of a file."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


def _value_blocks(count: int) -> Any:
    """Floats of 24 bits, so that many are equal."""
    for low in range(0, count, BLOCK):
        block = np.empty(min(BLOCK, count - low))
        _uniform(np.uint64(rng.key(0, "values")), np.uint64(low), block)
        yield (block,)


def _check_values(samples: corpus.Corpus, made: index.Index) -> float:
    """Compare 1000 samples with what NumPy gives for them; the largest relative error."""
    counts = np.zeros(2**16, np.int64)
    for start, stop in samples.spans(BLOCK):
        counts += np.bincount(samples.shard(start, stop).tokens, minlength=2**16)
    rarity = -np.log(np.maximum(counts, 1) / counts.sum())
    chosen = np.random.default_rng(0).choice(len(samples), min(1000, len(samples)), replace=False)
    expected = np.array([math.fsum(rarity[samples[i]]) for i in chosen])
    np.testing.assert_allclose(made.values("vocab_rarity")[chosen], expected, rtol=1e-9)
    np.testing.assert_array_equal(made.values("length")[chosen], [len(samples[i]) for i in chosen])
    return float(np.abs(made.values("vocab_rarity")[chosen] / expected - 1).max())


def _check_order(values: NDArray[np.float64], order: NDArray[Any]) -> None:
    """(value, id) rises strictly all along, so no id comes twice; and there are as many as values."""
    assert len(order) == len(values)
    for low in range(0, len(order), BLOCK):
        ids = order[max(low - 1, 0) : low + BLOCK]
        own = values[ids]
        rises = (own[:-1] < own[1:]) | ((own[:-1] == own[1:]) & (ids[:-1] < ids[1:]))
        assert rises.all(), f"the order falls at {low + int(np.argmin(rises))}"


def trillion(
    figures: dict[str, Any], order: dict[str, Any], cores: int, machine_cores: int
) -> dict[str, Any]:
    """What a trillion tokens would take on 100 machines if each core did what one of `cores` did here."""
    rate = figures["tokens"] / figures["seconds"] / cores
    seconds = TRILLION / (MACHINES * machine_cores * rate)
    return {
        "machines": MACHINES,
        "cores_per_machine": machine_cores,
        "bytes_per_token": BYTES,
        "passes": PASSES,
        "samples": TRILLION // MEAN,
        "measured_seconds": figures["seconds"],
        "measured_tokens": figures["tokens"],
        "measured_cores": cores,
        "tokens_per_s_per_core": round(rate),
        "seconds": round(seconds, 1),
        "disk_gb_per_s_per_machine": round(TRILLION * BYTES * PASSES / MACHINES / seconds / 1e9, 2),
        "then_order_on_one_machine_s": round(TRILLION / MEAN * order["ns_per_value"] / 1e9),
        "assumed": "cores do not slow each other down, disks read at that rate, executors cost nothing",
    }


def main() -> None:
    """Measure, check, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20M tokens and 20M values; writes no result")
    quick = parser.parse_args().quick
    sizes = {10**7: 5, 2 * 10**7: 3} if quick else {10**7: 15, 10**8: 7, 2 * 10**9: 3}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        indexes = [index_of(tokens, repeats, folder) for tokens, repeats in sizes.items()]
        order = order_of(2 * 10**7 if quick else 2 * 10**8, folder)
    cores = len(os.sched_getaffinity(0))
    figures = {
        "metrics": METRICS,
        "indexes": indexes,
        "cost_against_the_first": [
            round(some["ns_per_token"] / indexes[0]["ns_per_token"], 3) for some in indexes
        ],
        "cost_bar": 1.3,
        "order": order,
        "peak_bar_mib": GIB // 2**20,
        "trillion_tokens": [trillion(indexes[-1], order, cores, each) for each in (cores, 16)],
    }
    print(figures["cost_against_the_first"], figures["trillion_tokens"], sep="\n")
    if not quick:
        write("index_scale", figures)


if __name__ == "__main__":
    main()
