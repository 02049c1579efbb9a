"""A dry run of a curriculum: what it would train on, before anything is trained."""

from dataeff.simulation._length import Length
from dataeff.simulation._simulate import simulate
from dataeff.simulation._simulation import Simulation

__all__ = ["Length", "Simulation", "simulate"]
