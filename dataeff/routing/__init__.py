"""Token routing on a model: only some tokens enter some of its layers."""

from dataeff.routing._adapters import Kept, padding, travel
from dataeff.routing._attach import attach
from dataeff.routing._route import Route, layer_tokens

__all__ = ["Kept", "Route", "attach", "layer_tokens", "padding", "travel"]
