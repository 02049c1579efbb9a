"""Token routing on a model: only some tokens enter some of its layers."""

from dataeff.routing._adapters import padding, travel
from dataeff.routing._attach import attach
from dataeff.routing._inputs import whole_input
from dataeff.routing._meter import Meter
from dataeff.routing._route import Route, layer_tokens
from dataeff.routing._rules import Kept
from dataeff.routing._stack import is_batch_first, named_blocks

__all__ = [
    "Kept",
    "Meter",
    "Route",
    "attach",
    "is_batch_first",
    "layer_tokens",
    "named_blocks",
    "padding",
    "travel",
    "whole_input",
]
