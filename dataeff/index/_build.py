"""Build an index: map over shards of the corpus, keep what is finished, merge."""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, as_completed
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dataeff import registry
from dataeff.corpus import Corpus
from dataeff.corpus import open as open_corpus
from dataeff.index import _files
from dataeff.index._store import Index, new_manifest, read_manifest, write_metric
from dataeff.metrics import Metric, checked, checked_name, identity, resolve

TOKENS_PER_SHARD = 2**24


def build(
    corpus: Any,
    metrics: Iterable[Any] | Mapping[str, Any],
    *,
    out: str | Path,
    executor: str | Executor = "threads",
    progress: bool = True,
) -> Index:
    """Score every sample of a corpus with every metric and write the index into the folder `out`.

    Two passes over the corpus at most for a metric: one for statistics of the whole, one for the values.
    Each finished shard is kept in `out/parts`, so a build that was killed goes on where it was and gives the
    same bytes; a metric that the index already holds is not computed again. Two processes that build into
    one folder at once take turns.

    Args:
        corpus: a corpus, or what `corpus.open` opens.
        metrics: names, metrics or functions of one sample's tokens; or a mapping that gives them names.
        out: the folder; made if it is not there.
        executor: a name of the registry kind `executors`, or any `concurrent.futures.Executor`, which is
            left open.
        progress: show progress bars on standard error.

    Raises:
        ValueError: `out` is the index of another corpus, or holds a metric of that name made otherwise; a
            metric gives something else than one finite number a sample (the message names the sample).

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     index = build(["aaaa", "ab"], ["length", "vocab_rarity"], out=out, progress=False)
        ...     index.values("length").tolist(), index.order("vocab_rarity").tolist()
        ([4, 2], [0, 1])
    """
    corpus, out, named = open_corpus(corpus), Path(out), _named(metrics)
    if not len(corpus):
        raise ValueError("the corpus has no samples; there is nothing to index")
    for metric in named.values():
        identity(metric)  # refused, if at all, before anything is written
    out.mkdir(parents=True, exist_ok=True)
    with _files.locked(out), _running(executor) as pool:
        manifest = _manifest(out, corpus)
        missing = {name: metric for name, metric in named.items() if not _holds(out, manifest, name, metric)}
        if not missing:
            return Index(out)
        parts = out / "parts"
        parts.mkdir(exist_ok=True)
        for name, metric in missing.items():
            run = _Run(corpus, manifest["fingerprint"], name, metric, parts, pool, progress)
            fitted = None
            if type(metric).fit is not Metric.fit:
                fitted = reduce(metric.merge, run.map("fit", _fit))
            values = np.concatenate(run.map("score", _score, fitted))
            manifest["metrics"][name] = write_metric(out, name, values, made_by=identity(metric))
        _files.write_json(out / "manifest.json", manifest)
        shutil.rmtree(parts)
    return Index(out)


@attrs.frozen
class _Run:
    """One metric over one corpus, shard by shard."""

    corpus: Corpus
    fingerprint: str
    name: str
    metric: Metric
    parts: Path
    pool: Executor
    progress: bool

    def map(self, stage: str, task: Callable[..., None], *args: Any) -> list[NDArray[Any]]:
        """What `task` left for each shard, in order; finished shards are not done again."""
        spans = list(self.corpus.spans(TOKENS_PER_SHARD))
        paths = [self._part(stage, start, stop) for start, stop in spans]
        todo = [(span, path) for span, path in zip(spans, paths, strict=True) if not path.exists()]
        futures = {
            self.pool.submit(task, self.corpus, self.metric, span, path, *args): span for span, path in todo
        }
        bar = tqdm(
            total=len(self.corpus),
            initial=len(self.corpus) - sum(stop - start for (start, stop), _ in todo),
            desc=f"index: {stage} {self.name}",
            unit=" samples",
            unit_scale=True,
            disable=not self.progress,
        )
        try:
            for future in as_completed(futures):
                future.result()
                start, stop = futures[future]
                bar.update(stop - start)
        finally:
            bar.close()
            for future in futures:  # after an error, what has not begun need not begin
                future.cancel()
        return [_files.read_array(path) for path in paths]

    def _part(self, stage: str, start: int, stop: int) -> Path:
        """Named for all that its content depends on, so a part of another build is never taken for it."""
        parts = (self.fingerprint, identity(self.metric), stage, start, stop)
        digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).hexdigest()
        return self.parts / f"{self.name}-{stage}-{start}-{digest}.npy"


def _fit(corpus: Corpus, metric: Metric, span: tuple[int, int], path: Path) -> None:
    fitted = metric.fit(corpus.shard(*span))
    if not isinstance(fitted, np.ndarray) or fitted.ndim != 1:
        raise ValueError(f"{metric}.fit() gives {type(fitted).__name__}; expected a one-dimensional array")
    _files.write_array(path, fitted)


def _score(
    corpus: Corpus, metric: Metric, span: tuple[int, int], path: Path, fitted: NDArray[Any] | None
) -> None:
    shard = corpus.shard(*span)
    _files.write_array(path, checked(metric.score(shard, fitted), shard, metric, first=span[0]))


def _named(metrics: Iterable[Any] | Mapping[str, Any]) -> dict[str, Metric]:
    if isinstance(metrics, str):
        raise ValueError(f"metrics is the string {metrics!r}; expected a list: [{metrics!r}]")
    if isinstance(metrics, Mapping):
        pairs = [(name, resolve(metric)[1]) for name, metric in metrics.items()]
    else:
        pairs = [resolve(metric) for metric in metrics]
    named = {checked_name(name): metric for name, metric in pairs}
    if not named or len(named) != len(pairs):
        raise ValueError(
            f"metrics are {[name for name, _ in pairs]}; expected at least one, each of its own name"
        )
    return named


def _manifest(out: Path, corpus: Corpus) -> dict[str, Any]:
    if not (out / "manifest.json").exists():
        return new_manifest(corpus.fingerprint(), len(corpus))
    Index(out).check(corpus)
    return read_manifest(out)


def _holds(out: Path, manifest: dict[str, Any], name: str, metric: Metric) -> bool:
    entry = manifest["metrics"].get(name)
    if entry and entry["made_by"] != identity(metric):
        raise ValueError(
            f"{out} holds {name!r} made by {entry['made_by']}, not by {identity(metric)}; "
            "give the metric another name, or delete the index"
        )
    return entry is not None


def _running(executor: str | Executor) -> AbstractContextManager[Executor]:
    if isinstance(executor, str):
        made: Executor = registry.get("executors", executor)()
        return made
    if isinstance(executor, type) or not hasattr(executor, "submit"):
        raise ValueError(f"executor is {executor!r}; expected a name, or an executor such as threads(4)")
    return nullcontext(executor)
