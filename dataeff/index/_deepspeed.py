"""Indexes that DeepSpeed's data analyzer wrote."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataeff.corpus import Corpus, Shard, read_indexed
from dataeff.index._store import Index, from_values

_BY_SAMPLE = "_sample_to_metric"
_BY_VALUE = ("_index_to_metric", "_index_to_sample")


def import_deepspeed(
    source: str | Path,
    *,
    out: str | Path,
    metrics: Iterable[str] | None = None,
    corpus: Corpus | None = None,
) -> Index:
    """An index in the folder `out` from what DeepSpeed's data analyzer left in `source`.

    A metric is read from `<metric>_sample_to_metric`, or, where that was not kept, from the pair
    `<metric>_index_to_metric` and `<metric>_index_to_sample`, which its configs name. Files of single
    workers and threads are left alone.

    Args:
        source: the analyzer's `save_path`, or a folder in it.
        out: the folder of the new index.
        metrics: their names; by default all that are found.
        corpus: what was analyzed; with it, `build` can add metrics to the index.

    Raises:
        FileNotFoundError: there is no such metric; the message names those that there are.
        ValueError: a file is damaged, a metric is there twice, a sample has no value or two, or `out` holds
            an index already.

    Examples:
        >>> import_deepspeed("nowhere", out="idx")
        Traceback (most recent call last):
        ...
        FileNotFoundError: no folder nowhere; expected the save_path of DeepSpeed's data analyzer
    """
    source = Path(source)
    if not source.is_dir():
        raise FileNotFoundError(f"no folder {source}; expected the save_path of DeepSpeed's data analyzer")
    found = _metrics_in(source)
    names = list(found) if metrics is None else list(metrics)
    missing = [name for name in names if name not in found]
    if missing or not names:
        wanted = repr(missing[0]) if missing else "any metric"
        known = ", ".join(map(repr, found)) or "none"
        raise FileNotFoundError(f"{source} has no merged files of {wanted}; found: {known}")
    return from_values({name: _values(found[name], name) for name in names}, out=out, corpus=corpus)


def _metrics_in(source: Path) -> dict[str, Path]:
    """Name of a metric to the folder of its merged files."""
    found: dict[str, Path] = {}
    for suffix in (_BY_VALUE[0], _BY_SAMPLE):
        for file in sorted(source.rglob(f"*{suffix}.idx")):
            if file.parent.name.startswith("worker"):
                continue
            name = file.name.removesuffix(f"{suffix}.idx")
            if found.setdefault(name, file.parent) != file.parent:
                raise ValueError(
                    f"{name!r} is in {found[name]} and in {file.parent}; give one of the folders"
                )
    return dict(sorted(found.items()))


def _values(folder: Path, name: str) -> NDArray[Any]:
    by_sample = folder / f"{name}{_BY_SAMPLE}"
    if not by_sample.with_name(f"{by_sample.name}.idx").exists():
        return _values_by_level(folder, name)
    values = _read(by_sample)
    if (np.diff(values.offsets) != 1).any():
        raise ValueError(f"{by_sample}.idx holds sequences of several numbers; expected one a sample")
    return np.array(values.tokens)


def _values_by_level(folder: Path, name: str) -> NDArray[Any]:
    levels, samples = (_read(folder / f"{name}{suffix}") for suffix in _BY_VALUE)
    if len(levels) != len(samples) or len(levels.tokens) != len(levels):
        raise ValueError(
            f"{folder}: {name}{_BY_VALUE[0]} has {len(levels.tokens)} values and {name}{_BY_VALUE[1]} "
            f"{len(samples)} groups of samples; expected one value a group"
        )
    ids = samples.tokens.astype(np.int64)
    values = np.empty(len(ids), levels.tokens.dtype)
    if not np.array_equal(np.sort(ids), np.arange(len(ids))):
        raise ValueError(
            f"{folder}: {name}{_BY_VALUE[1]} does not name each of the samples 0 to {len(ids) - 1} once"
        )
    values[ids] = np.repeat(levels.tokens, np.diff(samples.offsets))
    return values


def _read(prefix: Path) -> Shard:
    corpus = read_indexed(prefix, deepspeed=True)
    return corpus.shard(0, len(corpus))
