"""Samples that come as fields of records: which field, and text or token ids."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dataeff.corpus._base import Shard
from dataeff.corpus._ragged import as_tokens, offsets_of
from dataeff.corpus._tokenizer import encoded

_USUAL = ("input_ids", "tokens", "text", "content")


def field_of(fields: Sequence[str], asked: str | None, source: object) -> str:
    """The field that holds the tokens: the one asked for, or the first of the usual names.

    Examples:
        >>> field_of(["id", "text"], None, "a.jsonl")
        'text'
        >>> field_of(["id", "body"], None, "a.jsonl")
        Traceback (most recent call last):
        ...
        ValueError: a.jsonl has the fields 'id', 'body'; give the one with text or token ids: tokens="..."
    """
    names = ", ".join(map(repr, fields))
    if asked is not None:
        if asked not in fields:
            raise ValueError(f"{source} has no field {asked!r}; it has {names}")
        return asked
    for name in _USUAL:
        if name in fields:
            return name
    raise ValueError(f'{source} has the fields {names}; give the one with text or token ids: tokens="..."')


def shard_of(values: Sequence[Any], tokenizer: Any, place: Callable[[int], str], first: int) -> Shard:
    """Texts, or arrays or lists of token ids, as a shard. ValueError for others, naming where by `place(id)`.

    Examples:
        >>> shard_of([[1, 2], [3]], None, str, 0).tokens.tolist()
        [1, 2, 3]
    """
    if values and all(isinstance(value, str) for value in values):
        try:
            return encoded(values, tokenizer)
        except UnicodeEncodeError as error:
            index = first + values.index(error.object)
            raise ValueError(f"{place(index)}: sample {index} is no valid text: {error.reason}") from None
    arrays = []
    for index, value in enumerate(values, start=first):
        if isinstance(value, str) or not (hasattr(value, "__array__") or isinstance(value, list | tuple)):
            raise ValueError(
                f"{place(index)}: sample {index} is a {type(value).__name__}; expected text in every sample, "
                "or token ids in every sample"
            )
        try:
            arrays.append(as_tokens(index, value))
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{place(index)}: {error}") from None
    tokens = np.concatenate(arrays) if arrays else np.zeros(0, np.uint8)
    if tokens.dtype.kind == "f":  # NumPy's answer to uint64 beside int64
        raise ValueError(f"{place(first)}: token ids of 2**63 and more beside smaller ones")
    return Shard(tokens, offsets_of(arrays))
