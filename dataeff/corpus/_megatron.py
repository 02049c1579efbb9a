"""Megatron's indexed datasets: `.bin` holds the tokens, `.idx` where each sequence begins."""

import functools
import struct
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from dataeff._repr import quoted
from dataeff.corpus._base import Corpus
from dataeff.corpus._flat import Flat, as_dtype
from dataeff.corpus._ragged import Ragged

MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<QBQQ")  # version, code of the dtype, sequences, documents
_SHARED = {1: "u1", 2: "i1", 3: "i2", 4: "i4", 5: "i8"}
_MEGATRON = {**_SHARED, 6: "f8", 7: "f4", 8: "u2"}
_DEEPSPEED = {**_SHARED, 6: "u2", 7: "u4", 8: "u8"}  # its builder writes other codes under the same magic
CODES = {np.dtype(name): code for code, name in _MEGATRON.items() if name[0] != "f"}
_CHUNK = 2**20


def _prefix(path: str | Path) -> Path:
    path = Path(path)
    return path.with_suffix("") if path.suffix in (".bin", ".idx") else path


def _as_name(dtype: Any) -> str:
    return str(as_dtype(dtype))


@attrs.frozen
class megatron(Flat):
    """The sequences of a Megatron or DeepSpeed indexed dataset, memory-mapped.

    `path` is the prefix of both files, or either of them. The two write different codes for some dtypes;
    which one is meant is told from the sizes. Where they tell nothing, `dtype` must: "uint32", for example.

    Raises ValueError, naming the file and the field, if lengths, pointers and sizes do not fit each other.

    Examples:
        >>> import tempfile
        >>> from dataeff import corpus
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     texts = corpus.from_samples([[5, 6, 7], [8]])
        ...     texts.write(Path(folder) / "texts", "megatron", dtype="uint16")[0].tolist()
        [5, 6, 7]
    """

    path: Path = attrs.field(converter=_prefix, repr=quoted)
    dtype: str | None = attrs.field(default=None, converter=attrs.converters.optional(_as_name), kw_only=True)
    _samples: Corpus = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_samples", read_indexed(self.path, dtype=self.dtype))

    def __reduce__(self) -> tuple[functools.partial["megatron"], tuple[Path]]:
        return functools.partial(megatron, dtype=self.dtype), (self.path,)


def beside(path: Path, suffix: str) -> Path:
    """The file of the pair with that suffix.

    Examples:
        >>> beside(Path("data/my.corpus"), "idx").name
        'my.corpus.idx'
    """
    return path.with_name(f"{path.name}.{suffix}")


def read_indexed(path: Path, *, dtype: str | None = None, deepspeed: bool = False) -> Ragged:
    """The pair of files with the prefix `path`, checked; `deepspeed` says that its builder wrote them.

    Examples:
        >>> read_indexed(Path("nowhere"))
        Traceback (most recent call last):
        ...
        FileNotFoundError: no nowhere.idx; expected nowhere.idx and nowhere.bin
    """
    index, tokens = beside(path, "idx"), beside(path, "bin")
    for file in (index, tokens):
        if not file.exists():
            raise FileNotFoundError(f"no {file}; expected {index} and {tokens}")
    size, available = index.stat().st_size, tokens.stat().st_size
    with index.open("rb") as stream:
        head = stream.read(len(MAGIC) + _HEADER.size)
    if len(head) < len(MAGIC) + _HEADER.size or not head.startswith(MAGIC):
        raise ValueError(f"{index} begins with {head[:9]!r}; expected a Megatron index, {MAGIC!r}")
    version, code, sequences, documents = _HEADER.unpack(head[len(MAGIC) :])
    if version != 1:
        raise ValueError(f"{index}: version is {version}; expected 1")
    if code not in _MEGATRON:
        raise ValueError(f"{index}: dtype has the code {code}; expected 1 to 8")
    expected = len(head) + 12 * sequences + 8 * documents
    if size != expected:
        raise ValueError(
            f"{index}: {sequences} sequences and {documents} documents take {expected} bytes; the file "
            f"has {size}"
        )
    if not sequences:
        raise ValueError(f"{index}: sequences is 0; expected at least one")
    content = np.asarray(np.memmap(index, np.uint8, mode="r"))[len(head) :]
    lengths = content[: 4 * sequences].view("<i4")
    pointers = content[4 * sequences : 12 * sequences].view("<i8")
    offsets = np.zeros(sequences + 1, np.int64)
    np.cumsum(lengths, dtype=np.int64, out=offsets[1:])
    _check_documents(index, content[12 * sequences :].view("<i8"), sequences)
    if (short := int(lengths.min())) < 0:
        raise ValueError(f"{index}: lengths hold {short}; expected 0 or more")
    tables = (_DEEPSPEED,) if deepspeed else (_MEGATRON, _DEEPSPEED)
    meant = {np.dtype(table[code]) for table in tables}
    found = _dtype(path, code, meant, int(offsets[-1]), available, dtype)
    _check_pointers(index, pointers, offsets, found.itemsize)
    if found.kind not in "iu":
        raise ValueError(f"{index}: dtype is {found} (code {code}); expected integers")
    if available == 0:
        return Ragged(np.zeros(0, found), offsets)
    return Ragged(np.asarray(np.memmap(tokens, found.newbyteorder("<"), mode="r")), offsets)


def _dtype(
    path: Path, code: int, meant: set[np.dtype[Any]], total: int, available: int, dtype: str | None
) -> np.dtype[Any]:
    """The dtype whose size fits the `.bin`, of those that the code may stand for."""
    fitting = sorted((m for m in meant if m.itemsize * total == available), key=str)
    if not fitting:
        sizes = " or ".join(sorted({str(m.itemsize * total) for m in meant}))
        raise ValueError(
            f"{beside(path, 'bin')} has {available} bytes; the index says {total} tokens of code {code}, "
            f"{sizes} bytes"
        )
    if dtype is not None:
        if np.dtype(dtype) not in fitting:
            raise ValueError(f"dtype is {dtype}; {beside(path, 'idx')} has {' or '.join(map(str, fitting))}")
        return np.dtype(dtype)
    if len(fitting) > 1 and total:
        raise ValueError(
            f"{beside(path, 'idx')}: dtype has the code {code}, which is {fitting[0]} or {fitting[1]}, "
            "and the "
            f"sizes fit both; give dtype={str(next(m for m in fitting if m.kind in 'iu'))!r}"
        )
    return fitting[-1]  # an integer if there is one: names of floats come first


def _check_documents(index: Path, documents: NDArray[Any], sequences: int) -> None:
    if len(documents) and (documents[0] != 0 or documents[-1] > sequences):
        raise ValueError(
            f"{index}: documents reach from {documents[0]} to {documents[-1]}; expected from 0 to "
            f"{sequences} at most"
        )
    for low in range(0, len(documents), _CHUNK):
        some = documents[low : low + _CHUNK + 1]
        if (falls := np.flatnonzero(some[1:] < some[:-1])).size:
            place = low + int(falls[0]) + 1
            raise ValueError(
                f"{index}: document {place} begins at {documents[place]}, before the one before it"
            )


def _check_pointers(index: Path, pointers: NDArray[Any], offsets: NDArray[np.int64], width: int) -> None:
    """Every writer puts sequences end to end; anything else is damage."""
    for low in range(0, len(pointers), _CHUNK):
        expected = offsets[low : low + _CHUNK][: len(pointers) - low] * width
        if (wrong := np.flatnonzero(pointers[low : low + _CHUNK] != expected)).size:
            place = low + int(wrong[0])
            raise ValueError(
                f"{index}: the pointer of sequence {place} is {pointers[place]}; its predecessors end at "
                f"{int(offsets[place]) * width}"
            )
