"""Several corpora as one."""

from collections.abc import Iterable, Iterator

import attrs
import numpy as np
from numpy.typing import NDArray

from dataeff.corpus._base import Corpus, Shard


def _as_tuple(corpora: Iterable[Corpus]) -> tuple[Corpus, ...]:
    return tuple(corpora)


@attrs.frozen
class Joined(Corpus):
    """Corpora one after the other, as one; so `corpus.open` reads a folder of files.

    Raises ValueError without a corpus.

    Examples:
        >>> from dataeff import corpus
        >>> both = Joined([corpus.from_samples(["to be"]), corpus.from_samples(["or not", "to be"])])
        >>> len(both), bytes(both[1]).decode()
        (3, 'or not')
    """

    corpora: tuple[Corpus, ...] = attrs.field(converter=_as_tuple)
    _first: NDArray[np.int64] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if not self.corpora:
            raise ValueError("corpora is empty; expected at least one corpus")
        object.__setattr__(self, "_first", np.cumsum([0, *map(len, self.corpora)]))

    def __len__(self) -> int:
        return int(self._first[-1])

    def shard(self, start: int, stop: int) -> Shard:
        """Samples `start` up to `stop`; a copy only where they lie in more than one corpus."""
        found = [corpus.shard(low, high) for corpus, low, high, _ in self._pieces(start, stop)]
        if len(found) == 1:
            return found[0]
        lengths = [np.zeros(1, np.int64), *(np.diff(shard.offsets) for shard in found)]
        return Shard(np.concatenate([shard.tokens for shard in found]), np.cumsum(np.concatenate(lengths)))

    def digest(self, start: int, stop: int, *, ahead: int = 0) -> int:
        """The sum of those of the corpora."""
        pieces = self._pieces(start, stop)
        return sum(corpus.digest(low, high, ahead=ahead + place) for corpus, low, high, place in pieces)

    def spans(self, tokens: int, start: int = 0) -> Iterator[tuple[int, int]]:
        """Spans of the corpora, one after the other."""
        for corpus, first in zip(self.corpora, self._first.tolist(), strict=False):
            for low, high in corpus.spans(tokens, max(0, start - first)):
                yield first + low, first + high

    def token_offsets(self) -> NDArray[np.int64]:
        """Where each sample begins when all stand end to end, and where the last ends. (samples + 1,)."""
        lengths = [np.diff(corpus.token_offsets()) for corpus in self.corpora]
        return np.cumsum(np.concatenate([np.zeros(1, np.int64), *lengths]))

    def _pieces(self, start: int, stop: int) -> list[tuple[Corpus, int, int, int]]:
        """Each corpus that holds some of these samples, which of its own they are, and how many samples
        stand before it.
        """
        at = max(0, min(int(np.searchsorted(self._first, start, side="right")), len(self.corpora)) - 1)
        pieces: list[tuple[Corpus, int, int, int]] = []
        while not pieces or (start < stop and at < len(self.corpora)):
            first, corpus = int(self._first[at]), self.corpora[at]
            high = min(stop, first + len(corpus))
            pieces.append((corpus, start - first, max(high, start) - first, first))
            start, at = max(high, start), at + 1
        return pieces
