"""A study: its arms, at what shares of the data, with which seeds, in which order."""

import hashlib
import importlib
import json
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from tests.benchmarks.study._checked import made
from tests.benchmarks.study._train import Setup

CONFIGS = Path(__file__).parent / "configs"


@attrs.frozen
class Arm:
    """What an arm does; what it leaves out is as in the baseline."""

    metric: str | None = None
    """The difficulty that its curriculum is paced by."""
    lengths: Literal["truncate", "reshape", "trim"] | None = None
    """How samples are made shorter at first: seqtru, seqres or seqreo."""
    router: str | None = None
    sampler: Literal["shuffled", "importance"] = "shuffled"
    """Where there is no metric."""
    budget: Literal["tokens", "layer_tokens"] = "tokens"
    """The axis of the clock that the run ends on, and that its learning rate decays on."""
    rate: float = 1.0
    """A factor of the learning rate."""
    settings: dict[str, Any] = attrs.field(factory=dict)
    """Of the study, and other here."""


@attrs.frozen
class Stage:
    """Which arms are due, at which shares of the data, each with the seeds from 1 on."""

    arms: list[str]
    fractions: list[float]
    seeds: int = attrs.field(validator=attrs.validators.ge(1))


@attrs.frozen
class Search:
    """Of a pace: with which starts, in tokens, and durations, as shares of the baseline's steps."""

    arm: str
    fraction: float
    starts: list[int]
    shares: list[float]
    warmup: int


@attrs.frozen
class Config:
    """What a file has."""

    task: Literal["bert", "causal_lm", "gpt", "images", "sentences"]
    settings: dict[str, Any]
    arms: dict[str, Any]
    sizes: dict[str, Any]


@attrs.frozen
class Run:
    """One training: an arm with so much of the data and a seed."""

    arm: str
    fraction: float
    seed: int

    def __str__(self) -> str:
        return f"{self.arm}-{round(100 * self.fraction):03}-{self.seed}"


@attrs.frozen
class Study:
    """A config at one of its sizes."""

    name: str
    size: str
    task: str
    device: str
    settings: dict[str, Any]
    arms: dict[str, Arm]
    stages: tuple[Stage, ...]
    tune: dict[str, Search]
    """By what is paced: seqlen or keep."""

    def __str__(self) -> str:
        return f"{self.name}_{self.size}"

    def runs(self) -> list[Run]:
        """All of them, once each, in the order in which they are due: by stage, then by seed."""
        return list(dict.fromkeys(self._staged()))

    def _staged(self) -> Iterator[Run]:
        for stage in self.stages:
            for seed in range(1, stage.seeds + 1):
                for fraction in stage.fractions:
                    for arm in stage.arms:
                        yield Run(arm, fraction, seed)

    def module(self) -> Any:
        """The task: what trains a run."""
        return importlib.import_module(f"tests.benchmarks.study.{self.task}")

    def settings_of(self, run: Run) -> dict[str, Any]:
        """All that a run depends on beside the code, with what the config leaves to the task.

        ValueError for settings that the task doesn't have, or of another type.
        """
        arm = self.arms[run.arm]
        own = {key: value for key, value in attrs.asdict(arm).items() if key != "settings"}
        return {
            "task": self.task,
            "device": self.device,
            "settings": attrs.asdict(
                made(self.module().Settings, self.settings | arm.settings, f"{self}, settings of {run.arm}")
            ),
            "arm": own,
            "fraction": run.fraction,
            "seed": run.seed,
        }

    def setup(self, run: Run, data: Path) -> Setup:
        """The run, ready to train; what it is made of is kept in the folder `data`."""
        given = self.settings_of(run)
        own = {"fraction": run.fraction, "seed": run.seed, "data": data, "device": self.device}
        setup: Setup = self.module().setup(given["settings"], given["arm"], **own)
        return setup

    def digest(self, run: Run) -> str:
        """Of `settings_of`: a result of other settings is not taken for this run's."""
        text = json.dumps(self.settings_of(run), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def names() -> list[str]:
    """Of the configs that there are."""
    return sorted(path.stem for path in CONFIGS.glob("*.toml"))


def sizes(name: str) -> list[str]:
    """Of a config."""
    return list(_read(name).sizes)


def _read(name: str) -> Config:
    path = CONFIGS / f"{name}.toml"
    try:
        return made(Config, tomllib.loads(path.read_text()), f"{name}.toml")
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: {error}") from error


def load(name: str, size: str, device: str | None = None) -> Study:
    """Read a config at a size, for a device other than its own if one is given.

    Raises ValueError, with what there is, for a name or a size that is not, or a config that is wrong.
    """
    if name not in names():
        raise ValueError(f"there is no study {name!r}; expected one of {', '.join(names())}")
    text = _read(name)
    if size not in text.sizes:
        raise ValueError(f"{name} has no size {size!r}; expected one of {', '.join(text.sizes)}")
    own = dict(text.sizes[size])
    if "stages" not in own:
        raise ValueError(
            f"the size {size} of {name} lacks stages: which arms are due, as [[sizes.{size}.stages]]"
        )
    stages, own_device, tune = own.pop("stages"), own.pop("device", "cpu"), own.pop("tune", {})
    arms = {arm: made(Arm, given, f"the arm {arm} of {name}") for arm, given in text.arms.items()}
    study = Study(
        name=name,
        size=size,
        task=text.task,
        stages=tuple(_stage(stage, arms, f"a stage of {name}") for stage in stages),
        tune={paced: _search(given, paced, arms, name) for paced, given in tune.items()},
        device=device or own_device,
        settings=text.settings | own,
        arms=arms,
    )
    twice = [name for name, many in Counter(map(str, study.runs())).items() if many > 1]
    if twice:
        raise ValueError(
            f"{study} has several runs that are called {twice[0]}; give their fractions in percent"
        )
    return study


def _stage(given: Mapping[str, Any], arms: Mapping[str, Arm], where: str) -> Stage:
    stage = made(Stage, given, where)
    for arm in stage.arms:
        _known(arm, arms, where)
    for fraction in stage.fractions:
        _share(fraction, where)
    return stage


def _search(given: Mapping[str, Any], paced: str, arms: Mapping[str, Arm], name: str) -> Search:
    where = f"the search for {paced} of {name}"
    if paced not in ("seqlen", "keep"):
        raise ValueError(f"{where} is for no pace; expected seqlen or keep")
    search = made(Search, given, where)
    _known(search.arm, arms, where)
    _share(search.fraction, where)
    return search


def _known(arm: str, arms: Mapping[str, Arm], where: str) -> None:
    if arm not in arms:
        raise ValueError(f"{where} has the arm {arm!r}; expected one of {', '.join(arms)}")


def _share(fraction: float, where: str) -> None:
    if not 0 < fraction <= 1:
        raise ValueError(f"{where} has the fraction {fraction!r}; expected more than 0 and at most 1")
