"""The corpus that a command line names, and a note of it beside an index, so that samples can be shown."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from dataeff import _files
from dataeff import corpus as corpora
from dataeff.corpus import Corpus

NOTE = "corpus.json"
_OPTIONS = ("format", "window", "stride", "tokenizer", "tokens", "sample_by", "dtype", "offsets")
_PATHS = ("path", "tokenizer", "offsets")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say how a corpus is read."""
    group = parser.add_argument_group("how the corpus is read")
    add = group.add_argument
    add("--format", metavar="NAME", help="of `dataeff plugins`; found from the content by default")
    add("--window", type=int, metavar="N", help="cut it anew into packed samples of N tokens")
    add("--stride", type=int, metavar="N", help="with a window every N tokens")
    add("--tokenizer", metavar="FILE", help="a tokenizer.json, for text; else tokens are bytes")
    add("--tokens", metavar="FIELD", help="that holds text or token ids, in records")
    add("--sample-by", choices=("document", "paragraph", "line"), help="for plain text")
    add("--dtype", help="of a raw .bin, or of a .idx whose code is ambiguous: uint16, uint32, ...")
    add("--offsets", metavar="FILE", help="where samples begin, for flat tokens in .npy")


def given(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """What was said of a corpus on the command line."""
    said = {name: getattr(arguments, name) for name in _OPTIONS}
    return {"path": str(path), **{name: value for name, value in said.items() if value is not None}}


def opened(said: dict[str, Any]) -> Corpus:
    """The corpus so described."""
    options = {name: value for name, value in said.items() if name not in ("path", "window", "stride")}
    if "stride" in said and "window" not in said:
        raise ValueError(f"--stride is {said['stride']} and --window is not given; give --window too")
    corpus = corpora.open(said["path"], **options)
    return corpus.windows(said["window"], said.get("stride")) if "window" in said else corpus


def note(said: dict[str, Any], index: Path) -> None:
    """Write what was said beside the index, paths relative to it, so that both may move together."""
    moved = {name: os.path.relpath(said[name], index) for name in _PATHS if name in said}
    _files.write_json(index / NOTE, said | moved)


def noted(index: Path) -> dict[str, Any] | None:
    """What was said of the corpus when the index was made, or None. ValueError for a note that is damaged."""
    file = index / NOTE
    if not file.exists():
        return None
    try:
        said = json.loads(file.read_text())
        moved = {name: os.path.normpath(index / said[name]) for name in _PATHS if name in said}
        return {**said, **moved, "path": moved["path"]}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{file} is damaged: {error!r}; delete it, or give --corpus") from None
