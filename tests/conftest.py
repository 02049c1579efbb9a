"""What all tests share."""

import hashlib
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent

# Numba watches only the file a kernel stands in; here every change to the package gets a fresh cache.
_sources = b"".join(path.read_bytes() for path in sorted((ROOT / "dataeff").rglob("*.py")))
os.environ.setdefault(
    "NUMBA_CACHE_DIR",
    str(Path(tempfile.gettempdir()) / f"dataeff-numba-{hashlib.sha256(_sources).hexdigest()[:16]}"),
)

import torch  # noqa: E402

if not torch.cuda.is_available():  # Triton reads it when it is imported first
    os.environ.setdefault("TRITON_INTERPRET", "1")

settings.register_profile("dataeff", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("dataeff")


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def index(tmp_path):
    """100 samples with a float and an integer difficulty, each with ties."""
    import dataeff as de

    floats = [((i * 37) % 100 // 2) / 10 for i in range(100)]
    ints = [(i * 61) % 100 // 3 for i in range(100)]
    return de.index.from_values({"loss": floats, "length": ints}, out=tmp_path / "index")


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """A function that puts a fake installed distribution on the path."""

    def install(name, *, entry_points, version="1.0", files=None):
        folder = tmp_path / f"site-{name}"
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(entry_points)
        for file, source in (files or {}).items():
            (folder / file).write_text(source)
        monkeypatch.syspath_prepend(folder)
        return folder

    return install
