"""Files that are either whole or not there: written beside, synced, renamed."""

import errno
import functools
import json
import os
import sys
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

if sys.platform != "win32":
    import fcntl

_SUM = 4  # bytes


def write(path: Path, fill: Callable[[BinaryIO], None], *, sync: bool = True) -> None:
    """Make `path` hold what `fill` writes, or leave it as it was.

    Without `sync` it survives the death of the process, but perhaps not that of the machine.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(Path(folder) / "note", lambda file: file.write(b"whole"))
        ...     os.listdir(folder)
        ['note']
    """
    write_all([path], lambda files: fill(files[0]), sync=sync)


def write_all(paths: Sequence[Path], fill: Callable[[list[BinaryIO]], None], *, sync: bool = True) -> None:
    """The same for several files at once: all are whole before any appears.

    The last of several is gone while the others are put in place: if that is cut off, it is missed, and no
    mixture of old and new is taken for whole.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_all([Path(folder) / "a", Path(folder) / "b"], lambda files: None)
        ...     sorted(os.listdir(folder))
        ['a', 'b']
    """
    own = uuid.uuid4().hex[:16]  # another in each thread that writes the same
    beside = [path.with_name(f".{path.name}.{own}") for path in paths]
    try:
        with _naming(paths, beside):
            with room_for(paths[0]), ExitStack() as opened:
                files: list[BinaryIO] = [opened.enter_context(path.open("wb")) for path in beside]
                fill(files)
                for file in files:
                    file.flush()
                    if sync:
                        os.fsync(file.fileno())
            if len(paths) > 1:
                paths[-1].unlink(missing_ok=True)
            for written, path in zip(beside, paths, strict=True):
                written.replace(path)
    finally:
        for left in beside:
            left.unlink(missing_ok=True)


@contextmanager
def _naming(paths: Sequence[Path], beside: Sequence[Path]) -> Iterator[None]:
    """Name the file that was asked for where the one beside it could not be written."""
    try:
        yield
    except OSError as error:
        asked = dict(zip(map(str, beside), map(str, paths), strict=True)).get(str(error.filename))
        if asked is None:
            raise
        missing = isinstance(error, FileNotFoundError)
        said = "its folder is not there; make it first" if missing else error.strerror
        raise OSError(error.errno, said, asked) from None


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Say what to do where the disk is full.

    Examples:
        >>> with room_for(Path("idx")):
        ...     raise OSError(errno.ENOSPC, "full")
        Traceback (most recent call last):
        ...
        OSError: [Errno 28] no space left to write idx; free some and run the same again
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        said = f"no space left to write {path}; free some and run the same again"
        raise OSError(error.errno, said) from None


def make_folder(path: Path) -> None:
    """A folder, with those that it lies in, unless it is there.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     make_folder(Path(folder) / "a/b")
        ...     os.listdir(folder)
        ['a']
    """
    with room_for(path):
        path.mkdir(parents=True, exist_ok=True)


_held: set[int] = set()  # descriptors of folders that this process holds


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes that do the same; they wait. A killed holder lets go.

    Its forks do not hold it. On Windows nothing is held: do not build into one folder twice at once there.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder)):
        ...     os.listdir(folder)
        []
    """
    if sys.platform == "win32":
        yield
    else:
        handle, holder = os.open(folder, os.O_RDONLY), os.getpid()
        _held.add(handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            if os.getpid() == holder:  # in a fork it is closed already
                fcntl.flock(handle, fcntl.LOCK_UN)  # whoever else has it open
                _held.discard(handle)
                os.close(handle)


def _leave_to_parent() -> None:
    """In a fork, close what the parent holds: it stays held, but ends with the parent."""
    while _held:
        os.close(_held.pop())


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_leave_to_parent)


def write_json(path: Path, content: Any) -> None:
    """`content` as indented JSON. Numbers that JSON does not know are an error.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder) / "a.json", {"samples": 3})
        ...     json.loads((Path(folder) / "a.json").read_text())
        {'samples': 3}
    """
    text = json.dumps(content, indent=1, allow_nan=False)
    write(path, lambda file: put(file, text.encode() + b"\n"))


def write_part(path: Path, array: NDArray[Any]) -> None:
    """`array` as a `.npy` file with a checksum after it. Not synced: `read_part` knows one that is torn.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_part(Path(folder) / "a.npy", np.arange(3))
        ...     read_part(Path(folder) / "a.npy").tolist()
        [0, 1, 2]
    """
    array = np.ascontiguousarray(array)

    def fill(file: BinaryIO) -> None:
        _put_array(file, array)
        file.write(_sum(array))

    write(path, fill, sync=False)


def read_part(path: Path) -> NDArray[Any] | None:
    """What `write_part` wrote, memory-mapped; None if it is not there, or not whole.

    Examples:
        >>> read_part(Path("nowhere.npy"))
    """
    try:
        array = read_array(path)
        with path.open("rb") as file:
            file.seek(-_SUM, os.SEEK_END)
            return array if file.read() == _sum(array) else None
    except (ValueError, OSError):
        return None


def _sum(array: NDArray[Any]) -> bytes:
    return zlib.crc32(array.view(np.uint8).data).to_bytes(_SUM, "little")


def write_array(path: Path, array: NDArray[Any]) -> None:
    """`array` as a plain `.npy` file.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_array(Path(folder) / "a.npy", np.arange(3))
        ...     read_array(Path(folder) / "a.npy").tolist()
        [0, 1, 2]
    """
    write(path, lambda file: _put_array(file, array))


def write_rows(
    paths: Sequence[Path], count: int, dtypes: Sequence[Any], blocks: Iterable[Sequence[NDArray[Any]]]
) -> None:
    """One `.npy` file of `count` entries for each of `paths`, from blocks of each of them in turn.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.npy"
        ...     write_rows([path], 3, [np.uint8], [[np.array([1, 2])], [np.array([3])]])
        ...     read_array(path).tolist()
        [1, 2, 3]
    """

    def fill(files: list[BinaryIO]) -> None:
        for file, dtype in zip(files, dtypes, strict=True):
            put_header(file, np.dtype(dtype), (count,))
        for block in blocks:
            for file, dtype, array in zip(files, dtypes, block, strict=True):
                file.write(np.ascontiguousarray(array, dtype).view(np.uint8).data)

    write_all(paths, fill)


def put_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """What a `.npy` file begins with, for an array in C order.

    Examples:
        >>> import io
        >>> file = io.BytesIO()
        >>> put_header(file, np.dtype(np.uint8), (2,))
        >>> len(file.getvalue())
        128
    """
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _put_array(file: BinaryIO, array: NDArray[Any]) -> None:
    """Without `tofile`, whose error on a full disk does not say what it is."""
    array = np.ascontiguousarray(array)
    put_header(file, array.dtype, array.shape)
    file.write(array.reshape(-1).view(np.uint8).data)


def read_array(path: Path) -> NDArray[Any]:
    """A one-dimensional `.npy` file, memory-mapped. Raises ValueError, naming the file, for anything else.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.npy"
        ...     _ = path.write_bytes(b"not an array")
        ...     read_array(path)
        Traceback (most recent call last):
        ...
        ValueError: ...a.npy is not a readable array: ...
    """
    array = mapped(path, "array")
    if array.ndim != 1:
        raise ValueError(f"{path} holds an array of shape {array.shape}; expected one dimension")
    return array


def mapped(path: Path, title: str) -> NDArray[Any]:
    """The array in a `.npy` file, memory-mapped. ValueError, naming the file, if it is no readable `title`.

    Examples:
        >>> mapped(Path("nowhere.npy"), "array")
        Traceback (most recent call last):
        ...
        ValueError: nowhere.npy is not a readable array: [Errno 2] No such file or directory: 'nowhere.npy'
    """
    try:
        if path.stat().st_size == 0:
            raise ValueError("the file is empty")
        with np.errstate(over="ignore"):  # of a shape that is damaged
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise TypeError(f"it holds a {type(array).__name__}")
    except Exception as error:  # NumPy's parser of headers raises whatever Python's own parsers do
        raise ValueError(f"{path} is not a readable {title}: {error}") from None
    return np.asarray(array)  # a view without the class memmap, whose slices cost a microsecond more


def checksum(path: Path) -> str:
    """CRC-32 of a file's bytes, in hex: at the speed of memory, it finds damage, though not malice.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     checksum(Path(file.name))
        '00000000'
    """
    total = 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            total = zlib.crc32(block, total)
    return f"{total:08x}"


def verify(path: Path, expected: str) -> None:
    """Raise ValueError, naming the file, unless it has this checksum. A file that has not changed is read
    once.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     verify(Path(file.name), "f00d")
        Traceback (most recent call last):
        ...
        ValueError: ... has checksum 00000000; the manifest says f00d
    """
    stat = path.stat()
    if (found := _checksum(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)) != expected:
        raise ValueError(f"{path} has checksum {found}; the manifest says {expected}")


@functools.lru_cache(maxsize=256)
def _checksum(path: Path, inode: int, size: int, changed: int) -> str:
    return checksum(path)


def put(file: BinaryIO, content: bytes) -> None:
    """Write all of `content`.

    Examples:
        >>> import io
        >>> file = io.BytesIO()
        >>> put(file, b"to be")
        >>> file.getvalue()
        b'to be'
    """
    file.write(content)
