"""Dataset objects: of Hugging Face `datasets`, and any map-style Dataset of torch."""

import functools
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from dataeff.corpus._arrow import _checked, column_digest, column_shard
from dataeff.corpus._base import Corpus, Shard
from dataeff.corpus._records import field_of, shard_of
from dataeff.corpus._tokenizer import as_tokenizer


@attrs.frozen
class hf_dataset(Corpus):
    """One column of a Hugging Face `datasets.Dataset`, or of the folder that its `save_to_disk` made.

    Rows are read through Arrow, memory-mapped where the dataset is; its filters and shuffles hold. `tokens`
    and `tokenizer` as in `arrow`.

    Raises ValueError for a dict of splits (choose one), a column of other things, a stream, or a dataset with
    a transform (`map_dataset` reads it; `open` chooses that); ImportError without `datasets` for a folder.

    Examples:
        >>> import datasets
        >>> rows = datasets.Dataset.from_dict({"input_ids": [[1, 2], [3]]})
        >>> hf_dataset(rows.select([1]))[0].tolist()
        [3]
    """

    source: Any = attrs.field()
    tokens: str | None = attrs.field(default=None, kw_only=True)
    tokenizer: Any = attrs.field(default=None, kw_only=True)
    _rows: Any = attrs.field(init=False, repr=False, eq=False)
    _field: str = attrs.field(init=False, repr=False, eq=False)
    _tokenizer: Any = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_tokenizer", as_tokenizer(self.tokenizer))
        rows = _load(Path(self.source)) if isinstance(self.source, str | Path) else self.source
        if isinstance(rows, Mapping):
            raise ValueError(f"the dataset has the splits {', '.join(map(repr, rows))}; give one of them")
        check_indexable(rows)
        if transforms(rows):
            raise ValueError(
                "the dataset has a transform, which a reader of its columns would pass by; give "
                "dataeff.corpus.map_dataset(dataset) instead"
            )
        field = field_of(rows.column_names, self.tokens, "the dataset")
        object.__setattr__(self, "_field", field)
        object.__setattr__(self, "_rows", rows.select_columns([field]).with_format("arrow"))

    def __len__(self) -> int:
        return len(self._rows)

    def shard(self, start: int, stop: int) -> Shard:
        """Samples `start` up to `stop`."""
        return column_shard(self._column(start, stop), self._tokenizer)

    def digest(self, start: int, stop: int, *, ahead: int = 0) -> int:
        """A hash of the column's content and of what the tokenizer does to it."""
        return column_digest(self._column(start, stop), self._tokenizer, ahead + start)

    def _column(self, start: int, stop: int) -> Any:
        return _checked(self._rows[start:stop].column(self._field), "the dataset")

    def __reduce__(self) -> tuple[functools.partial["hf_dataset"], tuple[Any]]:
        return functools.partial(hf_dataset, tokens=self.tokens, tokenizer=self.tokenizer), (self.source,)


def check_indexable(source: Any) -> None:
    """ValueError for a stream: what has no `len` or gives no sample for an index.

    Examples:
        >>> check_indexable(iter([1]))
        Traceback (most recent call last):
        ...
        ValueError: the dataset is a list_iterator without len() or [index]; an index of difficulties ...
    """
    if not hasattr(source, "__len__") or not hasattr(source, "__getitem__"):
        raise ValueError(
            f"the dataset is a {type(source).__name__} without len() or [index]; an index of difficulties "
            "needs both: write the stream to files first"
        )


def transforms(dataset: Any) -> bool:
    """Whether a Hugging Face dataset changes rows as they are read, by `with_transform`.

    Examples:
        >>> import datasets
        >>> rows = datasets.Dataset.from_dict({"text": ["to be"]})
        >>> transforms(rows), transforms(rows.with_transform(lambda some: some))
        (False, True)
    """
    return getattr(dataset, "format", {}).get("type") == "custom"


def _load(path: Path) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(f"reading {path} needs datasets: pip install 'dataeff[arrow]'") from error
    try:
        return datasets.load_from_disk(str(path))
    except Exception as error:  # whatever its readers raise
        raise ValueError(f"{path} is not a readable dataset: {error}") from None


@attrs.frozen
class map_dataset(Corpus):
    """Any map-style Dataset: whatever has `len` and gives a sample for each index.

    A sample is a tensor, an array, a list of token ids or a text; a dict of those (`tokens` names the key,
    by default the first of "input_ids", "tokens", "text" and "content"); or a tuple that begins with one.
    Samples are asked for one at a time, since a Dataset need not be safe to read in several threads.

    Raises ValueError, naming the sample, for anything else.

    Examples:
        >>> rows = [{"input_ids": [1, 2]}, {"input_ids": [3]}]
        >>> map_dataset(rows, tokens="input_ids")[1].tolist()
        [3]
    """

    source: Any = attrs.field()
    tokens: str | None = attrs.field(default=None, kw_only=True)
    tokenizer: Any = attrs.field(default=None, kw_only=True)
    _tokenizer: Any = attrs.field(init=False, repr=False, eq=False)
    _lock: Any = attrs.field(init=False, repr=False, eq=False, factory=threading.Lock)

    @source.validator
    def _check_source(self, _: object, source: Any) -> None:
        check_indexable(source)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_tokenizer", as_tokenizer(self.tokenizer))

    def __len__(self) -> int:
        return len(self.source)

    def shard(self, start: int, stop: int) -> Shard:
        """Samples `start` up to `stop`."""
        values = [self._value(index) for index in range(start, stop)]
        return shard_of(values, self._tokenizer, lambda _: type(self.source).__name__, start)

    def _value(self, index: int) -> Any:
        with self._lock:
            item = self.source[index]
        if isinstance(item, Mapping):
            return item[field_of(list(item), self.tokens, f"sample {index} of the dataset")]
        if isinstance(item, tuple) and item and not isinstance(item[0], int):
            return item[0]
        return item

    def __reduce__(self) -> tuple[functools.partial["map_dataset"], tuple[Any]]:
        return functools.partial(map_dataset, tokens=self.tokens, tokenizer=self.tokenizer), (self.source,)
