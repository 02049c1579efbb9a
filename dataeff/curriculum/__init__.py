"""Curriculum: at which step each sample becomes eligible for training."""

from dataeff.curriculum._config import metrics_of
from dataeff.curriculum._curriculum import Curriculum
from dataeff.curriculum._paced import paced, window
from dataeff.curriculum._pools import Pools

__all__ = ["Curriculum", "Pools", "metrics_of", "paced", "window"]
