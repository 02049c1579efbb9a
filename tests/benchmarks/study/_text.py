"""The text that models are pretrained on: a dictionary and film reviews, tokens and what is held out."""

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
import numpy as np

import dataeff as de
from dataeff import _files
from tests import realdata
from tests.benchmarks import record

T = TypeVar("T")
HELD_OUT = 50  # one document in so many


@attrs.frozen(eq=False)
class Text:
    """Documents as tokens, in two parts."""

    folder: Path
    vocabulary: int
    train: de.corpus.Corpus
    held_out: de.corpus.Corpus
    bytes_per_token: float
    """Of UTF-8, in the held-out documents."""


def load(folder: Path, *, source: str, vocabulary: int) -> Text:
    """Tokenize once, into `folder`, and open.

    Source "gcide+reviews" has a byte-level BPE of `vocabulary` tokens; "python" is the documentation that
    every Python carries, as bytes. A document is held out by a hash of its text: copies are on one side.
    """
    folder = folder / f"{source}-{vocabulary}"
    with alone(folder):
        if not (folder / "text.json").exists():
            encode, parts = encoder(source, vocabulary), ([], [])
            for text in _documents(source):
                parts[is_held_out(text)].append(text)
            sizes = [write(part, folder / name, encode) for part, name in zip(parts, PARTS, strict=True)]
            record.put(folder / "text.json", json.dumps(sizes[-1]))
    text_bytes, tokens = record.read(folder / "text.json")
    train, held_out = (de.corpus.open(folder / part, format="megatron") for part in PARTS)
    return Text(folder, vocabulary, train, held_out, text_bytes / tokens)


PARTS = ("train", "held_out")


def index(corpus: de.corpus.Corpus, metric: str, folder: Path) -> tuple[de.index.Index, float]:
    """The index of a corpus by one metric, kept in `folder`, and the seconds of CPU that it took to build.

    ValueError if the folder has one of another corpus.
    """
    path, note = folder / metric, folder / f"{metric}.seconds"
    with alone(folder):
        timed = note.exists()
        if not timed:
            shutil.rmtree(path, ignore_errors=True)  # a build that was not timed to its end
        start = time.process_time()
        de.index.build(corpus, [metric], out=path, progress=False)  # one that is there is only checked
        if not timed:
            record.put(note, str(time.process_time() - start))
    return de.index.open(path), float(record.read(note))


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """A folder that only one process at a time makes; the others wait for it, and find it made."""
    folder.mkdir(parents=True, exist_ok=True)
    with _files.locked(folder):
        yield


def _documents(source: str) -> Iterator[str]:
    if source == "python":
        from pydoc_data.topics import topics

        yield from (topics[name] for name in sorted(topics))
        return
    for path in (realdata.gcide(), realdata.movie_reviews()):
        with path.open(encoding="utf-8") as file:
            yield from file


def encoder(source: str, vocabulary: int) -> Any:
    """From text to tokens, as a source has them: a function of a string that gives an array."""
    if source == "python":
        return lambda text: np.frombuffer(text.encode(), np.uint8)
    from tokenizers import Tokenizer

    path = realdata.bpe([realdata.gcide(), realdata.movie_reviews()], vocabulary)
    tokenizer = Tokenizer.from_file(str(path))
    return lambda text: np.asarray(tokenizer.encode(text).ids, np.uint16)


def write(texts: Sequence[str], path: Path, encode: Any) -> tuple[int, int]:
    """Documents as tokens, in Megatron's files. Gives their bytes of UTF-8 and their tokens."""
    samples = [encode(text) for text in texts]
    de.corpus.from_samples(samples).write(path, "megatron", dtype="uint16")
    return sum(len(text.encode()) for text in texts), sum(map(len, samples))


def is_held_out(text: str, one_in: int = HELD_OUT) -> bool:
    """One document in so many, by its text alone.

    Examples:
        >>> sum(is_held_out(str(i)) for i in range(5000))
        93
    """
    found = hashlib.blake2b(text.strip().encode(), digest_size=8).digest()
    return int.from_bytes(found, "little") % one_in == 0


def spread(items: Sequence[T], wanted: int) -> list[T]:
    """So many of them, evenly over all; all if there are no more.

    Examples:
        >>> spread(range(10), 3)
        [0, 3, 6]
    """
    wanted = min(len(items), wanted)
    return [items[i * len(items) // wanted] for i in range(wanted)]
