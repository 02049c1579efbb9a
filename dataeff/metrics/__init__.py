"""How difficult a sample is: one idea a file, with a Numba kernel where it pays."""

from dataeff.metrics._base import (
    Metric,
    batched,
    checked,
    checked_name,
    finite,
    identity,
    per_sample,
    read_only,
    resolve,
)
from dataeff.metrics._bigram_surprisal import bigram_surprisal
from dataeff.metrics._compressibility import compressibility
from dataeff.metrics._length import length
from dataeff.metrics._mtld import mtld
from dataeff.metrics._repetition import repetition
from dataeff.metrics._seqlen_vocab_rarity import seqlen_vocab_rarity
from dataeff.metrics._type_token_ratio import type_token_ratio
from dataeff.metrics._unigram_entropy import unigram_entropy
from dataeff.metrics._vocab_rarity import vocab_rarity

__all__ = [
    "Metric",
    "batched",
    "bigram_surprisal",
    "checked",
    "checked_name",
    "compressibility",
    "finite",
    "identity",
    "length",
    "mtld",
    "per_sample",
    "read_only",
    "repetition",
    "resolve",
    "seqlen_vocab_rarity",
    "type_token_ratio",
    "unigram_entropy",
    "vocab_rarity",
]
