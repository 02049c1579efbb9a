"""Batch to batch: cut, split or trimmed to the length that the pace asks for."""

from dataeff.transforms._reshape import reshape
from dataeff.transforms._trim import trim_to_longest
from dataeff.transforms._truncate import truncate

__all__ = ["reshape", "trim_to_longest", "truncate"]
