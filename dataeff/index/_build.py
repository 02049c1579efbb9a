"""Build an index: map over pieces of the corpus, keep what is finished, merge."""

import hashlib
import multiprocessing
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import reduce
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import attrs
from numpy.typing import NDArray

from dataeff import _files, registry
from dataeff.corpus import as_fingerprint
from dataeff.corpus import open as open_corpus
from dataeff.index import _store, _tasks
from dataeff.index._bar import bar
from dataeff.index._store import Index
from dataeff.metrics import Metric, checked_name, identity, resolve

_READ = 2**22  # tokens hashed at once
_PENDING = 1024  # tasks given to an executor at once: enough for a cluster, and no whole corpus on its way
_FITS = 256  # at most that many statistics are kept, each as large as the vocabulary, say


def build(
    corpus: Any,
    metrics: Iterable[Any] | Mapping[str, Any],
    *,
    out: str | Path,
    executor: str | Executor = "threads",
    progress: bool = True,
    **options: Any,
) -> Index:
    """Score every sample of a corpus with every metric and write the index into the folder `out`.

    Three passes over the corpus at most: one that identifies it, one for statistics of the whole where a
    metric needs them, one for the values of all metrics. Each finished piece is kept in `out/parts`, so a
    build that was killed goes on where it was and gives the same bytes; a metric that the index already
    holds is not computed again. Two processes that build into one folder at once take turns.

    Samples that were added at the end of a corpus are scored alone; only a metric with statistics of the
    whole scores the others again, since all its values change. The index is the one that a fresh build would
    give.

    Args:
        corpus: a corpus, or what `corpus.open` opens.
        metrics: names, metrics or functions of one sample's tokens; or a mapping that gives them names.
        out: the folder; made if it is not there.
        executor: a name of the registry kind `executors`, or any `concurrent.futures.Executor`, which is
            left open. Tasks give their results back, so only this process writes.
        progress: show progress bars on standard error.
        **options: for the executor of that name, such as `workers=4`.

    Raises:
        ValueError: `out` is the index of another corpus, or holds a metric of that name made otherwise; a
            metric gives something else than one finite number a sample (the message names the sample), or
            cannot be sent to other processes.
        ChildProcessError: a worker process was killed.
        OSError: the disk is full. After this and the one above, the same call goes on where it was.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     index = build(["aaaa", "ab"], ["length", "vocab_rarity"], out=out, progress=False)
        ...     index.values("length").tolist(), index.order("vocab_rarity").tolist()
        ([4, 2], [0, 1])
    """
    _refuse_half_started(executor)
    corpus, out, named = open_corpus(corpus), Path(out), _named(metrics)
    if not len(corpus):
        raise ValueError("the corpus has no samples; there is nothing to index")
    made_by = {name: identity(metric) for name, metric in named.items()}  # refused before anything is written
    _files.make_folder(out)
    with _files.locked(out), _running(executor, options) as pool:
        _store.finish(out)
        held = _store.read_manifest(out) if (out / "manifest.json").exists() else None
        known = held["samples"] if held else 0
        run = _Run(_tasks.Source(corpus), out / "parts", pool, progress)
        fingerprint = _fingerprint(run, out, held, known)
        entries = held["metrics"] if held else {}
        missing = _missing(out, entries, named, made_by, grown=len(corpus) - known if held else 0)
        if missing:
            _files.make_folder(run.parts)
            manifest = _store.new_manifest(fingerprint, len(corpus))
            manifest["metrics"] = dict(entries)
            for name, values, fitted in _computed(run, out, fingerprint, missing, entries):
                manifest["metrics"][name] = _store.write_metric(
                    run.parts / name, values, made_by=made_by[name], fitted=fitted, progress=progress
                )
            _store.commit(out, manifest)
        else:
            _store.tidy(out, entries)
    return Index(out)


def _refuse_half_started(executor: str | Executor) -> None:
    """A worker that imports a script without a guard would build too, and wait for its own parent."""
    if executor == "processes" and getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(
            'build(executor="processes") was called while a worker imported the script; put the call below '
            'if __name__ == "__main__":'
        )


@attrs.frozen
class _Run:
    """One corpus on one executor."""

    source: _tasks.Source
    parts: Path
    pool: Executor
    progress: bool

    def spans(self, tokens: int, *bounds: int) -> list[tuple[int, int]]:
        """Spans of about `tokens` tokens that end at each of `bounds` and at the end of the corpus."""
        spans = []
        for low, high in pairwise((*bounds, len(self.source.corpus))):
            for start, stop in self.source.corpus.spans(tokens, low):
                if start >= high:
                    break
                spans.append((start, min(stop, high)))
        return spans

    def map(
        self, title: str, task: Callable[..., Any], spans: list[tuple[int, int]], args: Callable[[int], Any]
    ) -> Iterator[tuple[int, Any]]:
        """(number of the span, result) as they finish; None from `args` means that there is nothing to do."""
        given = {number: args(number) for number in range(len(spans))}
        todo = [number for number, own in given.items() if own is not None]
        sizes = [stop - start for start, stop in spans]
        finished = sum(sizes) - sum(sizes[number] for number in todo)
        futures: dict[Any, int] = {}
        numbers = iter(todo)
        with bar(title, sum(sizes), done=finished, show=self.progress) as update:
            try:
                while True:
                    for number in islice(numbers, _PENDING - len(futures)):
                        future = _submitted(
                            self.pool, task, self.source.piece(*spans[number]), *given[number]
                        )
                        futures[future] = number
                        if future.done():  # at once, so that a serial build keeps what it has finished
                            break
                    if not futures:
                        break
                    for future in wait(futures, return_when=FIRST_COMPLETED).done:
                        number = futures.pop(future)  # with it goes its result
                        yield number, _result(future)
                        update(sizes[number])
            finally:
                for future in futures:  # after an error, what has not begun need not begin
                    future.cancel()


def _submitted(pool: Executor, task: Callable[..., Any], *args: Any) -> Any:
    with _whole_pool():
        return pool.submit(task, *args)


@contextmanager
def _whole_pool() -> Iterator[None]:
    try:
        yield
    except BrokenExecutor as error:
        raise ChildProcessError(
            f"a worker process was killed, ran out of memory, or could not start: {error} Finished pieces "
            'are kept; run the same again. In a script, the call must be below if __name__ == "__main__":'
        ) from error


def _result(future: Any) -> Any:
    try:
        with _whole_pool():
            return future.result()
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        if "pickle" not in str(error) and "serialize" not in str(error):
            raise
        raise ValueError(
            f"a metric or the corpus cannot be sent to other processes: {error}; define functions at the "
            "top of a "
            'module, or use executor="threads"'
        ) from error


def _fingerprint(run: _Run, out: Path, held: dict[str, Any] | None, known: int) -> str:
    """That of the whole corpus. ValueError if the index held is not one of its first samples."""
    corpus = run.source.corpus
    if known > len(corpus):
        raise _store.another(out, held, corpus.fingerprint(), len(corpus))
    spans = run.spans(_READ, 0, known) if known else run.spans(_READ, 0)
    digests = dict(run.map("read", _tasks.digest, spans, lambda _: ()))
    if held:
        first = as_fingerprint(sum(digests[i] for i, (_, stop) in enumerate(spans) if stop <= known))
        if first != held["fingerprint"]:
            raise _store.another(out, held, as_fingerprint(sum(digests.values())), len(corpus))
    return as_fingerprint(sum(digests.values()))


def _missing(
    out: Path,
    entries: Mapping[str, Any],
    named: dict[str, Metric],
    made_by: dict[str, str],
    *,
    grown: int,
) -> dict[str, Metric]:
    """The metrics to compute: those not held, or all if the corpus has grown."""
    for name in named:
        if name in entries and entries[name]["made_by"] != made_by[name]:
            raise ValueError(
                f"{out} holds {name!r} made by {entries[name]['made_by']}, not by {made_by[name]}; "
                "give the metric another name, or delete the index"
            )
    if not grown:
        return {name: metric for name, metric in named.items() if name not in entries}
    if left := [name for name in entries if name not in named]:
        raise ValueError(
            f"the corpus has grown by {grown} samples, and {out} also holds {', '.join(map(repr, left))}; "
            "name "
            "them too, so that all metrics cover all samples, or give another out="
        )
    return named


def _computed(
    run: _Run, out: Path, fingerprint: str, missing: dict[str, Metric], entries: Mapping[str, Any]
) -> Iterator[tuple[str, list[Path], NDArray[Any] | None]]:
    """Each metric's name, the files that hold its values, and its statistics of the corpus."""
    fits = {name for name, metric in missing.items() if type(metric).fit is not Metric.fit}
    old = Index(out) if entries else None
    kept = {name: old for name in missing if old is not None and name in entries}
    fitted: dict[str, NDArray[Any]] = {}
    for (tokens, known), group in _grouped(missing, kept).items():
        names = [name for name in group if name in fits]
        if names:
            fitted |= _fitted(run, fingerprint, {name: group[name] for name in names}, tokens, known, kept)
    # values that depend on the whole change with every sample that is added
    starts = {name: index for name, index in kept.items() if name not in fits}
    for (tokens, known), group in _grouped(missing, starts).items():
        for name, values in _scored(run, fingerprint, group, fitted, tokens, known).items():
            before = [out / name / "values.npy"] if known else []
            yield name, before + values, fitted.get(name)


def _grouped(
    metrics: dict[str, Metric], kept: Mapping[str, Index]
) -> dict[tuple[int, int], dict[str, Metric]]:
    """Metrics that go over the same spans: of so many tokens, from the same sample on."""
    groups: dict[tuple[int, int], dict[str, Metric]] = {}
    for name, metric in metrics.items():
        known = len(kept[name]) if name in kept else 0
        groups.setdefault((metric.shard_tokens, known), {})[name] = metric
    return groups


def _fitted(
    run: _Run,
    fingerprint: str,
    metrics: dict[str, Metric],
    tokens: int,
    known: int,
    kept: Mapping[str, Index],
) -> dict[str, NDArray[Any]]:
    spans = run.spans(tokens, known)
    step = -(-len(spans) // _FITS)
    groups = [spans[i : i + step] for i in range(0, len(spans), step)]
    wide = [(some[0][0], some[-1][1]) for some in groups]
    parts = _stored(
        run, "fit", _tasks.fit, wide, metrics, fingerprint, lambda some, number: (some, groups[number])
    )
    fitted = {}
    for name, metric in metrics.items():
        before = kept[name].fitted(name) if known else None
        after = reduce(metric.merge, map(_files.read_array, parts[name]))
        fitted[name] = after if before is None else metric.merge(before, after)
    return fitted


def _scored(
    run: _Run,
    fingerprint: str,
    metrics: dict[str, Metric],
    fitted: dict[str, NDArray[Any]],
    tokens: int,
    known: int,
) -> dict[str, list[Path]]:
    spans = run.spans(tokens, known)

    def args(some: dict[str, Metric], number: int) -> tuple[Any, ...]:
        return some, {name: fitted[name] for name in some if name in fitted}

    return _stored(run, "score", _tasks.score, spans, metrics, fingerprint, args)


def _stored(
    run: _Run,
    stage: str,
    task: Callable[..., dict[str, NDArray[Any]]],
    spans: list[tuple[int, int]],
    metrics: dict[str, Metric],
    fingerprint: str,
    args: Callable[[dict[str, Metric], int], tuple[Any, ...]],
) -> dict[str, list[Path]]:
    """Files with what `task` gives for each metric and span, in order; whole ones are not made again."""
    paths = {}
    for name, metric in metrics.items():
        depends = fingerprint, identity(metric)
        paths[name] = [run.parts / _part(name, stage, start, stop, *depends) for start, stop in spans]

    def missing(number: int) -> tuple[Any, ...] | None:
        some = {
            name: metric for name, metric in metrics.items() if _files.read_part(paths[name][number]) is None
        }
        return args(some, number) if some else None

    for number, results in run.map(f"{stage} {_tasks.names(list(metrics))}", task, spans, missing):
        for name, array in results.items():
            _files.write_part(paths[name][number], array)
    return paths


def _part(name: str, stage: str, start: int, stop: int, *depends: str) -> str:
    """Named for all that its content depends on, so a part of another build is never taken for it."""
    digest = hashlib.blake2b("\0".join((*depends, str(stop))).encode(), digest_size=8).hexdigest()
    return f"{name}-{stage}-{start}-{digest}.npy"


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


def _running(executor: str | Executor, options: dict[str, Any]) -> AbstractContextManager[Executor]:
    if isinstance(executor, str):
        try:
            made: Executor = registry.get("executors", executor)(**options)
        except TypeError as error:
            if not options:
                raise
            raise ValueError(f"executor {executor!r} does not take these options: {error}") from None
        return made
    if isinstance(executor, type) or not hasattr(executor, "submit"):
        raise ValueError(f"executor is {executor!r}; expected a name, or an executor such as threads(4)")
    if options:
        raise ValueError(f"options are {', '.join(options)}; an executor that is made already takes none")
    return nullcontext(executor)
