"""Where samples live: one way to read them, whatever the file.

A corpus is an ordered collection of samples, each a flat array of tokens.

| format | what | samples |
| --- | --- | --- |
| `megatron` | `.idx` and `.bin` of Megatron-LM or DeepSpeed | its sequences |
| `npy` | NumPy `.npy`, (N, L), or flat with offsets | rows |
| `bin` | raw tokens, as nanoGPT writes them | windows |
| `text` | UTF-8 text, a file or a folder | documents, paragraphs or lines |
| `jsonl` | JSON lines, a file or a folder | records |
| `parquet`, `arrow` | one column of a table | rows |
| `hf_dataset` | a `datasets.Dataset`, or a folder it was saved to | rows |
| `map_dataset` | any map-style torch Dataset | items |
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataeff import registry
from dataeff.corpus._arrow import arrow, parquet
from dataeff.corpus._base import Corpus, Shard, as_fingerprint
from dataeff.corpus._bin import bin
from dataeff.corpus._datasets import hf_dataset, map_dataset, transforms
from dataeff.corpus._digest import digest
from dataeff.corpus._joined import Joined
from dataeff.corpus._jsonl import jsonl
from dataeff.corpus._megatron import beside, megatron, read_indexed
from dataeff.corpus._npy import npy
from dataeff.corpus._ragged import Ragged, from_samples
from dataeff.corpus._samples import Samples, with_batch
from dataeff.corpus._text import files_in, text
from dataeff.corpus._tokenizer import as_tokenizer, decoded
from dataeff.corpus._windows import Windows

__all__ = [
    "Corpus",
    "Joined",
    "Ragged",
    "Samples",
    "Shard",
    "Windows",
    "arrow",
    "as_fingerprint",
    "as_tokenizer",
    "bin",
    "decoded",
    "digest",
    "from_samples",
    "hf_dataset",
    "jsonl",
    "map_dataset",
    "megatron",
    "npy",
    "open",
    "parquet",
    "read_indexed",
    "text",
    "with_batch",
]

_MAGIC = {
    b"\x93NUMPY": "npy",
    b"MMIDIDX\x00": "megatron",
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"\xff\xff\xff\xff": "arrow",  # a stream, as `datasets` writes its files
}
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"(\xb5/\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}
_SUFFIXES = {".txt": "text", ".md": "text", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_FOLDERS = ("text", "jsonl")  # these readers take a folder themselves


def open(source: Any, format: str | None = None, **options: Any) -> Corpus:
    """The corpus at a path, or the one that an object in memory is.

    Args:
        source: a path to a file, to a folder of files of one format (hidden ones apart), or the prefix of a
            Megatron pair; a corpus, which comes back as it is; a dataset of torch or Hugging Face; or samples
            in memory: a list of token arrays or strings, or a (N, L) array or tensor.
        format: a name of the registry kind `corpora`; by default it is found from the content.
        **options: for the reader: `sample_by="line"` and `tokenizer=` for `text`, `window=` for `bin`,
            `tokens="input_ids"` for records, and so on.

    Raises:
        FileNotFoundError: nothing is at the path.
        ValueError: what is there cannot be read; the message names the file and what was expected.

    Examples:
        >>> len(open(["to be", "or not", "to be"]))
        3
    """
    if isinstance(source, Corpus):
        return source
    if isinstance(source, str | Path):
        return _open_path(Path(source), format, options)
    if format is None:
        format = _format_of_object(source)
    if format is None:
        if options:
            raise ValueError(f"options are {', '.join(options)}; samples in memory take none")
        return from_samples(source)
    return _read(format, source, options)


def _open_path(path: Path, format: str | None, options: dict[str, Any]) -> Corpus:
    if not path.exists():
        if not beside(path, "idx").exists():
            raise FileNotFoundError(f"no corpus at {path}: no such file or folder")
        format = format or "megatron"
    if not path.is_dir():
        return _read(format or _format_of(path), path, options)
    saved = (path / "dataset_info.json").exists() and (path / "state.json").exists()
    if saved or (path / "dataset_dict.json").exists():
        return _read(format or "hf_dataset", path, options)
    if format in _FOLDERS:
        return _read(format, path, options)
    files = [file for file in _main_files(path) if format is None or _format_of(file) == format]
    formats = {file: format or _format_of(file) for file in files}
    found = sorted(set(formats.values()))
    if len(found) > 1:
        examples = ", ".join(f"{next(f for f in files if formats[f] == name)} ({name})" for name in found)
        raise ValueError(f"{path} holds files of several formats: {examples}; give format=, or divide them")
    if not found or found[0] in _FOLDERS:
        return _read(found[0] if found else "text", path, options)
    corpora = tuple(_read(found[0], file, options) for file in files)
    return corpora[0] if len(corpora) == 1 else Joined(corpora)


def _read(format: str, source: Any, options: dict[str, Any]) -> Corpus:
    reader = registry.get("corpora", format)
    try:
        corpus: Corpus = reader(source, **options)
    except TypeError as error:
        if options and "unexpected keyword" in str(error):
            raise ValueError(f"the format {format!r} does not take these options: {error}") from None
        raise
    return corpus


def _main_files(folder: Path) -> list[Path]:
    """The files of a folder, without those that another one stands for."""
    files = files_in(folder)
    return [
        file
        for file in files
        if not file.name.endswith(".offsets.npy")
        and not (file.suffix == ".bin" and file.with_suffix(".idx").exists())
    ]


def _format_of(path: Path) -> str:
    """From the first bytes; a suffix decides only between formats that look alike."""
    if path.suffix == ".bin":  # its first tokens may look like anything
        return "megatron" if path.with_suffix(".idx").exists() else "bin"
    with path.open("rb") as file:
        head = file.read(2**12)
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    for magic, name in _PACKED.items():
        if head.startswith(magic):
            raise ValueError(
                f"{path} is packed with {name}; unpack it first, so that it can be memory-mapped"
            )
    return _SUFFIXES.get(path.suffix) or ("jsonl" if _is_record(head) else "text")


def _is_record(head: bytes) -> bool:
    """Whether the first line is a JSON object, as far as it can be seen."""
    line, end, _ = head.lstrip().partition(b"\n")
    if not line.startswith(b'{"'):
        return False
    try:
        return not end or isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _format_of_object(source: Any) -> str | None:
    if isinstance(source, list | tuple | np.ndarray | torch.Tensor):
        records = isinstance(source, list | tuple) and len(source) > 0 and isinstance(source[0], dict)
        return "map_dataset" if records else None
    if type(source).__module__.partition(".")[0] == "datasets":
        return "map_dataset" if transforms(source) else "hf_dataset"
    if isinstance(source, Mapping) and 0 not in source:
        names = ", ".join(map(repr, source))
        raise ValueError(
            f"the corpus is a {type(source).__name__} of {names}; expected samples: give one of these"
        )
    if isinstance(source, torch.utils.data.Dataset) or hasattr(source, "__getitem__"):
        return "map_dataset"
    raise ValueError(
        f"cannot open a {type(source).__name__} as a corpus; expected a path, a corpus or a list"
    )
