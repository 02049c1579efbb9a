"""NumPy `.npy` files of (N, L) tokens: N samples of L tokens each."""

from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from dataeff._repr import quoted
from dataeff.corpus._base import Corpus, Shard, fingerprint


@attrs.frozen
class npy(Corpus):
    """The rows of a two-dimensional `.npy` file of integers, memory-mapped.

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
    _rows: NDArray[Any] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        try:
            rows = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{self.path} is not a readable .npy file: {error}") from error
        if rows.ndim != 2 or rows.dtype.kind not in "iu" or not rows.dtype.isnative:
            raise ValueError(
                f"{self.path} has shape {rows.shape} and dtype {rows.dtype}; "
                "expected (samples, length) integers in this machine's byte order"
            )
        object.__setattr__(self, "_rows", rows)

    def __len__(self) -> int:
        return len(self._rows)

    def shard(self, start: int, stop: int) -> Shard:
        """Rows `start` up to `stop`."""
        rows = self._rows[start:stop]
        return Shard(rows.reshape(-1), np.arange(len(rows) + 1, dtype=np.int64) * rows.shape[1])

    def fingerprint(self) -> str:
        """Of the array, not of the file's name."""
        return fingerprint(self._rows)

    def __reduce__(self) -> tuple[type["npy"], tuple[Path]]:
        return npy, (self.path,)
