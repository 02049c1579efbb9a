"""dataeff: small composable primitives that make better use of training data, for any PyTorch loop."""

from dataeff import (
    composition,
    config,
    corpus,
    flops,
    index,
    lr,
    metrics,
    migration,
    ops,
    pacing,
    registry,
    rng,
    routers,
    routing,
    samplers,
    transforms,
    tuning,
)
from dataeff.clock import Clock
from dataeff.composition import Plan, compose
from dataeff.curriculum import Curriculum, paced, window
from dataeff.simulation import simulate

__all__ = [
    "Clock",
    "Curriculum",
    "Plan",
    "compose",
    "composition",
    "config",
    "corpus",
    "flops",
    "index",
    "lr",
    "metrics",
    "migration",
    "ops",
    "paced",
    "pacing",
    "registry",
    "rng",
    "routers",
    "routing",
    "samplers",
    "simulate",
    "transforms",
    "tuning",
    "window",
]
