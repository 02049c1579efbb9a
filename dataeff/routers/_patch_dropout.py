"""Tokens dropped at the input of a model."""

from typing import ClassVar

import attrs

from dataeff._check import is_whole
from dataeff.routers._random import RandomTokens


@attrs.frozen
class patch_dropout(RandomTokens):
    """PatchDropout: a random subset of the tokens is dropped before the first routed layer, for good.

    x <- x[J], J of `keep` tokens with the first `prefix` always among them, and layers after it, the head
    too, see the kept tokens alone. For models that pool, as a ViT does by its class token; one that gives an
    output a token gives as many as were kept.

    Source: PatchDropout, arXiv 2208.07220.

    Args:
        shared: whether all samples of a batch keep the same tokens, as layers need that take tables without
            a batch axis.
        prefix: how many tokens at the beginning are always kept: a class token, registers.

    Examples:
        >>> patch_dropout(prefix=1)(2, 8, 3, key=(1234, 0, 0, 0))[:, 0].tolist()
        [0, 0]
    """

    scope: ClassVar[str] = "input"

    prefix: int = attrs.field(default=1, kw_only=True, validator=is_whole(0))
