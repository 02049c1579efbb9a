"""How difficult a sample is: one idea a file, with a Numba kernel where it pays."""

from dataeff.metrics._base import Metric, checked, checked_name, finite, identity, per_sample, resolve
from dataeff.metrics._length import length
from dataeff.metrics._vocab_rarity import vocab_rarity

__all__ = [
    "Metric",
    "checked",
    "checked_name",
    "finite",
    "identity",
    "length",
    "per_sample",
    "resolve",
    "vocab_rarity",
]
