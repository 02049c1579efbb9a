"""From a DeepSpeed config to what it asks for."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataeff import config as configs
from dataeff import registry
from dataeff.migration import _around, _schedule
from dataeff.migration._imported import Imported
from dataeff.migration._routing import Routing, routing
from dataeff.migration._sampling import Sampling, sampling
from dataeff.migration._section import Section
from dataeff.pacing import Pace

_SECTIONS = ("data_efficiency", "curriculum_learning")


def from_deepspeed(
    config: str | Path | Mapping[str, Any], *, custom: Mapping[str, Pace] | None = None
) -> Imported:
    """What the sections `data_efficiency` and `curriculum_learning` of a DeepSpeed config ask for.

    As DeepSpeed's engine does, it looks only at the innermost `enabled` of a technique. Other sections are
    left alone; of them only `train_batch_size` and the optimizer's `lr` are noted, and "auto", as a trainer
    fills it in, is read as missing.

    Args:
        config: the JSON file, or the mapping that is given to `deepspeed.initialize`.
        custom: metric name to pace, for metrics of `schedule_type` "custom", whose function stands in the
            training script. The legacy section's is called "seqlen".

    Returns:
        The paces, layers and settings, and in `differences` what will go otherwise than in DeepSpeed.

    Raises:
        ValueError: a key that is not known, or a value that makes no sense; the message begins with the key's
            path and says what was expected.

    Source: the config of DeepSpeed 0.19, and its legacy curriculum section of before.

    Examples:
        >>> schedule = {"total_curriculum_step": 15000, "difficulty_step": 8}
        >>> section = {"enabled": True, "curriculum_type": "seqlen", "min_difficulty": 64,
        ...            "max_difficulty": 1024, "schedule_type": "fixed_linear", "schedule_config": schedule}
        >>> length = from_deepspeed({"curriculum_learning": section}).length
        >>> length(0), length(7500), length(15000)
        (64, 544, 1024)
        >>> from_deepspeed({"curriculum_learning": section | {"min_dificulty": 64}})
        Traceback (most recent call last):
        ...
        ValueError: unknown name 'min_dificulty' in curriculum_learning; did you mean 'min_difficulty'? ...
    """
    top = Section("", configs.read(config))
    _check_sections(top)
    custom = dict(custom or {})
    main = top.inner("data_efficiency").only("enabled", "seed", "data_sampling", "data_routing")
    sampled = sampling(main.inner("data_sampling"), custom=custom)
    routed = routing(main.inner("data_routing"))
    length, transform, legacy = _legacy(top.inner("curriculum_learning"), custom)
    if length is not None and sampled.length is not None:
        raise ValueError(
            "curriculum_learning and data_efficiency.data_sampling.curriculum_learning both cut samples to a "
            "length; expected only one of them"
        )
    lr = dict(routed.lr)
    if lr and (peak := _around.peak(top)) is not None:
        lr["peak"] = peak
    return Imported(
        seed=main.whole("seed", low=0, default=1234),
        metrics=sampled.metrics,
        index_paths=sampled.index_paths,
        length=sampled.length if length is None else length,
        transform=transform or sampled.transform,
        unselective=sampled.unselective,
        keep=routed.keep,
        layers=routed.layers,
        depth=routed.depth,
        batch_first=routed.batch_first,
        token_args=routed.token_args,
        lr=lr,
        token_budget=sampled.token_budget,
        batch_size=_around.batch_size(top),
        epochs=sampled.epochs,
        loader=sampled.loader,
        differences=(
            *_switches(main),
            *sampled.notes,
            *routed.notes,
            *legacy,
            *_always(sampled, routed, lr),
            *_around.missing(top),
        ),
    )


def _check_sections(top: Section) -> None:
    for key in top:
        near = difflib.get_close_matches(str(key), _SECTIONS, n=1, cutoff=0.85)
        if near and key not in _SECTIONS:
            raise ValueError(registry.unknown(key, list(_SECTIONS), of="the config"))
    if not any(section in top for section in _SECTIONS):
        raise ValueError(f"the config has neither {' nor '.join(_SECTIONS)}; expected one of them")


def _legacy(section: Section, custom: Mapping[str, Pace]) -> tuple[Pace | None, str | None, list[str]]:
    keys = ("min_difficulty", "max_difficulty", "schedule_type", "schedule_config")
    section.only("enabled", "curriculum_type", *keys)
    if not section.flag("enabled"):
        return None, None, []
    section.one_of("curriculum_type", ("seqlen",))
    pace, notes = _schedule.difficulty(section, "seqlen", custom=custom, rises=False, tokens=True)
    notes.append(
        f"{section.path}: the first batch is of step 0 here, of step 1 in DeepSpeed, so every length comes "
        "one step later"
    )
    notes.append(
        f"{section.path}: here the loop cuts batches, transforms.truncate(batch, length(step)); DeepSpeed "
        "gives the model curriculum_seqlen and leaves it to cut, and its later versions refuse the section"
    )
    return pace, "truncate", notes


def _switches(main: Section) -> list[str]:
    """Outer switches that are off around something that DeepSpeed runs all the same."""
    sampled, routed = main.inner("data_sampling"), main.inner("data_routing")
    inner = (
        (sampled, sampled.inner("curriculum_learning")),
        (sampled, sampled.inner("dynamic_batching")),
        (routed, routed.inner("random_ltd")),
    )
    return [
        f"{outer.at('enabled')}: is not on; DeepSpeed reads only {section.at('enabled')}, so it is imported"
        for around, section in inner
        for outer in (main, around)
        if section.flag("enabled") and not outer.flag("enabled")
    ]


def _always(sampled: Sampling, routed: Routing, lr: Mapping[str, Any]) -> list[str]:
    """What is different in everything of a kind."""
    path, notes = "data_efficiency.data_sampling", []
    if sampled.metrics or sampled.length is not None:
        notes.append(
            f"{path}.curriculum_learning: the first batch is of step 0 here, of step 1 in DeepSpeed, so "
            "every difficulty comes one step later"
        )
    if sampled.metrics:
        notes += [
            f"{path}.curriculum_learning: samples that enter together are drawn in exact proportion here, at "
            "random in DeepSpeed; files in data_cluster_path are neither read nor written",
            f"{path}.curriculum_learning: a resumed run draws the same batches here, other ones in DeepSpeed",
        ]
    if sampled.metrics or routed.keep is not None:
        notes.append("data_efficiency.seed: the same seed gives other samples and tokens than in DeepSpeed")
    if sampled.epochs is not None:
        notes.append(f"{path}.num_epochs: a sampler has as many steps here, unless it is given steps=")
    if lr and "peak" not in lr:
        notes.append("optimizer.params.lr is missing; give the table lr its peak, an absolute learning rate")
    return notes
