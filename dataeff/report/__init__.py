"""Plots of what a training run consumed and reached. Needs matplotlib: the extra `plot`."""

from dataeff.report._curves import save_curves

__all__ = ["save_curves"]
