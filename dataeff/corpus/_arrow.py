"""Columns of Arrow tables: Parquet and Arrow files, and datasets of Hugging Face. Needs pyarrow."""

import functools
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from dataeff._repr import quoted
from dataeff.corpus._base import Corpus, Shard
from dataeff.corpus._digest import digest
from dataeff.corpus._records import field_of
from dataeff.corpus._tokenizer import as_tokenizer, encoded, salt
from dataeff.rng import key


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError("reading Arrow and Parquet needs pyarrow: pip install 'dataeff[arrow]'") from error
    return pyarrow


@attrs.frozen
class arrow(Corpus):
    """One column of an Arrow file (or stream), memory-mapped.

    `tokens` names the column of texts or of lists of token ids; by default it is the first of "input_ids",
    "tokens", "text" and "content" that there is. Text becomes bytes, or what `tokenizer` gives, as in `text`.

    Raises ValueError, naming the file, for what is no such column or holds nulls; ImportError without
    pyarrow.

    Examples:
        >>> import tempfile, pyarrow
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.arrow"
        ...     table = pyarrow.table({"input_ids": [[1, 2], [3]]})
        ...     with pyarrow.ipc.new_file(str(path), table.schema) as file:
        ...         file.write_table(table)
        ...     arrow(path)[0].tolist()
        [1, 2]
    """

    path: Path = attrs.field(converter=Path, repr=quoted)
    tokens: str | None = attrs.field(default=None, kw_only=True)
    tokenizer: Any = attrs.field(default=None, kw_only=True)
    _column: Any = attrs.field(init=False, repr=False, eq=False)
    _tokenizer: Any = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        pa = _pyarrow()
        object.__setattr__(self, "_tokenizer", as_tokenizer(self.tokenizer))
        try:
            table = _table(pa, self.path)
            column = table.column(field_of(table.column_names, self.tokens, self.path))
            column.validate(full=True)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.path} is not a readable Arrow file: {error}") from None
        object.__setattr__(self, "_column", _checked(column, self.path))

    def __len__(self) -> int:
        return len(self._column)

    def shard(self, start: int, stop: int) -> Shard:
        """Samples `start` up to `stop`."""
        return column_shard(self._column.slice(start, stop - start), self._tokenizer)

    def digest(self, start: int, stop: int, *, ahead: int = 0) -> int:
        """A hash of the column's content and of what the tokenizer does to it."""
        return column_digest(self._column.slice(start, stop - start), self._tokenizer, ahead + start)

    def __reduce__(self) -> tuple[functools.partial["arrow"], tuple[Path]]:
        return functools.partial(arrow, tokens=self.tokens, tokenizer=self.tokenizer), (self.path,)


def _table(pa: Any, path: Path) -> Any:
    source = pa.memory_map(str(path))
    with path.open("rb") as file:
        opened = pa.ipc.open_file if file.read(6) == b"ARROW1" else pa.ipc.open_stream
    return opened(source).read_all()


@attrs.frozen
class parquet(Corpus):
    """One column of a Parquet file, a row group at a time; `tokens` and `tokenizer` as in `arrow`.

    A row group is decoded whole to read a sample of it: `.write` once to read samples at random.

    Raises ValueError, naming the file, for what is no such column or holds nulls; ImportError without
    pyarrow.

    Examples:
        >>> import tempfile, pyarrow.parquet
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.parquet"
        ...     pyarrow.parquet.write_table(pyarrow.table({"text": ["to be", "or not"]}), path)
        ...     bytes(parquet(path)[1]).decode()
        'or not'
    """

    path: Path = attrs.field(converter=Path, repr=quoted)
    tokens: str | None = attrs.field(default=None, kw_only=True)
    tokenizer: Any = attrs.field(default=None, kw_only=True)
    _field: str = attrs.field(init=False, repr=False, eq=False)
    _first: Any = attrs.field(init=False, repr=False, eq=False)
    _tokenizer: Any = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        pa = _pyarrow()
        import pyarrow.parquet as pq

        object.__setattr__(self, "_tokenizer", as_tokenizer(self.tokenizer))
        try:
            with pq.ParquetFile(self.path, memory_map=True) as file:
                names = file.schema_arrow.names
                groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.path} is not a readable Parquet file: {error}") from None
        if any(not 0 <= rows < 2**48 for rows in groups):
            raise ValueError(f"{self.path}: its row groups have {groups} rows; expected 0 or more in each")
        object.__setattr__(self, "_field", field_of(names, self.tokens, self.path))
        object.__setattr__(self, "_first", np.cumsum([0, *groups]))

    def __len__(self) -> int:
        return int(self._first[-1])

    def shard(self, start: int, stop: int) -> Shard:
        """Samples `start` up to `stop`."""
        return column_shard(self._slice(start, stop), self._tokenizer)

    def digest(self, start: int, stop: int, *, ahead: int = 0) -> int:
        """A hash of the column's content and of what the tokenizer does to it."""
        return column_digest(self._slice(start, stop), self._tokenizer, ahead + start)

    def _mean(self, start: int, stop: int) -> int:
        """Of lists from the counts that the file keeps; of texts by a look, which decodes row groups."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path, memory_map=True) as file:
            groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
        columns = [group.column(i) for group in groups for i in range(group.num_columns)]
        lists = [column for column in columns if column.path_in_schema.startswith(f"{self._field}.")]
        if not lists:
            return super()._mean(start, stop)
        total: int = sum(column.num_values for column in lists)
        return max(1, total // len(self))

    def _slice(self, start: int, stop: int) -> Any:
        low = max(0, int(np.searchsorted(self._first, start, side="right")) - 1)
        high = int(np.searchsorted(self._first, stop, side="left"))
        groups = [self._row_group(group) for group in range(low, max(high, low + 1))]
        column = _pyarrow().chunked_array([chunk for group in groups for chunk in group.chunks])
        return column.slice(start - int(self._first[low]), stop - start)

    def _row_group(self, group: int) -> Any:
        stat = self.path.stat()
        found = _row_group(self.path, (stat.st_ino, stat.st_size, stat.st_mtime_ns), self._field, group)
        expected = int(self._first[group + 1] - self._first[group])
        if len(found) != expected:
            raise ValueError(
                f"{self.path}, row group {group}, has {len(found)} rows; it had {expected} when it was opened"
            )
        return found

    def __reduce__(self) -> tuple[functools.partial["parquet"], tuple[Path]]:
        return functools.partial(parquet, tokens=self.tokens, tokenizer=self.tokenizer), (self.path,)


@functools.lru_cache(maxsize=2)
def _row_group(path: Path, version: tuple[int, ...], field: str, group: int) -> Any:
    pa = _pyarrow()
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            column = file.read_row_group(group, columns=[field]).column(field)
            column.validate(full=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}, row group {group}, is not readable: {error}") from None
    return _checked(column, path)


def _checked(column: Any, source: object) -> Any:
    """A column of texts, or of lists of integers, without nulls."""
    types = _pyarrow().types
    kind = column.type
    if types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    is_text = types.is_string(kind) or types.is_large_string(kind)
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if not is_text and not (is_list and types.is_integer(kind.value_type)):
        raise ValueError(f"{source}: the column is of type {kind}; expected text, or lists of integers")
    if column.null_count or (is_list and any(chunk.flatten().null_count for chunk in column.chunks)):
        raise ValueError(f"{source}: the column holds nulls; fill them in, or leave those rows out")
    return column


def column_shard(column: Any, tokenizer: Any) -> Shard:
    """A chunked array of texts or of lists of integers as a shard.

    Examples:
        >>> import pyarrow
        >>> column_shard(pyarrow.chunked_array([[[1, 2], [3]], [[4]]]), None).offsets.tolist()
        [0, 2, 3, 4]
    """
    types = _pyarrow().types
    if types.is_string(column.type) or types.is_large_string(column.type):
        return encoded(column.to_pylist(), tokenizer)
    offsets = np.zeros(len(column) + 1, np.int64)
    np.cumsum(_pyarrow().compute.list_value_length(column).to_numpy(), out=offsets[1:])
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    dtype = column.type.value_type.to_pandas_dtype()
    return Shard(parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, dtype), *parts]), offsets)


def column_digest(column: Any, tokenizer: Any, first: int) -> int:
    """A hash of the same, by token or, under a tokenizer, by text.

    Examples:
        >>> import pyarrow
        >>> column_digest(pyarrow.chunked_array([["a"]]), None, 0) > 0
        True
    """
    if tokenizer is None:
        shard = column_shard(column, None)
        return digest(shard.tokens, shard.offsets, first=first)
    shard = column_shard(column, None)  # the bytes of texts
    return digest(shard.tokens, shard.offsets, first=first, salt=key(salt(tokenizer)))
