"""JSON lines: one record a line."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from dataeff._repr import quoted
from dataeff.corpus import _lines, _tokenizer
from dataeff.corpus._base import Corpus, Shard
from dataeff.corpus._digest import digest
from dataeff.corpus._records import field_of, shard_of
from dataeff.corpus._text import files_in
from dataeff.rng import key


@attrs.frozen
class jsonl(Corpus):
    r"""The records of a file of JSON objects, one a line, or of every such file in a folder.

    `tokens` names the field that holds a record's text or token ids; by default it is the first of
    "input_ids", "tokens", "text" and "content" that the first record has. Text becomes bytes, or what
    `tokenizer` gives, as in `text`. Every pass parses anew: `.write` does it once.

    Raises ValueError, naming the file and the place, for a line that is no JSON object or lacks the field.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.jsonl"
        ...     _ = path.write_text('{"text": "to be"}\n{"text": "or not"}\n')
        ...     bytes(jsonl(path)[1]).decode()
        'or not'
    """

    path: Path = attrs.field(converter=Path, repr=quoted)
    tokens: str | None = attrs.field(default=None, kw_only=True)
    tokenizer: Any = attrs.field(default=None, kw_only=True)
    _pieces: _lines.Pieces = attrs.field(init=False, repr=False, eq=False)
    _field: str = attrs.field(init=False, repr=False, eq=False)
    _tokenizer: Any = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_tokenizer", _tokenizer.as_tokenizer(self.tokenizer))
        pieces = _lines.find(files_in(self.path), "line")
        if not len(pieces):
            raise ValueError(f"{self.path} holds no records")
        object.__setattr__(self, "_pieces", pieces)
        record = self._record(0, pieces.gather(0, 1)[0].tobytes())
        object.__setattr__(self, "_field", field_of(list(record), self.tokens, pieces.place(0)))

    def __len__(self) -> int:
        return len(self._pieces)

    def shard(self, start: int, stop: int) -> Shard:
        """Samples `start` up to `stop`."""
        lines = Shard(*self._pieces.gather(start, stop))
        values = [self._value(start + i, line.tobytes()) for i, line in enumerate(lines)]
        return shard_of(values, self._tokenizer, self._pieces.place, start)

    def digest(self, start: int, stop: int, *, ahead: int = 0) -> int:
        """A hash of the lines, of which field is read, and of what the tokenizer does to it."""
        salt = key(self._field, _tokenizer.salt(self._tokenizer))
        return digest(*self._pieces.gather(start, stop), first=ahead + start, salt=salt)

    def spans(self, tokens: int, start: int = 0) -> Iterator[tuple[int, int]]:
        """Split the samples from `start` on into spans of at most `tokens` bytes, or of one longer sample."""
        return self._pieces.spans(tokens, start)

    def _record(self, index: int, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self._pieces.place(index)}: record {index} is not JSON: {error}") from None
        if not isinstance(record, dict):
            raise ValueError(
                f"{self._pieces.place(index)}: record {index} is a {type(record).__name__}; expected an "
                "object"
            )
        return record

    def _value(self, index: int, line: bytes) -> Any:
        record = self._record(index, line)
        if self._field not in record:
            raise ValueError(f"{self._pieces.place(index)}: record {index} has no field {self._field!r}")
        return record[self._field]

    def __reduce__(self) -> tuple[functools.partial["jsonl"], tuple[Path]]:
        options = {"tokens": self.tokens, "tokenizer": self.tokenizer}
        return functools.partial(jsonl, **options), (self.path,)
