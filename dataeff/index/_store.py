"""An index on disk: one folder a metric, plain memory-mapped arrays, and a manifest in JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataeff import registry
from dataeff._repr import quoted
from dataeff.corpus import Corpus, fingerprint
from dataeff.index import _files
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
        return self._array(metric, "values")

    def order(self, metric: str) -> NDArray[Any]:
        """Sample ids from easiest to hardest, ties by id. (samples,) uint32, or uint64 beyond 2**32."""
        return self._array(metric, "order")

    def percentiles(self, metric: str) -> NDArray[Any]:
        """The difficulties at percentiles 0, 1, ..., 100, each that of a sample (nearest rank). (101,)."""
        return np.asarray(self._entry(metric)["percentiles"], self.values(metric).dtype)

    def check(self, corpus: Corpus) -> None:
        """Raise ValueError unless this is the index of `corpus`."""
        if (found := corpus.fingerprint()) != self.fingerprint:
            raise ValueError(
                f"{self.path} is the index of another corpus: fingerprint {self.fingerprint} over "
                f"{len(self)} samples, this one has {found} over {len(corpus)}; give another out="
            )

    def verify(self) -> None:
        """Read every file whole; raise ValueError, naming the file, if one differs from its checksum."""
        for metric, entry in self._entries.items():
            for name, expected in entry["checksums"].items():
                path = self.path / metric / f"{name}.npy"
                if (found := _files.checksum(path)) != expected:
                    raise ValueError(f"{path} has checksum {found}; the manifest says {expected}; rebuild it")

    def _entry(self, metric: str) -> dict[str, Any]:
        if metric not in self._entries:
            raise ValueError(registry.unknown(metric, list(self._entries), of=f"the index {self.path}"))
        entry: dict[str, Any] = self._entries[metric]
        return entry

    def _array(self, metric: str, name: str) -> NDArray[Any]:
        self._entry(metric)
        path = self.path / metric / f"{name}.npy"
        array = _files.read_array(path)
        if len(array) != len(self):
            raise ValueError(f"{path} has {len(array)} entries; the manifest says {len(self)}; rebuild it")
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


def from_values(values: Mapping[str, ArrayLike], *, out: str | Path) -> Index:
    """An index of difficulties that come from anywhere: one number a sample, for each metric name.

    Raises ValueError for lengths that differ, values that are not finite numbers, or a folder that already
    holds an index.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     from_values({"loss": [0.5, 0.1, 0.9]}, out=out).percentiles("loss")[50].item()
        0.5
    """
    out = Path(out)
    arrays = {checked_name(name): np.asarray(array) for name, array in values.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) != 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(f"values have the shapes {shapes}; expected one number a sample for every metric")
    samples = next(iter(arrays.values())).size
    for name, array in arrays.items():
        finite(array, f"the values of {name!r}")
    if (out / "manifest.json").exists():
        raise ValueError(f"{out} already holds an index; choose another folder")
    manifest = new_manifest(fingerprint(*arrays.values()), samples)
    for name, array in arrays.items():
        manifest["metrics"][name] = write_metric(out, name, array, made_by="from_values")
    _files.write_json(out / "manifest.json", manifest)
    return Index(out)


def new_manifest(fingerprint: str, samples: int) -> dict[str, Any]:
    """A manifest without metrics.

    Examples:
        >>> new_manifest("f00d", 3)["samples"]
        3
    """
    return {"format": FORMAT, "fingerprint": fingerprint, "samples": samples, "metrics": {}}


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the index in `path`, checked as far as `Index` relies on it.

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
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}; rebuild the index") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise ValueError(f"{file} has format {found}; this version of dataeff reads {FORMAT}")
    kinds = {"fingerprint": str, "samples": int, "metrics": dict}
    for field, kind in kinds.items():
        if not isinstance(manifest.get(field), kind):
            raise ValueError(f"{file}: {field} is {manifest.get(field)!r}; expected a {kind.__name__}")
    return manifest


def write_metric(out: Path, name: str, values: NDArray[Any], *, made_by: str) -> dict[str, Any]:
    """Write one metric's arrays under `out` and give its entry in the manifest.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     write_metric(Path(out), "loss", np.array([3, 1]), made_by="doctest")["range"]
        [1, 3]
    """
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    order = np.argsort(values, kind="stable").astype(np.uint32 if len(values) < 2**32 else np.uint64)
    _files.write_array(folder / "values.npy", values)
    _files.write_array(folder / "order.npy", order)
    ranks = np.maximum(-(-PERCENTILES * len(values) // 100), 1) - 1
    sorted_values = values[order[ranks]] if len(values) else values
    return {
        "made_by": made_by,
        "dtype": values.dtype.str,
        "range": [sorted_values[0].item(), sorted_values[-1].item()] if len(values) else [],
        "percentiles": sorted_values.tolist(),
        "checksums": {name: _files.checksum(folder / f"{name}.npy") for name in ("values", "order")},
    }
