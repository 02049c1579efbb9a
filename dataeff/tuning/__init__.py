"""Find the start and the duration of a pace by short probes: the low-cost search, at a small part of a run.

A probe is any function `probe(config)` that trains as `config` says and gives (step, validation loss) on the
way. A probe whose validation perplexity rises above 1.3 times its best is unstable and is abandoned there.
The search takes the smallest stable start, then the longest stable duration.

Source: the tuning rule of sequence length warmup (arXiv 2108.06084), as its authors' tutorial of DeepSpeed's
curriculum learning gives it.
"""

from dataeff.tuning._config import Config
from dataeff.tuning._probe import Probe, ProbeError
from dataeff.tuning._search import Search
from dataeff.tuning._stability import Stability, stability
from dataeff.tuning._tune import load, tune
from dataeff.tuning._tuned import Tuned
from dataeff.tuning._walk import next_probe

__all__ = [
    "Config",
    "Probe",
    "ProbeError",
    "Search",
    "Stability",
    "Tuned",
    "load",
    "next_probe",
    "stability",
    "tune",
]
