"""What runs on an executor: pure functions of a piece of the corpus, and how a piece gets there."""

import functools
import io
import pickle
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from numpy.typing import NDArray

from dataeff._numbers import numbers
from dataeff.corpus import Corpus, Shard
from dataeff.metrics import Metric, checked, read_only

_LIGHT = 2**20  # bytes


@attrs.frozen(eq=False)
class Source:
    """A corpus, and what it is when pickled, found once.

    Examples:
        >>> from dataeff import corpus
        >>> Source(corpus.from_samples(["to be"])).piece(0, 1).shard().tokens.size
        5
    """

    corpus: Corpus
    build: str = attrs.field(init=False, factory=lambda: uuid.uuid4().hex)
    """Which build it is of. Its files may be others in the next."""

    @functools.cached_property
    def pickled(self) -> bytes | None:
        """The corpus as multiprocessing would send it, if that is light; no more of it is made."""
        sent = _Light()
        try:
            pickle.dump(self.corpus, sent, protocol=5)  # gives arrays without a copy
        except _HeavyError:
            return None
        return sent.getvalue()

    def piece(self, start: int, stop: int) -> "Piece":
        """Samples `start` up to `stop`, to be sent."""
        return Piece(self, start, stop)


class _HeavyError(Exception):
    """There is more than `_LIGHT`."""


class _Light(io.BytesIO):
    def write(self, content: Any) -> int:
        if self.tell() + memoryview(content).nbytes > _LIGHT:
            raise _HeavyError
        return super().write(content)


@attrs.frozen(eq=False)
class Piece:
    """Samples of a corpus, as a task takes them.

    In this process nothing is copied. Sent to another, it carries the corpus where that is light, as one that
    knows its path is; the receiver opens it once a build. Of a heavy one it carries these samples alone.

    Examples:
        >>> from dataeff import corpus
        >>> piece = Source(corpus.from_samples(["to be", "or not"])).piece(1, 2)
        >>> len(pickle.loads(pickle.dumps(piece)).shard())
        1
    """

    source: Source
    start: int
    stop: int

    def shard(self) -> Shard:
        """The samples. ValueError where the corpus has fewer by now."""
        shard = self.source.corpus.shard(self.start, self.stop)
        if len(shard) != self.stop - self.start:
            raise ValueError(
                f"samples {self.start} up to {self.stop} of {self.source.corpus} are {len(shard)} by now; "
                "it was changed while it is indexed: open it again and build once more"
            )
        return shard

    def digest(self) -> int:
        """Their hash."""
        return self.source.corpus.digest(self.start, self.stop)

    def parts(self, spans: Sequence[tuple[int, int]]) -> "list[Piece]":
        """The same in pieces."""
        return [Piece(self.source, start, stop) for start, stop in spans]

    def __reduce__(self) -> tuple[Any, ...]:
        pickled = self.source.pickled
        if pickled is not None:
            return _piece, (pickled, self.source.build, self.start, self.stop)
        return _Carried, (self.shard(), self.digest(), self.start)


@attrs.frozen(eq=False)
class _Carried:
    """A piece of a corpus that stayed behind."""

    _shard: Shard
    _digest: int
    start: int

    def shard(self) -> Shard:
        return self._shard

    def digest(self) -> int:
        return self._digest

    def parts(self, spans: Sequence[tuple[int, int]]) -> "list[_Carried]":
        return [self]


def _piece(pickled: bytes, build: str, start: int, stop: int) -> Piece:
    return Piece(_opened(pickled, build), start, stop)


@functools.lru_cache(maxsize=2)
def _opened(pickled: bytes, build: str) -> Source:
    return Source(pickle.loads(pickled))  # noqa: S301  (of the process that gave the task)


def digest(piece: Piece) -> int:
    """The hash of a piece.

    Examples:
        >>> from dataeff import corpus
        >>> digest(Source(corpus.from_samples(["a"])).piece(0, 1)) > 0
        True
    """
    return piece.digest()


def fit(
    piece: Piece, metrics: Mapping[str, Metric], spans: Sequence[tuple[int, int]]
) -> dict[str, NDArray[Any]]:
    """What the piece contributes to each metric's statistics, one of `spans` at a time.

    Examples:
        >>> from dataeff import corpus, metrics
        >>> piece = Source(corpus.from_samples([[0, 1, 1]])).piece(0, 1)
        >>> fit(piece, {"voc": metrics.vocab_rarity()}, [(0, 1)])["voc"].tolist()
        [1, 2]
    """
    fitted: dict[str, NDArray[Any]] = {}
    for part in piece.parts(spans):
        whole = part.shard()
        for name, metric in metrics.items():
            with read_only(whole, _titled(name, metric)) as shard:
                own = _statistics(metric.fit(shard), f"{name}: {metric}.fit()")
            fitted[name] = metric.merge(fitted[name], own) if name in fitted else own
    return fitted


def _statistics(own: Any, source: str) -> NDArray[Any]:
    array = numbers(own, source)
    if array.ndim != 1 or array.dtype.kind not in "biufc":
        kind = f"{array.ndim}-D {array.dtype}" if array.ndim else type(own).__name__
        raise ValueError(f"{source} gives {kind}; expected a one-dimensional array of numbers")
    return array


def score(
    piece: Piece, metrics: Mapping[str, Metric], fitted: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Each metric's values for the samples of a piece, checked.

    Examples:
        >>> from dataeff import corpus, metrics
        >>> piece = Source(corpus.from_samples(["to be"])).piece(0, 1)
        >>> score(piece, {"length": metrics.length()}, {})["length"].tolist()
        [5]
    """
    whole, values = piece.shard(), {}
    for name, metric in metrics.items():
        title = _titled(name, metric)
        with read_only(whole, title) as shard:
            values[name] = checked(metric.score(shard, fitted.get(name)), shard, title, first=piece.start)
    return values


def names(metrics: Sequence[str]) -> str:
    """For a progress bar: all of a few, else how many.

    Examples:
        >>> names(["a", "b"]), names(["a", "b", "c", "d"])
        ('a, b', '4 metrics')
    """
    return ", ".join(metrics) if len(metrics) <= 3 else f"{len(metrics)} metrics"


def _titled(name: str, metric: Metric) -> str:
    return str(metric) if name == type(metric).__name__ else f"{name!r}, {metric},"
