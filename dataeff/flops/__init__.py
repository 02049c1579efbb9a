"""Floating-point operations of training, from the tokens that layers processed.

A matrix of n weights costs 2n a token forward, and twice that backward: for the gradient of its input, and
for its own. Attention costs 4w a pair of tokens of one row forward, w being the width of all its heads
together: for queries times keys, and weights times values. Norms, activations and the optimizer are left out,
as is usual, and so is what activation checkpointing runs again.
"""

from dataeff.flops._cost import Cost
from dataeff.flops._measured import measured
from dataeff.flops._transformer import transformer

__all__ = ["Cost", "measured", "transformer"]
