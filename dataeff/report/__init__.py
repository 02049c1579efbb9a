"""Plots of difficulties, and of what training consumed and reached. Needs matplotlib: the extra `plot`."""

from dataeff.report._curves import save_curves
from dataeff.report._histograms import save_histograms

__all__ = ["save_curves", "save_histograms"]
