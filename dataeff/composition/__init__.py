"""A curriculum, a route, a learning rate and a clock together: checked, foretold, saved as one."""

from dataeff.composition._composed import Composed, compose
from dataeff.composition._plan import Plan
from dataeff.composition._prediction import Prediction, effective_length
from dataeff.composition._walk import Moment

__all__ = ["Composed", "Moment", "Plan", "Prediction", "compose", "effective_length"]
