"""Random layerwise token dropping."""

import attrs

from dataeff.routers._random import RandomTokens


@attrs.frozen
class random_ltd(RandomTokens):
    """Random layerwise token dropping: each layer and sample keeps its own random subset of tokens.

    A layer f of L takes the kept tokens, and they are put back among the others:
    x[i] <- f(x[J])[i] for i in J, else x[i], with J drawn anew for each layer and sample. No importance
    scores and no special tokens. Padding, where the layer's mask tells of it, is kept only when there is
    nothing else.

    Source: random-LTD, arXiv 2211.11586, and DeepSpeed Data Efficiency, arXiv 2212.03597.

    Args:
        shared: whether all samples of a batch keep the same tokens, as layers need that take tables without
            a batch axis.
        prefix: how many tokens at the beginning are always kept: a class token, registers. Layers may take
            rotary tables that have no entries for these.

    Examples:
        >>> random_ltd()(2, 8, 3, key=(1234, 0, 0, 1)).shape
        torch.Size([2, 3])
        >>> random_ltd(shared=True)(2, 8, 3, key=(1234, 0, 0, 1)).shape
        torch.Size([1, 3])
    """
