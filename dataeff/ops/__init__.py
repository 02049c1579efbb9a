"""Sampling, gathering and scattering tokens."""

from dataeff.ops._move import gather_axes, gather_tokens, scatter_tokens, scatter_tokens_
from dataeff.ops._sample import sample_tokens

__all__ = ["gather_axes", "gather_tokens", "sample_tokens", "scatter_tokens", "scatter_tokens_"]
