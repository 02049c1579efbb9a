"""Which samples a step trains on: step to sample ids, without state to lose."""

from dataeff.samplers._batch import Batch
from dataeff.samplers._curriculum import curriculum
from dataeff.samplers._importance import WeightedBatch, importance
from dataeff.samplers._mixture import mixture
from dataeff.samplers._shuffled import shuffled
from dataeff.samplers._token_budget import TokenBatch, token_budget
from dataeff.samplers._windows import Stream

__all__ = [
    "Batch",
    "Stream",
    "TokenBatch",
    "WeightedBatch",
    "curriculum",
    "importance",
    "mixture",
    "shuffled",
    "token_budget",
]
