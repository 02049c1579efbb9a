"""Plain text files, as bytes."""

import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import numpy as np

from dataeff._repr import quoted
from dataeff.corpus._base import Corpus, Shard
from dataeff.corpus._ragged import Ragged, offsets_of

_SPLIT: dict[str, Callable[[bytes], list[bytes]]] = {
    "line": bytes.splitlines,
    "paragraph": re.compile(rb"\r?\n\s*\n").split,
    "document": lambda content: [content],
}


@attrs.frozen
class text(Corpus):
    r"""The lines, paragraphs or whole documents of a UTF-8 text file, or of every file in a folder.

    Tokens are bytes (uint8). `sample_by` is "document" (a file each), "paragraph" (divided by an empty line)
    or "line", without what divides them; samples of white space alone are left out. Files of a folder are
    taken in order of their names, folders within it included; hidden ones are not.

    Raises ValueError, naming the file, for one that is not UTF-8 text, and where nothing is left.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "notes.txt"
        ...     _ = path.write_text("to be\n\nor not")
        ...     [bytes(sample).decode() for sample in text(path, sample_by="line").shard(0, 2)]
        ['to be', 'or not']
    """

    path: Path = attrs.field(converter=Path, repr=quoted)
    sample_by: str = attrs.field(default="document", kw_only=True)
    _samples: Ragged = attrs.field(init=False, repr=False, eq=False)

    @sample_by.validator
    def _check_sample_by(self, _: object, value: str) -> None:
        if value not in _SPLIT:
            raise ValueError(f"sample_by is {value!r}; expected 'line', 'paragraph' or 'document'")

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_samples", _read(self.path, self.sample_by))

    def __len__(self) -> int:
        return len(self._samples)

    def shard(self, start: int, stop: int) -> Shard:
        """Samples `start` up to `stop`."""
        return self._samples.shard(start, stop)

    def spans(self, tokens: int) -> Iterator[tuple[int, int]]:
        """Split the samples into spans of at most `tokens` tokens, or of one longer sample."""
        return self._samples.spans(tokens)

    def fingerprint(self) -> str:
        """Of the text and of how it is divided, not of the files' names."""
        return self._samples.fingerprint()

    def __reduce__(self) -> tuple[functools.partial["text"], tuple[Path]]:
        return functools.partial(text, sample_by=self.sample_by), (self.path,)


def _read(path: Path, sample_by: str) -> Ragged:
    samples = [sample for file in _files(path) for sample in _split(file, sample_by) if sample.strip()]
    if not samples:
        raise ValueError(f"{path} holds no text")
    return Ragged(np.frombuffer(b"".join(samples), np.uint8), offsets_of(samples))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    inside = (file for file in path.rglob("*") if file.is_file())
    return sorted(file for file in inside if not any(part[0] == "." for part in file.relative_to(path).parts))


def _split(file: Path, sample_by: str) -> list[bytes]:
    content = file.read_bytes()
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text: {error}; convert it, or leave it out") from None
    return _SPLIT[sample_by](content)
