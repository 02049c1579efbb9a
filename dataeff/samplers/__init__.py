"""Which samples a step trains on: step to sample ids, without state to lose."""

from dataeff.samplers._curriculum import curriculum
from dataeff.samplers._shuffled import shuffled
from dataeff.samplers._steps import Batch

__all__ = ["Batch", "curriculum", "shuffled"]
