"""Plain text files."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from dataeff._repr import quoted
from dataeff.corpus import _lines, _tokenizer
from dataeff.corpus._base import Corpus, Shard
from dataeff.corpus._digest import digest

_BY = ("line", "paragraph", "document")


@attrs.frozen
class text(Corpus):
    r"""The lines, paragraphs or whole documents of a UTF-8 text file, or of every file in a folder.

    Tokens are bytes (uint8), or what `tokenizer` gives (int32): an object with `encode`, such as those of
    tokenizers, transformers, tiktoken and sentencepiece, or the path of a `tokenizer.json`. `sample_by` is
    "document" (a file each), "paragraph" (divided by an empty line) or "line", without what divides them;
    samples of white space alone are left out. Files of a folder are taken in order of their names, folders
    within it included; hidden ones are not.

    Files stay on disk; opening reads them once, for 16 bytes of memory a sample, and 48 meanwhile. Under a
    tokenizer every pass tokenizes anew: `.write` does it once.

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
    tokenizer: Any = attrs.field(default=None, kw_only=True)
    _pieces: _lines.Pieces = attrs.field(init=False, repr=False, eq=False)
    _tokenizer: Any = attrs.field(init=False, repr=False, eq=False)

    @sample_by.validator
    def _check_sample_by(self, _: object, value: str) -> None:
        if value not in _BY:
            raise ValueError(f"sample_by is {value!r}; expected 'line', 'paragraph' or 'document'")

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_tokenizer", _tokenizer.as_tokenizer(self.tokenizer))
        pieces = _lines.find(files_in(self.path), self.sample_by)
        if not len(pieces):
            raise ValueError(f"{self.path} holds no text")
        object.__setattr__(self, "_pieces", pieces)

    def __len__(self) -> int:
        return len(self._pieces)

    def shard(self, start: int, stop: int) -> Shard:
        """Samples `start` up to `stop`."""
        content, offsets = self._pieces.gather(start, stop)
        if self._tokenizer is None:
            return Shard(content, offsets)
        texts = [bytes(sample).decode() for sample in Shard(content, offsets)]
        return _tokenizer.encoded(texts, self._tokenizer)

    def digest(self, start: int, stop: int, *, ahead: int = 0) -> int:
        """A hash of the text and of what the tokenizer does to it, not of the files' names."""
        salt = _tokenizer.salt(self._tokenizer)
        return digest(*self._pieces.gather(start, stop), first=ahead + start, salt=salt)

    def spans(self, tokens: int, start: int = 0) -> Iterator[tuple[int, int]]:
        """Split the samples from `start` on into spans of at most `tokens` bytes, or of one longer sample."""
        return self._pieces.spans(tokens, start)

    def __reduce__(self) -> tuple[functools.partial["text"], tuple[Path]]:
        options = {"sample_by": self.sample_by, "tokenizer": self.tokenizer}
        return functools.partial(text, **options), (self.path,)


def files_in(path: Path) -> list[Path]:
    """A file itself, or all in a folder and the folders in it but hidden ones, in order of their names.

    Examples:
        >>> files_in(Path("nowhere"))
        [PosixPath('nowhere')]
    """
    if not path.is_dir():
        return [path]
    inside = (file for file in path.rglob("*") if file.is_file())
    return sorted(file for file in inside if not any(part[0] == "." for part in file.relative_to(path).parts))
