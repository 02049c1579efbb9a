"""One clock: what training has consumed, exactly, on every axis that something may be paced by."""

from dataeff.clock._clock import Clock
from dataeff.clock._counts import AXES, Meter, Processed
from dataeff.clock._log import Log, read_log
from dataeff.clock._tensorboard import add_scalars

__all__ = ["AXES", "Clock", "Log", "Meter", "Processed", "add_scalars", "read_log"]
