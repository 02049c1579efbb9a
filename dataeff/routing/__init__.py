"""Which tokens enter which layer of a model."""

from dataeff.routing._adapters import travel
from dataeff.routing._attach import attach
from dataeff.routing._route import Route
from dataeff.routing._select import layer_tokens, random_ltd

__all__ = ["Route", "attach", "layer_tokens", "random_ltd", "travel"]
