"""An index on disk: one folder a metric, plain memory-mapped arrays, and a manifest in JSON."""

import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataeff import _files, registry
from dataeff._numbers import numbers
from dataeff._repr import quoted
from dataeff.corpus import Corpus, as_fingerprint, digest
from dataeff.index._manifest import another, new_manifest, read_manifest, write_manifest
from dataeff.index._order import write_order
from dataeff.metrics import checked_name, finite

PERCENTILES = np.arange(101)


@attrs.frozen
class Index:
    """Difficulties of every sample of a corpus, by metric; made by `build`, `from_values` or `open`.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     index = from_values({"loss": [0.5, 0.1, 0.9]}, out=out)
        ...     len(index), index.metrics, index.order("loss").tolist()
        (3, ('loss',), [1, 0, 2])
    """

    path: Path = attrs.field(converter=Path, repr=quoted)
    fingerprint: str = attrs.field(init=False, repr=False)
    _samples: int = attrs.field(init=False, repr=False)
    _entries: dict[str, Any] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        manifest = read_manifest(self.path)
        object.__setattr__(self, "fingerprint", manifest["fingerprint"])
        object.__setattr__(self, "_samples", manifest["samples"])
        object.__setattr__(self, "_entries", manifest["metrics"])

    def __len__(self) -> int:
        """The number of samples."""
        return self._samples

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics held."""
        return tuple(self._entries)

    def values(self, metric: str) -> NDArray[Any]:
        """One difficulty a sample, in sample order. (samples,), the metric's own dtype, memory-mapped."""
        return self._read(metric, "values")

    def order(self, metric: str) -> NDArray[Any]:
        """Sample ids from easiest to hardest, ties by id. (samples,) uint32, or uint64 beyond 2**32."""
        return self._read(metric, "order")

    def percentiles(self, metric: str) -> NDArray[Any]:
        """The difficulties at percentiles 0, 1, ..., 100, each that of a sample (nearest rank). (101,)."""
        return np.asarray(self._entry(metric)["percentiles"], self.values(metric).dtype)

    def fitted(self, metric: str) -> NDArray[Any] | None:
        """The metric's statistics of the whole corpus, such as token counts; None if it has none."""
        return self._read(metric, "fitted") if "fitted" in self._entry(metric)["checksums"] else None

    def add(self, values: Mapping[str, ArrayLike]) -> "Index":
        """The index with more metrics, from one number a sample each: what is combined from others, say.

        Raises ValueError for a metric that is held already, unless its files are damaged, for another number
        of values, or not finite ones.
        """
        if not values:
            raise ValueError("values is empty; expected one metric at least, as in {'loss': values}")
        with _files.locked(self.path):
            finish(self.path)
            if held := list(whole(Index(self.path), values)):
                raise ValueError(f"{self.path} already holds {held[0]!r}; choose another name")
            manifest = read_manifest(self.path)
            arrays = _arrays(values)
            _check(arrays, manifest["samples"])
            _add(self.path, manifest, arrays)
        return Index(self.path)

    def check(self, corpus: Corpus) -> None:
        """Raise ValueError unless this is the index of `corpus`, which is read once."""
        if (found := corpus.fingerprint()) != self.fingerprint:
            held = {"fingerprint": self.fingerprint, "samples": len(self)}
            raise another(self.path, held, found, len(corpus))

    def checksums(self) -> dict[str, dict[str, str]]:
        """Of each metric's files: other ones if anything in them changes."""
        return {name: dict(entry["checksums"]) for name, entry in self._entries.items()}

    def verify(self) -> None:
        """Read every file whole; raise ValueError, naming the file, if one differs from its checksum.

        Reading a metric's values or order does that for the file, once.
        """
        for metric in self._entries:
            self._verify(metric)

    def _verify(self, metric: str) -> None:
        for name in self._entry(metric)["checksums"]:
            self._read(metric, name)

    def _entry(self, metric: str) -> dict[str, Any]:
        if metric not in self._entries:
            raise ValueError(registry.unknown(metric, list(self._entries), of=f"the index {self.path}"))
        entry: dict[str, Any] = self._entries[metric]
        return entry

    def _read(self, metric: str, name: str) -> NDArray[Any]:
        expected = self._entry(metric)["checksums"][name]
        path = self.path / metric / f"{name}.npy"
        try:
            array = _files.read_array(path)
            if name != "fitted" and len(array) != len(self):
                raise ValueError(f"{path} has {len(array)} entries; the manifest says {len(self)}")
            _files.verify(path, expected)
        except ValueError as error:
            raise ValueError(f"{error}; {self._cure()}") from None
        return array

    def _cure(self) -> str:
        """Of a file that is not what the manifest says."""
        if (self.path / "parts/manifest.json").exists():
            return "an addition was cut off or is under way; run the same build again, which finishes it"
        if read_manifest(self.path)["metrics"] != self._entries:
            return f"{self.path} has changed since it was opened; open it again"
        return "rebuild it"

    def __reduce__(self) -> tuple[Callable[..., "Index"], tuple[Path, str]]:
        return _unpickled, (self.path, self.fingerprint)


def _unpickled(path: Path, fingerprint: str) -> Index:
    if (found := (index := Index(path)).fingerprint) != fingerprint:
        raise ValueError(
            f"{path} has grown or is another index since this was pickled: the fingerprint was {fingerprint} "
            f"and is {found}; make it again, from dataeff.index.open"
        )
    return index


def whole(index: Index, metrics: Iterable[str]) -> dict[str, Index]:
    """Of these metrics, those that the index holds undamaged: their files are read and compared.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     index = from_values({"loss": [0.5, 0.1], "rank": [1, 0]}, out=out)
        ...     _ = (Path(out) / "rank/order.npy").write_bytes(b"damaged")
        ...     list(whole(index, ["loss", "rank", "length"]))
        ['loss']
    """
    return {name: index for name in metrics if name in index.metrics and _is_whole(index, name)}


def _is_whole(index: Index, metric: str) -> bool:
    try:
        index._verify(metric)
    except ValueError:
        return False
    return True


def open(path: str | Path) -> Index:
    """The index in a folder. Raises FileNotFoundError or ValueError, naming the file, if none is there.

    Examples:
        >>> open("nowhere")
        Traceback (most recent call last):
        ...
        FileNotFoundError: no index in nowhere: it has no manifest.json; make one with dataeff.index.build
    """
    return Index(path)


def from_values(values: Mapping[str, ArrayLike], *, out: str | Path, corpus: Corpus | None = None) -> Index:
    """An index of difficulties that come from anywhere: one number a sample, for each metric name.

    With `corpus`, it is the index of that corpus, to which `build` can add. Raises ValueError for lengths
    that differ, values that are not finite numbers, or a folder that already holds an index (`Index.add`
    adds to one).

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     from_values({"loss": [0.5, 0.1, 0.9]}, out=out).percentiles("loss")[50].item()
        0.5
    """
    out = Path(out)
    arrays = _arrays(values)
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) != 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(f"values have the shapes {shapes}; expected one number a sample for every metric")
    samples = next(iter(shapes.values()))[0]
    if not samples:
        raise ValueError("there are no values; expected one a sample, and one sample at least")
    _check(arrays, samples)
    if corpus is not None and len(corpus) != samples:
        raise ValueError(f"there are {samples} values and {len(corpus)} samples; expected one value a sample")
    _files.make_folder(out)
    with _files.locked(out):
        finish(out)
        if (out / "manifest.json").exists():
            raise ValueError(f"{out} already holds an index; choose another folder, or see Index.add")
        made_of = _fingerprint_of(arrays) if corpus is None else corpus.fingerprint()
        _add(out, new_manifest(made_of, samples), arrays)
    return Index(out)


def _fingerprint_of(arrays: Mapping[str, NDArray[Any]]) -> str:
    contents = [np.ascontiguousarray(array).view(np.uint8) for array in arrays.values()]
    return as_fingerprint(
        sum(digest(content, np.array([0, content.size]), first=i) for i, content in enumerate(contents))
    )


def _arrays(values: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
    return {checked_name(name): numbers(array, f"the values of {name!r}") for name, array in values.items()}


def _check(arrays: Mapping[str, NDArray[Any]], samples: int) -> None:
    for name, array in arrays.items():
        if array.shape != (samples,):
            raise ValueError(f"the values of {name!r} have the shape {array.shape}; expected ({samples},)")
        finite(array, f"the values of {name!r}")


def _add(out: Path, manifest: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        manifest["metrics"][name] = write_metric(out / "parts" / name, [array], made_by="values given")
    commit(out, manifest)


def write_metric(
    folder: Path,
    values: Sequence[NDArray[Any] | Path],
    *,
    made_by: str,
    fitted: NDArray[Any] | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Write one metric's arrays into `folder`, and give its entry in the manifest.

    The values come in pieces: arrays, or files of them, which are opened one at a time.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     write_metric(Path(out), [np.array([3, 1])], made_by="doctest")["range"]
        [1, 3]
    """
    _files.make_folder(folder)
    samples, dtype = sum(len(_read(piece)) for piece in values), _joint_dtype(values, folder.name)
    _files.write_rows([folder / "values.npy"], samples, [dtype], ([_read(piece)] for piece in values))
    written = _files.read_array(folder / "values.npy")
    write_order(written, folder / "order.npy", progress=progress)
    if fitted is not None:
        _files.write_array(folder / "fitted.npy", fitted)
    order = _files.read_array(folder / "order.npy")
    ranks = np.maximum(-(-PERCENTILES * samples // 100), 1) - 1
    sorted_values = written[order[ranks]] if samples else written
    names = ("values", "order") if fitted is None else ("values", "order", "fitted")
    return {
        "made_by": made_by,
        "dtype": dtype.str,
        "range": [sorted_values[0].item(), sorted_values[-1].item()] if samples else [],
        "percentiles": sorted_values.tolist(),
        "checksums": {name: _files.checksum(folder / f"{name}.npy") for name in names},
    }


def _read(piece: NDArray[Any] | Path) -> NDArray[Any]:
    return _files.read_array(piece) if isinstance(piece, Path) else piece


def _joint_dtype(values: Sequence[NDArray[Any] | Path], name: str) -> np.dtype[Any]:
    """The dtype that holds all pieces; whole numbers stay exact."""
    dtypes = {_read(piece).dtype for piece in values}
    dtype = np.result_type(*dtypes)
    if dtype.kind != "f" or any(own.kind == "f" for own in dtypes):
        return _stored_dtype(dtype)
    low = min(int(_read(piece).min(initial=0)) for piece in values)  # NumPy's answer to uint64 beside int64
    if low < 0:
        raise ValueError(
            f"{name!r} gives {low} and numbers from 2**63 on; expected what int64 or uint64 holds alone"
        )
    return np.dtype(np.uint64)


def _stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """A dtype that every machine and the kernels know: no half or long doubles, this machine's byte order."""
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        return np.dtype(np.float32 if dtype.itemsize < 4 else np.float64)
    return dtype.newbyteorder("=")


def commit(out: Path, manifest: dict[str, Any]) -> None:
    """Make the index what `manifest` says, with the metrics that were written into `out/parts`.

    The manifest goes into `parts` first: if this is cut off, `finish` does the rest.
    """
    write_manifest(out / "parts", manifest)
    finish(out)


def finish(out: Path) -> None:
    """Do what a `commit` that was cut off left undone; forget results that none was begun for."""
    parts = out / "parts"
    if not (parts / "manifest.json").exists():
        for result in parts.glob("*/"):
            shutil.rmtree(result)
        return
    metrics = read_manifest(parts)["metrics"]
    for name in metrics:
        for file in sorted((parts / name).glob("[!.]*.npy")):
            _files.make_folder(out / name)
            file.replace(out / name / file.name)
    (parts / "manifest.json").replace(out / "manifest.json")
    tidy(out, metrics)


def tidy(out: Path, metrics: Iterable[str]) -> None:
    """Remove what is left in `out/parts` of metrics that the index holds; pieces of others stay.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     for name in ("a-score-0-f00d.npy", "b-score-0-f00d.npy"):
        ...         _files.write_array(Path(out) / name, np.zeros(1))
        ...     (Path(out) / "parts").mkdir()
        ...     for file in Path(out).glob("*.npy"):
        ...         _ = file.rename(Path(out) / "parts" / file.name)
        ...     tidy(Path(out), ["a"])
        ...     [file.name for file in (Path(out) / "parts").iterdir()]
        ['b-score-0-f00d.npy']
    """
    parts, held = out / "parts", set(metrics)
    if not parts.exists():
        return
    for left in parts.iterdir():
        if left.is_dir():
            if left.name in held:
                shutil.rmtree(left)
        elif left.name.startswith(".") or re.sub(r"-(fit|score)-\d+-\w+\.npy$", "", left.name) in held:
            left.unlink()
    if not any(parts.iterdir()):
        parts.rmdir()
