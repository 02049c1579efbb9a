"""The manifest of an index: JSON that says what the index is of, what it holds, and its own checksum."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataeff import _files

FORMAT = 1


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
            "it was written; rebuild the index"
        )
    return manifest


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write `manifest` into `folder`, with its checksum.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     write_manifest(Path(out), new_manifest("f00d", 3))
        ...     read_manifest(Path(out))["fingerprint"]
        'f00d'
    """
    _files.write_json(folder / "manifest.json", {**manifest, "checksum": _checksum(manifest)})


def _checksum(manifest: Mapping[str, Any]) -> str:
    content = json.dumps(manifest, sort_keys=True).encode()
    return hashlib.blake2b(content, digest_size=8).hexdigest()
