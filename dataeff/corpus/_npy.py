"""NumPy `.npy` files of tokens: (N, L), or flat with offsets."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from dataeff._repr import quoted
from dataeff.corpus._base import Corpus, Shard
from dataeff.corpus._flat import Flat, load_npy
from dataeff.corpus._ragged import Ragged


def _quoted(path: Path | None) -> str:
    return "None" if path is None else quoted(path)


@attrs.frozen
class npy(Flat):
    """The rows of a two-dimensional `.npy` file of integers, memory-mapped; or flat tokens with offsets.

    A flat file needs to know where its samples begin: in another `.npy` file of samples + 1 integers, that
    rise from 0 to the number of tokens. By default that is `<stem>.offsets.npy` beside it, as `Corpus.write`
    leaves.

    Raises ValueError, naming the file, if it is not such an array.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "tokens.npy"
        ...     np.save(path, np.arange(6, dtype=np.uint16).reshape(3, 2))
        ...     rows = npy(path)
        ...     len(rows), rows[2].tolist()
        (3, [4, 5])
    """

    path: Path = attrs.field(converter=Path, repr=quoted)
    offsets: Path | None = attrs.field(
        default=None, converter=attrs.converters.optional(Path), repr=_quoted, kw_only=True
    )
    _samples: Corpus = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        tokens = load_npy(self.path)
        if tokens.ndim == 2 and self.offsets is None:
            samples: Corpus = _Rows(tokens)
        elif tokens.ndim == 1:
            samples = _ragged(self.path, tokens, self.offsets)
        else:
            raise ValueError(
                f"{self.path} has shape {tokens.shape} and dtype {tokens.dtype}; expected (samples, "
                "length) integers, "
                "or flat ones with offsets="
            )
        object.__setattr__(self, "_samples", samples)

    def __reduce__(self) -> tuple[functools.partial["npy"], tuple[Path]]:
        return functools.partial(npy, offsets=self.offsets), (self.path,)


def _ragged(path: Path, tokens: NDArray[Any], offsets: Path | None) -> Ragged:
    offsets = offsets or path.with_name(f"{path.stem}.offsets.npy")
    if not offsets.exists():
        raise ValueError(
            f"{path} holds {len(tokens)} flat tokens and {offsets.name} is not beside it; give offsets= "
            "(a .npy "
            "file of where each sample begins), or see the format 'bin' for one long text"
        )
    try:
        return Ragged(tokens, load_npy(offsets))
    except ValueError as error:
        raise ValueError(f"{offsets}: {error}") from None


@attrs.frozen(eq=False)
class _Rows(Corpus):
    rows: NDArray[Any]

    def __len__(self) -> int:
        return len(self.rows)

    def shard(self, start: int, stop: int) -> Shard:
        rows = self.rows[start:stop]
        return Shard(rows.reshape(-1), np.arange(len(rows) + 1, dtype=np.int64) * rows.shape[1])

    def token_offsets(self) -> NDArray[np.int64]:
        return np.arange(len(self) + 1, dtype=np.int64) * int(self.rows.shape[1])

    def spans(self, tokens: int, start: int = 0) -> Iterator[tuple[int, int]]:
        size = max(1, tokens // max(1, self.rows.shape[1]))
        for low in range(start, len(self), size):
            yield low, min(low + size, len(self))
