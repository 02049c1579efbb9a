"""How hard a text is to read, as a difficulty metric of dataeff."""

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
from dataeff.corpus import Shard
from dataeff.metrics import Metric
from numpy.typing import ArrayLike, NDArray

Decode = Callable[[list[int]], str]


def _qualified(decode: Decode | None) -> str:
    """A function by its module and name, a method by its class: the same in every process."""
    name = getattr(decode, "__qualname__", None)
    if decode is None or name is None:
        return repr(decode)
    module = getattr(decode, "__module__", None) or type(getattr(decode, "__self__", None)).__module__
    return f"{module}.{name}"


@attrs.frozen
class flesch(Metric):
    """100 minus the Flesch reading ease of each sample's text, so that harder text is higher. float64.

    Plain English prose lies between 20 and 60. Longer sentences and words of more syllables raise it without
    bound; lines of short words have less than 0. A sample without a word has 0. The formula is for English;
    syllables are counted by the CMU dictionary, and by hyphenation where it lacks the word.

    Args:
        decode: from a list of token ids to text, such as a tokenizer's `decode`. By default the tokens are
            bytes of UTF-8, and what cannot be decoded turns into U+FFFD. An index knows a function by its
            module, name and code, a method by its class.

    Raises:
        ValueError: when scoring, a token is no byte and there is no `decode`.

    Source: R. Flesch, "A new readability yardstick", Journal of Applied Psychology 32 (1948), as in textstat.

    Examples:
        >>> flesch()(["The sun did not shine.", "Notwithstanding any other provision.", ""]).round(1).tolist()
        [-17.2, 129.9, 0.0]
    """

    decode: Decode | None = attrs.field(default=None, repr=_qualified)

    @decode.validator
    def _check_decode(self, _: object, decode: object) -> None:
        if decode is not None and not callable(decode):
            raise ValueError(
                f"decode is {decode!r}; expected a function from token ids to text, such as tokenizer.decode"
            )

    def score(self, shard: Shard, fitted: NDArray[Any] | None) -> ArrayLike:
        """The difficulty of each sample's text."""
        _check_bytes(shard.tokens, self.decode)
        return np.array([_difficulty(_text(sample, self.decode)) for sample in shard], np.float64)


def _difficulty(text: str) -> float:
    from textstat.backend.counts import count_words
    from textstat.backend.metrics import flesch_reading_ease

    return 100.0 - flesch_reading_ease(text, "en_US") if count_words(text) else 0.0


def _text(sample: NDArray[Any], decode: Decode | None) -> str:
    if decode is None:
        return sample.astype(np.uint8).tobytes().decode(errors="replace")
    return decode(sample.tolist())


def _check_bytes(tokens: NDArray[Any], decode: Decode | None) -> None:
    if decode is None and tokens.size and not 0 <= int(tokens.min()) <= int(tokens.max()) <= 255:
        wrong = next(int(token) for token in (tokens.min(), tokens.max()) if not 0 <= int(token) <= 255)
        raise ValueError(
            f"token id {wrong} is no byte; give the tokenizer's decode, as in flesch(tokenizer.decode)"
        )
