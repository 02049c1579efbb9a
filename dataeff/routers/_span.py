"""One random subset of tokens that bypasses a span of layers."""

from typing import ClassVar

import attrs

from dataeff.routers._random import RandomTokens


@attrs.frozen
class span(RandomTokens):
    """TREAD's route: one random subset of tokens enters the first routed layer, the others wait for the last.

    x[i] <- (f_j o ... o f_i)(x[J])[i] for i in J, else x[i]: the tokens outside J leave before layer i and
    come back, as they were, after layer j. Unlike random-LTD it draws once for all layers, and copies once.

    Source: TREAD, arXiv 2501.04765.

    Args:
        shared: whether all samples of a batch keep the same tokens, as layers need that take tables without
            a batch axis.
        prefix: how many tokens at the beginning are always kept: a class token, registers.

    Examples:
        >>> span()(2, 8, 3, key=(1234, 0, 0, 0)).shape
        torch.Size([2, 3])
    """

    scope: ClassVar[str] = "span"
