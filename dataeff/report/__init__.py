"""Plots (they need matplotlib: the extra `plot`), and a page that compares runs (it needs nothing)."""

from dataeff.report._curves import save_curves
from dataeff.report._histograms import save_histograms
from dataeff.report._page import save_page
from dataeff.report._runs import read_runs
from dataeff.report._savings import Saving, Savings, savings
from dataeff.report._simulation import save_simulation
from dataeff.report._tuning import save_tuning

__all__ = [
    "Saving",
    "Savings",
    "read_runs",
    "save_curves",
    "save_histograms",
    "save_page",
    "save_simulation",
    "save_tuning",
    "savings",
]
