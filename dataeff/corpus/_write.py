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
    offsets = corpus.token_offsets()
    count, total = len(corpus), int(offsets[-1])
    length = total // count
    if length and (np.diff(offsets) == length).all():
        _files.write(path, lambda file: _put_npy(file, corpus, dtype, (count, length)))
        return npy(path)

    def fill(files: list[BinaryIO]) -> None:
        _put_npy(files[0], corpus, dtype, (total,))
        _files.put_header(files[1], offsets.dtype, offsets.shape)
        files[1].write(offsets.data)

    _files.write_all([path, path.with_name(f"{path.stem}.offsets.npy")], fill)
    return npy(path)


def _put_npy(file: BinaryIO, corpus: Corpus, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    _files.put_header(file, dtype, shape)
    _put_tokens(file, corpus, dtype)


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
