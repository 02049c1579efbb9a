"""What a DeepSpeed config asks for, as objects of this library."""

import tempfile
from pathlib import Path
from typing import Any

import attrs
from torch import nn

from dataeff import config, routing, samplers
from dataeff import index as indexes
from dataeff.curriculum import Curriculum, paced
from dataeff.index import Index
from dataeff.pacing import Pace
from dataeff.routing._stack import blocks

_SAMPLES = "_index_to_sample"


@attrs.frozen
class Imported:
    """What `from_deepspeed` found; what the config says nothing of is None or empty.

    Examples:
        >>> from dataeff import pacing
        >>> found = Imported(keep=pacing.linear(128, 2048, steps=100, multiple=16), layers=(1, 2), depth=4)
        >>> found.to_config()["routing"]["layers"]
        [1, 2]
    """

    seed: int = 1234
    metrics: dict[str, paced] = attrs.field(factory=dict)
    """Name in the config to how far the pool reaches, for a Curriculum."""
    index_paths: dict[str, str] = attrs.field(factory=dict)
    """Name in the config to the prefix of the analyzer's files of samples."""
    length: Pace | None = None
    """To how many tokens samples are cut."""
    transform: str = "truncate"
    """What cuts them: "truncate" or "reshape" of `dataeff.transforms`."""
    unselective: dict[str, Pace] = attrs.field(factory=dict)
    """Paces of metrics that neither select nor cut samples: the training script reads them."""
    keep: Pace | None = None
    """How many tokens enter a layer that drops tokens."""
    layers: tuple[int, ...] = ()
    """Which blocks drop tokens, from 0."""
    depth: int | None = None
    """How many blocks the model has."""
    batch_first: bool = True
    """Whether hidden states are (B, S, C), and not (S, B, C)."""
    token_args: dict[str, tuple[int, ...]] = attrs.field(factory=dict)
    """Token axes of a mask whose name says nothing, for `routing.attach`."""
    lr: dict[str, Any] = attrs.field(factory=dict)
    """The table `lr`: a learning rate over consumed layer tokens."""
    token_budget: dict[str, Any] = attrs.field(factory=dict)
    """Options of `samplers.token_budget`."""
    batch_size: int | None = None
    """Samples of a step over all ranks."""
    epochs: int | None = None
    """How often, at the most, the samples are gone through."""
    loader: dict[str, Any] = attrs.field(factory=dict)
    """Options of a DataLoader."""
    differences: tuple[str, ...] = ()
    """What goes otherwise than in DeepSpeed, each with the path of the key that it is about."""

    def to_config(self) -> dict[str, Any]:
        """The tables that `Curriculum.from_config` and `simulation.Length.from_config` read, and more.

        Where a run ends is not in a DeepSpeed config: add `steps`, `samples` or `tokens` to the table `run`.
        Raises ValueError for a pace that is a function.
        """
        lengths = [int(pace(pace.steps)) for pace in (self.length, self.keep) if pace is not None]
        run = {"batch_size": self.batch_size, "sequence_length": max(lengths, default=None)}
        cut = {} if self.transform == "truncate" else {"transform": self.transform}
        tables: dict[str, Any] = {
            "run": {"seed": self.seed} | _known(run | {"layers": self.depth}),
            "curriculum": {
                name: {"by": how.by, "pace": config.said("pacings", how.pace)}
                for name, how in self.metrics.items()
            },
            "length": cut | {"pace": config.said("pacings", self.length)} if self.length is not None else {},
            "routing": {
                "router": "random_ltd",
                "keep": config.said("pacings", self.keep),
                "layers": list(self.layers),
            }
            if self.keep is not None
            else {},
            "lr": self.lr,
            "token_budget": self.token_budget,
        }
        return {name: table for name, table in tables.items() if table}

    def index(self, out: str | Path) -> Index:
        """An index in the folder `out` from the analyzer's files that the config names, under its names.

        Raises:
            ValueError: a metric without a path, or a path that is not one of samples.
            FileNotFoundError: no such files.
        """
        values = {name: _analyzed(name, self.index_paths.get(name)) for name in self.metrics}
        return indexes.from_values(values, out=out)

    def curriculum(self, index: Index) -> Curriculum:
        """The curriculum over an index that has the config's metrics by their names.

        Raises ValueError for a config that has none, and for what a Curriculum refuses.
        """
        if not self.metrics:
            raise ValueError(
                "the config has no metric that selects samples, so there is no curriculum; take "
                "samplers.shuffled(samples, batch_size=..., seed=...)"
            )
        return Curriculum(index, self.metrics)

    def sampler(
        self, index: Index, *, batch_size: int | None = None, steps: int | None = None, **options: Any
    ) -> samplers.curriculum:
        """The sampler over that curriculum, with the config's seed, batch size and epochs.

        Args:
            index: as for `curriculum`.
            batch_size: samples over all ranks, where the config has no `train_batch_size`.
            steps: how many batches; by default those of `epochs`, else until the last pace ends.
            options: as `samplers.curriculum` takes: `rank`, `world_size`.
        """
        size = batch_size if batch_size is not None else self.batch_size
        if size is None:
            raise ValueError("the config has no train_batch_size; give batch_size=, samples over all ranks")
        if steps is None and self.epochs is not None:
            steps = max(self.epochs * len(index) // size, 1)
        return samplers.curriculum(
            self.curriculum(index), batch_size=size, seed=self.seed, steps=steps, **options
        )

    def attach(self, model: nn.Module, **options: Any) -> routing.Route:
        """The route on a model with as many blocks as the config says.

        Args:
            model: not wrapped by DeepSpeed's `convert_to_random_ltd`.
            options: as `routing.attach` takes: `rank`, `in_place`, `layers` for a model whose blocks are not
                found.

        Raises:
            ValueError: a config without random-LTD, or a model of another depth.
        """
        if self.keep is None:
            raise ValueError("the config has no random_ltd that is enabled; expected one to attach")
        own: dict[str, Any] = {
            "router": "random_ltd",
            "keep": self.keep,
            "seed": self.seed,
            "batch_first": self.batch_first,
        }
        if "layers" not in options:
            found = blocks(model, (0, 0))
            if len(found) != self.depth:
                raise ValueError(
                    f"{type(model).__name__} has {len(found)} blocks, and total_layer_num is {self.depth}; "
                    "mend the config, or give attach(..., layers=[...])"
                )
            own["layers"] = [found[i] for i in self.layers]
        return routing.attach(model, **(own | {"token_args": self.token_args} | options))


def _known(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value is not None}


def _analyzed(name: str, path: str | None) -> Any:
    """The values of one metric, by sample."""
    prefix = Path(path or "")
    metric, found, _ = prefix.name.partition(_SAMPLES)
    if not found:
        raise ValueError(
            f"index_to_sample_path of {name!r} is {path!r}; expected the prefix of files that DeepSpeed's "
            "analyzer wrote, as analysis/rarity/rarity_index_to_sample"
        )
    with tempfile.TemporaryDirectory() as folder:
        index = indexes.import_deepspeed(prefix.parent, metrics=[metric], out=Path(folder) / "index")
        return index.values(metric).copy()
