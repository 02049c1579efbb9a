"""Which samples a step trains on: step to sample ids, without state to lose."""

from dataeff.samplers._batch import Batch
from dataeff.samplers._curriculum import curriculum
from dataeff.samplers._shuffled import shuffled

__all__ = ["Batch", "curriculum", "shuffled"]
