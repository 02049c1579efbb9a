"""Raw tokens in one long `.bin` file, as nanoGPT writes them."""

import functools
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from dataeff._repr import quoted
from dataeff.corpus._base import Corpus
from dataeff.corpus._flat import Flat, as_dtype
from dataeff.corpus._ragged import Ragged


def _as_dtype(value: Any) -> str:
    dtype = as_dtype(value)
    if dtype.kind not in "iu":
        raise ValueError(f"dtype is {dtype}; expected integers, such as uint16")
    return str(dtype)


@attrs.frozen
class bin(Flat):
    """The tokens of a raw file, memory-mapped, in windows of `window` tokens, one every `stride`.

    `dtype` is that of the file, little-endian: nanoGPT writes uint16. Without `window` the whole file is one
    sample, which `.windows(length)` cuts.

    Raises ValueError, naming the file, if its size is no whole number of tokens.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "train.bin"
        ...     np.arange(7, dtype=np.uint16).tofile(path)
        ...     [window.tolist() for window in bin(path, window=3).shard(0, 2)]
        [[0, 1, 2], [3, 4, 5]]
    """

    path: Path = attrs.field(converter=Path, repr=quoted)
    window: int | None = attrs.field(default=None, kw_only=True)
    stride: int | None = attrs.field(default=None, kw_only=True)
    dtype: str = attrs.field(default="uint16", converter=_as_dtype, kw_only=True)
    _samples: Corpus = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        size, width = self.path.stat().st_size, np.dtype(self.dtype).itemsize
        if not size or size % width:
            raise ValueError(
                f"{self.path} has {size} bytes; expected a positive multiple of {width} ({self.dtype}); "
                "give dtype="
            )
        tokens = np.asarray(np.memmap(self.path, np.dtype(self.dtype).newbyteorder("<"), mode="r"))
        whole = Ragged(tokens, [0, len(tokens)])
        if self.window is None and self.stride is not None:
            raise ValueError(f"stride is {self.stride} and window is not given; give window= too")
        try:
            samples = whole if self.window is None else whole.windows(self.window, self.stride)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None
        object.__setattr__(self, "_samples", samples)

    def __reduce__(self) -> tuple[functools.partial["bin"], tuple[Path]]:
        options: dict[str, Any] = {"window": self.window, "stride": self.stride, "dtype": self.dtype}
        return functools.partial(bin, **options), (self.path,)
