"""Plots of difficulties, of dry runs, and of what training reached. Needs matplotlib: the extra `plot`."""

from dataeff.report._curves import save_curves
from dataeff.report._histograms import save_histograms
from dataeff.report._simulation import save_simulation

__all__ = ["save_curves", "save_histograms", "save_simulation"]
