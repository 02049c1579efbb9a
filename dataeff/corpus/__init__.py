"""Where samples live: one way to read them, whatever the file.

A corpus is an ordered collection of samples, each a flat array of tokens.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataeff import registry
from dataeff.corpus._base import Corpus, Shard, Windows, fingerprint
from dataeff.corpus._npy import npy
from dataeff.corpus._ragged import Ragged, from_samples
from dataeff.corpus._text import text

__all__ = ["Corpus", "Ragged", "Shard", "Windows", "fingerprint", "from_samples", "npy", "open", "text"]


def open(source: Any, format: str | None = None, **options: Any) -> Corpus:
    """The corpus at a path, or the one that an object in memory is.

    Args:
        source: a path; a corpus, which comes back as it is; or samples in memory: a list of token arrays
            or strings, or a (N, L) array or tensor.
        format: a name of the registry kind `corpora`. By default `npy` for a file that begins as NumPy's
            do, else `text`.
        **options: for the reader, such as `sample_by="paragraph"` for `text`.

    Raises:
        FileNotFoundError: nothing is at the path.
        ValueError: what is there cannot be read; the message names the file and what was expected.

    Examples:
        >>> len(open(["to be", "or not", "to be"]))
        3
    """
    if isinstance(source, Corpus):
        return source
    if isinstance(source, list | tuple | np.ndarray | torch.Tensor):
        return from_samples(source)
    if not isinstance(source, str | Path):
        raise ValueError(
            f"cannot open a {type(source).__name__} as a corpus; expected a path, a corpus or a list"
        )
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"no corpus at {path}: no such file or folder")
    reader = registry.get("corpora", format or _format_of(path))
    corpus: Corpus = reader(path, **options)
    return corpus


def _format_of(path: Path) -> str:
    if path.is_dir():
        return "text"
    with path.open("rb") as file:
        return "npy" if file.read(6) == b"\x93NUMPY" else "text"
