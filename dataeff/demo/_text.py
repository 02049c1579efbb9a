"""The demo's text: what every Python carries, or the user's own."""

import ast
import sysconfig
from collections.abc import Iterable
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

from dataeff import corpus, rng


@attrs.frozen(eq=False)
class Text:
    """Bytes to train on, and others, held out, to be measured on. Both uint8."""

    source: str
    train: NDArray[np.uint8]
    held_out: NDArray[np.uint8]


def load(path: Path | None) -> tuple[str, NDArray[np.uint8]]:
    """What the text is, and all of it as bytes.

    Raises FileNotFoundError for a path where nothing is, ValueError for one that holds no UTF-8 text.

    Examples:
        >>> source, content = load(None)
        >>> len(content) > 100_000
        True
    """
    if path is not None:
        documents = corpus.open(path, format="text")
        return str(path), documents.shard(0, len(documents)).tokens
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some distributions leave it out
        return "the docstrings of Python's standard library", _as_bytes(docstrings())
    return "Python's own documentation (pydoc_data.topics)", _as_bytes(
        topics[name] for name in sorted(topics)
    )


def docstrings() -> list[str]:
    """Every docstring in the top-level modules of the standard library, in order of the files' names.

    Examples:
        >>> any("regular expression" in text for text in docstrings())
        True
    """
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_bytes())))
    texts = (ast.get_docstring(node) for node in nodes if isinstance(node, documented))
    return [text for text in texts if text]


def split(source: str, content: NDArray[np.uint8], *, page: int, share: float, need: int) -> Text:
    """Hold out a `share` of the text: whole pages of `page` bytes, chosen by a fixed key.

    Raises ValueError if there are fewer than `need` bytes.

    Examples:
        >>> text = split("zeros", np.zeros(1000, np.uint8), page=10, share=0.05, need=100)
        >>> len(text.train), len(text.held_out)
        (950, 50)
    """
    if len(content) < need:
        raise ValueError(f"{source} holds {len(content):,} bytes of text; the demo needs at least {need:,}")
    pages = content[: len(content) // page * page].reshape(-1, page)
    place = rng.permute(np.arange(len(pages)), len(pages), rng.key("held out"))
    held_out = place < max(1, round(share * len(pages)))
    return Text(source, pages[~held_out].reshape(-1), pages[held_out].reshape(-1))


def _as_bytes(texts: Iterable[str]) -> NDArray[np.uint8]:
    return np.frombuffer("\n".join(texts).encode(), np.uint8)
