"""Write a corpus in a format that is memory-mapped when read."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dataeff import _files
from dataeff.corpus._base import _SHARD, Corpus
from dataeff.corpus._flat import as_dtype
from dataeff.corpus._megatron import CODES, MAGIC, beside, megatron
from dataeff.corpus._npy import npy


def write(corpus: Corpus, path: Path, format: str, dtype: DTypeLike | None) -> Corpus:
    """The corpus that reads what was written. See `Corpus.write`."""
    writers: dict[str, Callable[[Corpus, Path, np.dtype[Any]], Corpus]]
    writers = {"megatron": _megatron, "npy": _npy}
    if format not in writers:
        raise ValueError(f"format is {format!r}; expected 'megatron' or 'npy'")
    if not len(corpus):
        raise ValueError("the corpus has no samples; there is nothing to write")
    wanted = as_dtype(_usual(corpus) if dtype is None else dtype).newbyteorder("=")
    if wanted.kind not in "iu":
        raise ValueError(f"dtype is {wanted}; expected integers, such as uint16")
    return writers[format](corpus, path, wanted)


def _usual(corpus: Corpus) -> np.dtype[Any]:
    """Of the first samples; an empty one alone has none of its own."""
    usual: np.dtype[Any] = corpus.shard(0, min(len(corpus), 1024)).tokens.dtype
    return usual


def _megatron(corpus: Corpus, path: Path, dtype: np.dtype[Any]) -> Corpus:
    path = path.with_suffix("") if path.suffix in (".bin", ".idx") else path
    if dtype not in CODES:  # uint32 and uint64 are unknown there; ids fit the signed ones
        dtype = np.dtype(f"i{dtype.itemsize}")

    def fill(files: list[BinaryIO]) -> None:
        index, tokens = files
        offsets = _put_tokens(tokens, corpus, dtype)
        count, lengths = len(offsets) - 1, np.diff(offsets)
        if (longest := int(lengths.max())) >= 2**31:
            raise ValueError(f"a sample has {longest} tokens; Megatron's lengths are below 2**31; use npy")
        index.write(MAGIC + struct.pack("<QBQQ", 1, CODES[dtype], count, count + 1))
        index.write(lengths.astype("<i4").tobytes())
        index.write((offsets[:-1] * dtype.itemsize).astype("<i8").tobytes())
        index.write(np.arange(count + 1, dtype="<i8").tobytes())

    _files.write_all([beside(path, "idx"), beside(path, "bin")], fill)
    return megatron(path)


def _npy(corpus: Corpus, path: Path, dtype: np.dtype[Any]) -> Corpus:
    beside = path.with_name(f"{path.stem}.offsets.npy")

    def fill(files: list[BinaryIO]) -> None:
        tokens, index = files
        _files.put_header(tokens, dtype, (0,))  # of the same size whatever the shape
        offsets = _put_tokens(tokens, corpus, dtype)
        tokens.seek(0)
        _files.put_header(tokens, dtype, _shape(offsets))
        _files.put_header(index, offsets.dtype, offsets.shape)
        index.write(offsets.data)

    _files.write_all([path, beside], fill)
    if _files.mapped(path, ".npy file").ndim == 2:  # rows need none
        beside.unlink(missing_ok=True)
    return npy(path)


def _shape(offsets: NDArray[np.int64]) -> tuple[int, ...]:
    """Rows, if all samples have one length."""
    count, total = len(offsets) - 1, int(offsets[-1])
    rows = total > 0 and (np.diff(offsets) == total // count).all()
    return (count, total // count) if rows else (total,)


def _put_tokens(file: BinaryIO, corpus: Corpus, dtype: np.dtype[Any]) -> NDArray[np.int64]:
    """Write all tokens, shard by shard, and give the offsets of the samples."""
    offsets = np.zeros(len(corpus) + 1, np.int64)
    for start, stop in corpus.spans(_SHARD):
        shard = corpus.shard(start, stop)
        file.write(np.ascontiguousarray(_narrowed(shard.tokens, dtype)).view(np.uint8).data)
        offsets[start + 1 : stop + 1] = offsets[start] + shard.offsets[1:]
    return offsets


def _narrowed(tokens: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if tokens.size and not np.can_cast(tokens.dtype, dtype):
        bounds = np.iinfo(dtype)
        for token in (int(tokens.min()), int(tokens.max())):
            if not bounds.min <= token <= bounds.max:
                raise ValueError(f"token {token} does not fit {dtype}; give a wider dtype")
    return tokens.astype(dtype, copy=False)
