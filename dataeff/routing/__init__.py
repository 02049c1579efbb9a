"""Which tokens enter which layer of a model."""

from dataeff.routing._adapters import gather_axes, travel
from dataeff.routing._attach import attach
from dataeff.routing._route import Route
from dataeff.routing._select import layer_tokens, random_ltd

__all__ = ["Route", "attach", "gather_axes", "layer_tokens", "random_ltd", "travel"]
