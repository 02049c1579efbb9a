"""What the tuner finds for the paces of a study: its probes are the beginnings of runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import torch

import dataeff as de
from tests.benchmarks import record
from tests.benchmarks.study import _train, _work
from tests.benchmarks.study._study import Arm, Study


def tune(study: Study, out: Path, folder: Path = _work.TABLES) -> Path:
    """Search each pace that the config says to, and write what was found; goes on where it was stopped.

    ValueError if it says none.
    """
    if not study.tune:
        raise ValueError(f"{study} has nothing to tune; its config has no [sizes.{study.size}.tune.seqlen]")
    torch.set_num_threads(1)
    found = [_search(study, paced, out) for paced in study.tune]
    path = path_of(study, folder)
    _work.write_table(path, {"study": str(study), **record.stamp()}, "searches", found)
    return path


def path_of(study: Study, folder: Path = _work.TABLES) -> Path:
    """Where it is written."""
    return folder / "tuned" / f"{study}.json"


def settings(study: Study, paced: str, start: float, duration: int) -> dict[str, Any]:
    """A start and a duration in steps as a study has them: the duration as a share of the baseline's."""
    share = round(duration / _steps(study, paced), 4)
    found = {f"{paced}_start": int(start), f"{paced}_share": share}
    return found | ({"difficulty_share": share} if study.arms[study.tune[paced].arm].metric else {})


def _search(study: Study, paced: str, out: Path) -> dict[str, Any]:
    """What the search for one pace found, and what that is called in the config."""
    own = study.tune[paced]
    found = de.tuning.tune(
        _Probe(study, paced, out),
        starts=own.starts,
        durations=[round(share * _steps(study, paced)) for share in own.shares],
        end=study.settings["length"],
        warmup=own.warmup,
        fraction=own.fraction,
        multiple=_multiple(study, paced),
        out=out / "tune" / f"{study}_{paced}",
        progress=True,
    )
    called = settings(study, paced, found.start, found.duration) if found.pace else None
    return {"paced": paced, "arm": own.arm, "settings": called, **found.to_json()}


@attrs.frozen
class _Probe:
    """Trains the beginning of an arm's run with the pace of a `Config`, or of the baseline's without."""

    study: Study
    paced: str
    out: Path

    def __call__(self, config: de.tuning.Config) -> Iterator[tuple[int, float]]:
        study, own = self.study, self.study.tune[self.paced]
        arm = study.arms[own.arm] if config.paced else Arm()
        given = study.settings | settings(study, self.paced, config.start, config.duration)
        given["batch_size"] = round(given["batch_size"] * config.batch_scale)
        module = study.module()
        setup = module.setup(
            attrs.asdict(module.Settings(**given | {"scaled": False})),
            attrs.asdict(attrs.evolve(arm, rate=arm.rate * config.learning_rate_scale)),
            fraction=own.fraction,
            seed=config.seed,
            data=self.out / "data",
            device=study.device,
        )
        every = max(1, own.warmup // 5)
        yield 0, setup.measure()["validation_loss"]
        for step, _ in enumerate(_train.steps(setup), 1):
            if step % every == 0:
                yield step, setup.measure()["validation_loss"]


def _steps(study: Study, paced: str) -> int:
    """That the baseline takes on the same data."""
    own = study.settings
    tokens = study.tune[paced].fraction * own["tokens"]
    return round(tokens / (own["batch_size"] * own["length"]))


def _multiple(study: Study, paced: str) -> int:
    given = study.module().Settings(**study.settings)
    return int(given.multiple if paced == "seqlen" else given.keep_multiple)
