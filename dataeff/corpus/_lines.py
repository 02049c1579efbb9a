"""Where lines and paragraphs lie in a file: found once, read when asked for."""

import codecs
import functools
import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from dataeff._kernel import kernel
from dataeff.corpus._ragged import spans_of

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
_PARAGRAPH = re.compile(rb"\r?\n\s*\n")
_CHUNK = 2**24
_NONE = (np.zeros(0, np.int64), np.zeros(0, np.int64))


@attrs.frozen(eq=False)
class Pieces:
    r"""Pieces of the bytes of files: piece i lies in a file at `starts[i]` up to `stops[i]`.

    `first[f]` is the first piece of file f, and `first[-1]` the number of all.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.txt"
        ...     _ = path.write_bytes(b"to be\n\nor not\n")
        ...     pieces = find([path], "line")
        ...     pieces.gather(0, 2)[0].tobytes()
        b'to beor not'
    """

    files: list[Path]
    first: Ints
    starts: Ints
    stops: Ints

    def __len__(self) -> int:
        return len(self.starts)

    def gather(self, start: int, stop: int) -> tuple[Bytes, Ints]:
        """The bytes of pieces `start` up to `stop` end to end, and where each begins."""
        offsets = np.zeros(stop - start + 1, np.int64)
        np.cumsum(self.stops[start:stop] - self.starts[start:stop], out=offsets[1:])
        out = np.empty(int(offsets[-1]), np.uint8)
        file = int(np.searchsorted(self.first, start, side="right")) - 1
        low = start
        while low < stop:
            high = min(stop, int(self.first[file + 1]))
            if low < high:
                content = _content(self.files[file])
                if self.stops[high - 1] > len(content):
                    raise ValueError(f"{self.files[file]} has become shorter since it was opened")
                part = slice(low - start, high - start)
                _gather(content, self.starts[low:high], self.stops[low:high], offsets[part], out)
                low = high
            file += 1
        return out, offsets

    def spans(self, count: int, start: int = 0) -> Iterator[tuple[int, int]]:
        """Spans of pieces from `start` on, each of at most `count` bytes, or of one longer piece."""
        offsets = np.zeros(len(self) + 1, np.int64)
        np.cumsum(self.stops - self.starts, out=offsets[1:])
        return spans_of(offsets, count, start)

    def place(self, index: int) -> str:
        """The file of a piece and its byte there, for messages."""
        file = int(np.searchsorted(self.first, index, side="right")) - 1
        return f"{self.files[file]}, byte {self.starts[index]}"


def find(files: list[Path], by: str) -> Pieces:
    """The pieces of all files: by "line", "paragraph" or "document"; those of white space alone are left out.

    Raises ValueError, naming the file, for one that is not UTF-8.

    Examples:
        >>> find([], "line").starts.tolist()
        []
    """
    found = [_FIND[by](file) for file in files]
    first = np.zeros(len(files) + 1, np.int64)
    np.cumsum([len(starts) for starts, _ in found], out=first[1:])
    starts, stops = (np.concatenate(part) for part in zip(_NONE, *found, strict=True))
    return Pieces(files, first, starts, stops)


@functools.lru_cache(maxsize=64)
def _mapped(path: Path, size: int, changed: int) -> Bytes:
    return np.asarray(np.memmap(path, np.uint8, mode="r")) if size else np.zeros(0, np.uint8)


def _content(path: Path) -> Bytes:
    stat = path.stat()
    return _mapped(path, stat.st_size, stat.st_mtime_ns)


def _checked(path: Path) -> Bytes:
    content = _content(path)
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for low in range(0, len(content) + 1, _CHUNK):
            chunk = content[low : low + _CHUNK].tobytes()
            decoder.decode(chunk, final=low + _CHUNK > len(content))
    except UnicodeDecodeError as error:
        place = low + error.start
        raise ValueError(
            f"{path} is not UTF-8 text: {error.reason} near byte {place}; convert it, or leave it out"
        ) from None
    return content


def _line(path: Path) -> tuple[Ints, Ints]:
    content = _checked(path)
    starts, stops = (np.empty(_count_lines(content), np.int64) for _ in range(2))
    count = _find_lines(content, starts, stops)
    return starts[:count].copy(), stops[:count].copy()


def _paragraph(path: Path) -> tuple[Ints, Ints]:
    content = _checked(path)
    if not len(content):
        return _NONE
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        places = (place for match in _PARAGRAPH.finditer(text) for place in match.span())
        breaks = np.fromiter(places, np.int64)
    starts, stops = np.append(0, breaks[1::2]), np.append(breaks[::2], len(content))
    kept = _not_blank(content, starts, stops)
    return starts[kept], stops[kept]


def _document(path: Path) -> tuple[Ints, Ints]:
    content = _checked(path)
    starts, stops = np.zeros(1, np.int64), np.full(1, len(content))
    kept = _not_blank(content, starts, stops)
    return starts[kept], stops[kept]


_FIND: dict[str, Any] = {"line": _line, "paragraph": _paragraph, "document": _document}


@kernel
def _is_space(byte: int) -> bool:
    return byte == 32 or 9 <= byte <= 13


@kernel
def _blank(content: Bytes, start: int, stop: int) -> bool:
    for place in range(start, stop):  # noqa: SIM110  (Numba knows no generators in all())
        if not _is_space(content[place]):
            return False
    return True


@kernel
def _not_blank(content: Bytes, starts: Ints, stops: Ints) -> NDArray[np.bool_]:
    kept = np.empty(len(starts), np.bool_)
    for i in range(len(starts)):
        kept[i] = not _blank(content, starts[i], stops[i])
    return kept


@kernel
def _count_lines(content: Bytes) -> int:
    count = 1
    for byte in content:
        count += byte == 10
    return count


@kernel
def _find_lines(content: Bytes, starts: Ints, stops: Ints) -> int:
    count, start = 0, 0
    for place in range(len(content) + 1):
        if place == len(content) or content[place] == 10:
            stop = place - 1 if place > start and content[place - 1] == 13 else place
            if not _blank(content, start, stop):
                starts[count], stops[count] = start, stop
                count += 1
            start = place + 1
    return count


@kernel
def _gather(content: Bytes, starts: Ints, stops: Ints, offsets: Ints, out: Bytes) -> None:
    for i in range(len(starts)):
        low = offsets[i]
        for j in range(stops[i] - starts[i]):
            out[low + j] = content[starts[i] + j]
