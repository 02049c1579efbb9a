"""Build an index: map over pieces of the corpus, keep what is finished, merge."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from functools import reduce
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dataeff import _files
from dataeff.corpus import as_fingerprint
from dataeff.corpus import open as open_corpus
from dataeff.index import _store, _tasks
from dataeff.index._manifest import another, new_manifest, read_manifest
from dataeff.index._place import refuse_inside
from dataeff.index._run import Run, refuse_half_started, running
from dataeff.index._store import Index
from dataeff.metrics import Metric, checked_name, identity, resolve

_READ = 2**22  # tokens hashed at once
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
    metric needs them, one for the values of all metrics; and where no file says how long samples are, a look
    at 512 of them. Each finished piece is kept in `out/parts`, so a
    build that was killed goes on where it was and gives the same bytes; a metric that the index already
    holds is not computed again, unless its files are damaged. Two processes that build into one folder at
    once take turns.

    Samples that were added at the end of a corpus are scored alone; only a metric with statistics of the
    whole scores the others again, since all its values change. The index is the one that a fresh build would
    give.

    Args:
        corpus: a corpus, or what `corpus.open` opens.
        metrics: names, metrics or functions of one sample's tokens; or a mapping that gives them names.
        out: the folder; made if it is not there. Not one inside a folder that is the corpus.
        executor: a name of the registry kind `executors`, or any `concurrent.futures.Executor`, which is
            left open. Tasks give their results back, so only this process writes.
        progress: show progress bars on standard error.
        **options: for the executor of that name, such as `workers=4`.

    Raises:
        ValueError: `out` is the index of another corpus, or holds a metric of that name made otherwise; the
            corpus has grown or shrunk while it was indexed; a metric gives something else than one finite
            number a sample (the message names the sample), or cannot be sent to other processes.
        ChildProcessError: a worker process was killed.
        OSError: the disk is full. After this and the one above, the same call goes on where it was.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     index = build(["aaaa", "ab"], ["length", "vocab_rarity"], out=out, progress=False)
        ...     index.values("length").tolist(), index.order("vocab_rarity").tolist()
        ([4, 2], [0, 1])
    """
    refuse_half_started(executor)
    refuse_inside(corpus, Path(out))
    corpus, out, named = open_corpus(corpus), Path(out), _named(metrics)
    samples = len(corpus)
    if not samples:
        raise ValueError("the corpus has no samples; there is nothing to index")
    made_by = {name: identity(metric) for name, metric in named.items()}  # refused before anything is written
    _files.make_folder(out)
    with _files.locked(out), running(executor, options) as pool:
        _store.finish(out)
        held = read_manifest(out) if (out / "manifest.json").exists() else None
        known = held["samples"] if held else 0
        run = Run(_tasks.Source(corpus), samples, out / "parts", pool, progress)
        fingerprint = _fingerprint(run, out, held, known)
        entries = held["metrics"] if held else {}
        _refuse_others(out, entries, made_by, grown=samples - known if held else 0)
        whole = _store.whole(Index(out), named) if held else {}
        missing = {name: own for name, own in named.items() if samples > known or name not in whole}
        if missing:
            _files.make_folder(run.parts)
            manifest = new_manifest(fingerprint, samples)
            manifest["metrics"] = dict(entries)
            for name, values, fitted in _computed(run, out, fingerprint, missing, whole):
                manifest["metrics"][name] = _store.write_metric(
                    run.parts / name, values, made_by=made_by[name], fitted=fitted, progress=progress
                )
            run.check_samples()
            _store.commit(out, manifest)
        else:
            _store.tidy(out, entries)
    return Index(out)


def _fingerprint(run: Run, out: Path, held: dict[str, Any] | None, known: int) -> str:
    """That of the whole corpus. ValueError if the index held is not one of its first samples."""
    if known > run.samples:
        raise another(out, held, run.source.corpus.fingerprint(), run.samples)
    spans = run.spans(_READ, 0, known) if known else run.spans(_READ, 0)
    digests = dict(run.map("read", _tasks.digest, spans, lambda _: ()))
    if held:
        first = as_fingerprint(sum(digests[i] for i, (_, stop) in enumerate(spans) if stop <= known))
        if first != held["fingerprint"]:
            raise another(out, held, as_fingerprint(sum(digests.values())), run.samples)
    return as_fingerprint(sum(digests.values()))


def _refuse_others(out: Path, entries: Mapping[str, Any], made_by: Mapping[str, str], *, grown: int) -> None:
    """ValueError if the index holds one of the metrics made otherwise, or lacks one that must grow too."""
    for name, made in made_by.items():
        if name in entries and (held := entries[name]["made_by"]) != made:
            raise ValueError(
                f"{out} holds {name!r} made by {held}, not by {made}; {_python_of(held, made)}"
                "give the metric another name, or delete the index"
            )
    left = [name for name in entries if name not in made_by]
    if grown and left:
        raise ValueError(
            f"the corpus has grown by {grown} samples, and {out} also holds {', '.join(map(repr, left))}; "
            "name them too, so that all metrics cover all samples, or give another out="
        )


def _python_of(held: str, made: str) -> str:
    """What to do first where another Python made the values: it compiles the same code to something else."""
    versions = [text.rpartition(" in Python ")[2] for text in (held, made) if " in Python " in text]
    differ = len(set(versions)) == 2
    return f"code is known by what Python compiles it to: build with Python {versions[0]}, " if differ else ""


def _computed(
    run: Run, out: Path, fingerprint: str, missing: dict[str, Metric], kept: Mapping[str, Index]
) -> Iterator[tuple[str, list[Path], NDArray[Any] | None]]:
    """Each metric's name, the files that hold its values, and its statistics of the corpus.

    `kept` are those whose files, whole, hold the first samples.
    """
    fits = {name for name, metric in missing.items() if type(metric).fit is not Metric.fit}
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
    run: Run,
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
    run: Run,
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
    run: Run,
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
    if not isinstance(metrics, Iterable):
        raise ValueError(f"metrics is {metrics!r}; expected a list, of one metric too: [metric]")
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
