"""An index on disk: one folder a metric, plain memory-mapped arrays, and a manifest in JSON."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataeff import _files, registry
from dataeff._repr import quoted
from dataeff.corpus import Corpus, as_fingerprint, digest
from dataeff.index._order import write_order
from dataeff.metrics import checked_name, finite

FORMAT = 1
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

        Raises ValueError for a metric that is held already, another number of values, or not finite ones.
        """
        if not values:
            raise ValueError("values is empty; expected one metric at least, as in {'loss': values}")
        with _files.locked(self.path):
            finish(self.path)
            manifest = read_manifest(self.path)
            if held := [name for name in values if name in manifest["metrics"]]:
                raise ValueError(f"{self.path} already holds {held[0]!r}; choose another name")
            _add(self.path, manifest, _checked(values, len(self)))
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
        for metric, entry in self._entries.items():
            for name in entry["checksums"]:
                self._read(metric, name)

    def _entry(self, metric: str) -> dict[str, Any]:
        if metric not in self._entries:
            raise ValueError(registry.unknown(metric, list(self._entries), of=f"the index {self.path}"))
        entry: dict[str, Any] = self._entries[metric]
        return entry

    def _read(self, metric: str, name: str) -> NDArray[Any]:
        expected = self._entry(metric)["checksums"][name]
        path = self.path / metric / f"{name}.npy"
        array = _files.read_array(path)
        if name != "fitted" and len(array) != len(self):
            raise ValueError(f"{path} has {len(array)} entries; the manifest says {len(self)}; rebuild it")
        _files.verify(path, expected)
        return array

    def __reduce__(self) -> tuple[type["Index"], tuple[Path]]:
        return Index, (self.path,)


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
    shapes = {name: np.shape(array) for name, array in values.items()}
    if len(set(shapes.values())) != 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(f"values have the shapes {shapes}; expected one number a sample for every metric")
    samples = next(iter(shapes.values()))[0]
    if not samples:
        raise ValueError("there are no values; expected one a sample, and one sample at least")
    arrays = _checked(values, samples)
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


def _checked(values: Mapping[str, ArrayLike], samples: int) -> dict[str, NDArray[Any]]:
    arrays = {checked_name(name): np.asarray(array) for name, array in values.items()}
    for name, array in arrays.items():
        if array.shape != (samples,):
            raise ValueError(f"the values of {name!r} have the shape {array.shape}; expected ({samples},)")
        finite(array, f"the values of {name!r}")
    return arrays


def _add(out: Path, manifest: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        manifest["metrics"][name] = write_metric(out / "parts" / name, [array], made_by="values given")
    commit(out, manifest)


def another(out: Path, held: Mapping[str, Any] | None, found: str, samples: int) -> ValueError:
    """The error for an index that is not of this corpus.

    Examples:
        >>> print(another(Path("idx"), {"fingerprint": "a1", "samples": 3}, "b2", 4))
        idx is the index of another corpus: fingerprint a1 over 3 samples, this one has b2 over 4; give
        another out=
    """
    held = held or {}
    return ValueError(
        f"{out} is the index of another corpus: fingerprint {held.get('fingerprint')} over "
        f"{held.get('samples')} samples, this one has {found} over {samples}; give another out="
    )


def new_manifest(fingerprint: str, samples: int) -> dict[str, Any]:
    """A manifest without metrics.

    Examples:
        >>> new_manifest("f00d", 3)["samples"]
        3
    """
    return {"format": FORMAT, "fingerprint": fingerprint, "samples": samples, "metrics": {}}


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the index in `path`, checked.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     _ = (Path(out) / "manifest.json").write_text('{"format": 99}')
        ...     read_manifest(Path(out))
        Traceback (most recent call last):
        ...
        ValueError: ...manifest.json has format 99; this version of dataeff reads 1
    """
    file = path / "manifest.json"
    if not file.exists():
        raise FileNotFoundError(
            f"no index in {path}: it has no manifest.json; make one with dataeff.index.build"
        )
    try:
        manifest = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON: {error}; rebuild the index") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise ValueError(f"{file} has format {found}; this version of dataeff reads {FORMAT}")
    kinds = {"fingerprint": str, "samples": int, "metrics": dict}
    for field, kind in kinds.items():
        if not isinstance(manifest.get(field), kind):
            raise ValueError(f"{file}: {field} is {manifest.get(field)!r}; expected a {kind.__name__}")
    found = manifest.pop("checksum", None)
    if found != (expected := _checksum(manifest)):
        raise ValueError(
            f"{file}: checksum is {found!r}, and that of its content {expected!r}: it was changed after "
            "it was "
            "written; rebuild the index"
        )
    return manifest


def _checksum(manifest: dict[str, Any]) -> str:
    content = json.dumps(manifest, sort_keys=True).encode()
    return hashlib.blake2b(content, digest_size=8).hexdigest()


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
    pieces = [(len(piece), piece.dtype) for piece in map(_read, values)]
    samples, dtype = (
        sum(size for size, _ in pieces),
        _stored_dtype(np.result_type(*(own for _, own in pieces))),
    )
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


def _stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """A dtype that every machine and the kernels know: no half or long doubles, this machine's byte order."""
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        return np.dtype(np.float32 if dtype.itemsize < 4 else np.float64)
    return dtype.newbyteorder("=")


def commit(out: Path, manifest: dict[str, Any]) -> None:
    """Make the index what `manifest` says, with the metrics that were written into `out/parts`.

    The manifest goes into `parts` first: if this is cut off, `finish` does the rest.
    """
    checked = manifest | {"checksum": _checksum(manifest)}
    _files.write_json(out / "parts/manifest.json", checked)
    finish(out)


def finish(out: Path) -> None:
    """Do what a `commit` that was cut off left undone; forget results that none was begun for."""
    parts = out / "parts"
    if not (parts / "manifest.json").exists():
        for result in parts.glob("*/"):
            shutil.rmtree(result)
        return
    for name in read_manifest(parts)["metrics"]:
        for file in sorted((parts / name).glob("[!.]*.npy")):
            _files.make_folder(out / name)
            file.replace(out / name / file.name)
    (parts / "manifest.json").replace(out / "manifest.json")
    shutil.rmtree(parts)


def tidy(out: Path, metrics: Iterable[str]) -> None:
    """Remove what builds that were killed left of metrics that the index holds.

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
        elif left.name.startswith(".") or re.split("-fit-|-score-", left.name)[0] in held:
            left.unlink()
    if not any(parts.iterdir()):
        parts.rmdir()
