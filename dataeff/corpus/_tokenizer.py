"""Text to token ids, by whatever has `encode`."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataeff.corpus._base import Shard
from dataeff.corpus._ragged import offsets_of

_PROBE = "The quick brown fox, 1234 jumps! über den faulen Hund.\n\tdef f(x): return x ** 2  # 😀"


def as_tokenizer(value: Any) -> Any:
    """A tokenizer as it may be given: None (bytes), an object with `encode`, or a `tokenizer.json`.

    Raises ValueError for anything else, ImportError where a file is given and `tokenizers` is not installed.

    Examples:
        >>> as_tokenizer(7)
        Traceback (most recent call last):
        ...
        ValueError: tokenizer is 7; expected an object with encode(), or the path of a tokenizer.json
    """
    if isinstance(value, str | Path):
        return _from_file(Path(value))
    if value is not None and not callable(getattr(value, "encode", None)):
        raise ValueError(
            f"tokenizer is {value!r}; expected an object with encode(), or the path of a tokenizer.json"
        )
    return value


def encoded(texts: Sequence[str], tokenizer: Any) -> Shard:
    """The token ids of each text: UTF-8 bytes (uint8) without a tokenizer, else what it gives (int32).

    Examples:
        >>> encoded(["to", "be"], None).tokens.tolist()
        [116, 111, 98, 101]
    """
    if tokenizer is None:
        samples: Sequence[Any] = [text.encode() for text in texts]
        return Shard(np.frombuffer(b"".join(samples), np.uint8), offsets_of(samples))
    samples = _encode(tokenizer)(list(texts))
    offsets = offsets_of(samples)
    tokens = np.empty(int(offsets[-1]), np.int32)
    for sample, start, stop in zip(samples, offsets[:-1], offsets[1:], strict=True):
        tokens[start:stop] = sample
    return Shard(tokens, offsets)


def decoded(tokens: NDArray[Any], tokenizer: Any) -> str:
    """The text of token ids: UTF-8 without a tokenizer, else what it decodes.

    Examples:
        >>> decoded(np.array([116, 111]), None)
        'to'
    """
    if tokenizer is None:
        return np.asarray(tokens).astype(np.uint8).tobytes().decode(errors="replace")
    return str(tokenizer.decode(np.asarray(tokens).tolist()))


def salt(tokenizer: Any) -> int:
    """A number for what the tokenizer does, 0 without one: of its definition, or of what it makes of a text.

    Examples:
        >>> salt(None)
        0
    """
    if tokenizer is None:
        return 0
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)  # of a fast tokenizer of transformers
    definition = backend.to_str() if hasattr(backend, "to_str") else str(_encode(tokenizer)([_PROBE]))
    named = f"{type(tokenizer).__qualname__}\0{definition}"
    return int.from_bytes(hashlib.blake2b(named.encode(), digest_size=8).digest(), "little")


def _encode(tokenizer: Any) -> Callable[[list[str]], list[list[int]]]:
    if hasattr(tokenizer, "encode_batch"):  # of tokenizers and tiktoken: on all cores
        return lambda texts: [_ids(encoding) for encoding in tokenizer.encode_batch(texts)]
    return lambda texts: [_ids(tokenizer.encode(text)) for text in texts]


def _ids(encoding: Any) -> list[int]:
    ids: list[int] = getattr(encoding, "ids", encoding)
    return ids


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no tokenizer at {path}: no such file")
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ImportError(
            f"reading {path} needs tokenizers, which is not installed: pip install tokenizers"
        ) from error
    try:
        json.loads(path.read_bytes())
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
        raise ValueError(f"{path} is no tokenizer.json: {error}") from None
