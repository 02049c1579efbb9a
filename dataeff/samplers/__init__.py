"""Which samples a step trains on: step to sample ids, without state to lose."""

from dataeff.samplers._curriculum import Batch, curriculum

__all__ = ["Batch", "curriculum"]
