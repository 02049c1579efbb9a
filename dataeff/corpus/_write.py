"""Write a corpus in a format that is memory-mapped when read."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dataeff import _files
from dataeff.corpus._base import _SHARD, Corpus
from dataeff.corpus._megatron import CODES, MAGIC, megatron
from dataeff.corpus._npy import npy


def write(corpus: Corpus, path: Path, format: str, dtype: DTypeLike | None) -> Corpus:
    """The corpus that reads what was written. See `Corpus.write`."""
    writers: dict[str, Callable[[Corpus, Path, np.dtype[Any]], Corpus]]
    writers = {"megatron": _megatron, "npy": _npy}
    if format not in writers:
        raise ValueError(f"format is {format!r}; expected 'megatron' or 'npy'")
    if not len(corpus):
        raise ValueError("the corpus has no samples; there is nothing to write")
    wanted = np.dtype(corpus.shard(0, 1).tokens.dtype if dtype is None else dtype).newbyteorder("=")
    if wanted.kind not in "iu":
        raise ValueError(f"dtype is {wanted}; expected integers, such as uint16")
    return writers[format](corpus, path, wanted)


def _megatron(corpus: Corpus, path: Path, dtype: np.dtype[Any]) -> Corpus:
    if dtype not in CODES:  # uint32 and uint64 are unknown there; ids fit the signed ones
        dtype = np.dtype(f"i{dtype.itemsize}")
    offsets = np.zeros(1, np.int64)

    def fill(file: BinaryIO) -> None:
        nonlocal offsets
        offsets = _put_tokens(file, corpus, dtype)
        if (longest := int(np.diff(offsets).max())) >= 2**31:
            raise ValueError(f"a sample has {longest} tokens; Megatron's lengths are below 2**31; use npy")

    def fill_index(file: BinaryIO) -> None:
        count, lengths = len(offsets) - 1, np.diff(offsets)
        file.write(MAGIC + struct.pack("<QBQQ", 1, CODES[dtype], count, count + 1))
        file.write(lengths.astype("<i4").tobytes())
        file.write((offsets[:-1] * dtype.itemsize).astype("<i8").tobytes())
        file.write(np.arange(count + 1, dtype="<i8").tobytes())

    made = [path.with_name(f"{path.name}.{suffix}") for suffix in ("bin", "idx")]
    _files.write(made[0], fill)
    _files.write(made[1], fill_index)
    return megatron(path)


def _npy(corpus: Corpus, path: Path, dtype: np.dtype[Any]) -> Corpus:
    offsets = corpus.token_offsets()
    count, total = len(corpus), int(offsets[-1])
    length = total // count
    even = length > 0 and bool((np.diff(offsets) == length).all())
    header = {"descr": dtype.str, "fortran_order": False, "shape": (count, length) if even else (total,)}

    def fill(file: BinaryIO) -> None:
        np.lib.format.write_array_header_1_0(file, header)
        _put_tokens(file, corpus, dtype)

    if not even:
        _files.write_array(path.with_name(f"{path.stem}.offsets.npy"), offsets)
    _files.write(path, fill)
    return npy(path)


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
                raise ValueError(f"token {token} does not fit {dtype}; give a wider dtype, such as int32")
    return tokens.astype(dtype, copy=False)
