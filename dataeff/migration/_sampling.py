"""The section `data_sampling`: curriculum metrics, and what cuts samples."""

from collections.abc import Mapping
from typing import Any

import attrs

from dataeff import pacing
from dataeff.curriculum import paced
from dataeff.migration import _schedule
from dataeff.migration._section import Section
from dataeff.migration._token_budget import token_budget
from dataeff.pacing import Pace

_CUT = {"seqlen_truncate": "truncate", "seqtru": "truncate", "seqlen_reshape": "reshape", "seqres": "reshape"}
"""Metrics that select no samples: training code cuts them to the difficulty."""

_METRIC = (
    "index_to_sample_path",
    "index_to_metric_path",
    "difficulty_type",
    "clustering_type",
    "min_difficulty",
    "max_difficulty",
    "schedule_type",
    "schedule_config",
)


@attrs.frozen
class Sampling:
    """What a section `data_sampling` says.

    Examples:
        >>> Sampling().metrics
        {}
    """

    metrics: dict[str, paced] = attrs.field(factory=dict)
    index_paths: dict[str, str] = attrs.field(factory=dict)
    length: Pace | None = None
    transform: str = "truncate"
    unselective: dict[str, Pace] = attrs.field(factory=dict)
    token_budget: dict[str, Any] = attrs.field(factory=dict)
    loader: dict[str, Any] = attrs.field(factory=dict)
    epochs: int | None = None
    notes: tuple[str, ...] = ()


def sampling(section: Section, *, custom: Mapping[str, Pace]) -> Sampling:
    """What the section says, and what is different about it.

    Examples:
        >>> sampling(Section("data_sampling", {"num_epochs": 3}), custom={}).epochs
        3
    """
    section.only(
        "enabled", "num_epochs", "num_workers", "pin_memory", "curriculum_learning", "dynamic_batching"
    )
    section.flag("enabled")
    found = _curriculum(section.inner("curriculum_learning"), custom)
    budget, notes = token_budget(section.inner("dynamic_batching"))
    loader: dict[str, Any] = {}
    if "num_workers" in section:
        loader["num_workers"] = section.whole("num_workers", low=0)
    if "pin_memory" in section:
        loader["pin_memory"] = section.flag("pin_memory")
    if found.length is not None and loader.get("num_workers"):
        notes.append(
            f"{section.at('num_workers')}: lengths are those of the batch's own step here; DeepSpeed's "
            "loader reads ahead, and cuts a batch to the length of a later one"
        )
    epochs = section.whole("num_epochs", low=1) if "num_epochs" in section else None
    return attrs.evolve(
        found, token_budget=budget, loader=loader, epochs=epochs, notes=(*found.notes, *notes)
    )


def _curriculum(section: Section, custom: Mapping[str, Pace]) -> Sampling:
    section.only("enabled", "data_cluster_path", "curriculum_metrics")
    on = section.flag("enabled")
    metrics = section.inner("curriculum_metrics", needed=on)
    section.text("data_cluster_path")
    found = Sampling()
    for name in metrics:
        metric = metrics.inner(name).only(*_METRIC)
        if on:
            found = _with(found, metric, name, custom)
    if on and not metrics.table:
        raise ValueError(f"{metrics.path} is empty; expected a table for each metric")
    return found


def _with(found: Sampling, metric: Section, name: str, custom: Mapping[str, Pace]) -> Sampling:
    """What was found, and one metric more."""
    by = metric.one_of("difficulty_type", ("value", "percentile"))
    selects = metric.one_of("clustering_type", ("schedule_based", "single_cluster")) == "schedule_based"
    transform = _CUT.get(name) or ("truncate" if name == "seqlen" and not selects and by == "value" else None)
    pace, notes = _schedule.difficulty(
        metric, name, custom=custom, rises=selects, tokens=transform is not None
    )
    if transform:
        if found.length is not None:
            raise ValueError(f"{metric.path} is a second length to cut samples to; expected only one")
        if by != "value":
            raise ValueError(f"{metric.at('difficulty_type')} is {by!r}; samples are cut to a 'value'")
        found = attrs.evolve(found, length=pace, transform=transform)
    elif not selects:
        notes.append(
            f"{metric.path}: a single_cluster selects no samples, there or here; its pace is in "
            "`unselective`, for the code that reads it"
        )
        found = attrs.evolve(found, unselective=found.unselective | {name: pace})
    if selects:
        how, more = _paced(metric, pace, by)
        path = metric.text("index_to_sample_path")
        metric.text("index_to_metric_path")
        found = attrs.evolve(
            found,
            metrics=found.metrics | {name: how},
            index_paths=found.index_paths | ({name: path} if path else {}),
        )
        notes += more
    return attrs.evolve(found, notes=(*found.notes, *notes))


def _paced(metric: Section, pace: Pace, by: str) -> tuple[paced, list[str]]:
    if by == "value":
        return paced(pace, by=by), []
    first, most = pace(0), metric.number("max_difficulty")
    if first <= 0:
        raise ValueError(f"{metric.at('min_difficulty')} is {first}, a pool of no sample; expected above 0")
    if pace(pace.steps) > most:
        raise ValueError(
            f"{metric.path} goes beyond its max_difficulty, {most}; expected percentiles up to it"
        )
    notes = [
        f"{metric.path}: a percentile is rounded up to whole samples here; DeepSpeed takes as many for each, "
        "rounded down, and fails below one"
    ]
    if most != 100:
        notes.append(
            f"{metric.at('max_difficulty')}: DeepSpeed takes {most} to be all samples, so the pace is scaled "
            "to percent here"
        )
        pace = pacing.clip(pacing.scale(pace, by=100 / most), high=100)
    return paced(pace, by=by), notes
