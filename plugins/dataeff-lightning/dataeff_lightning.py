"""A sampler of dataeff in the `Trainer` of Lightning."""

from collections.abc import Iterator
from typing import Any

from dataeff.corpus import with_batch
from dataeff.samplers import curriculum, importance, mixture, shuffled, token_budget
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset

Sampler = curriculum | mixture | shuffled | token_budget


class SamplerLoader(DataLoader[Any]):
    """A DataLoader over a sampler's batches, for a Trainer with the callback `SamplerState`.

    Make it, and the sampler, in `train_dataloader()`: Lightning calls that when torch.distributed is there,
    so the sampler finds its rank. Iteration begins at the step that training has reached, however far workers
    had fetched ahead. The collate function sees `samples.batch.step`.

    Args:
        dataset: map-style.
        sampler: of any kind but `importance`. Its `batch_size` counts the samples of all processes.
        **options: of DataLoader, such as `collate_fn` and `num_workers`.

    Raises:
        ValueError: the sampler is `importance`; when iterated, there is no `SamplerState`.

    Examples:
        >>> import dataeff as de
        >>> loader = SamplerLoader(range(8), de.samplers.shuffled(8, batch_size=2, seed=1), num_workers=2)
        >>> len(loader)
        4
    """

    step: int | None = None
    """The step that iteration begins with, set by `SamplerState`."""

    def __init__(self, dataset: Dataset[Any], sampler: Sampler, **options: Any) -> None:
        if isinstance(sampler, importance):
            raise ValueError(
                "the sampler is importance, which needs the losses of its samples and epochs of its own; "
                "write the loop without Lightning's Trainer"
            )
        super().__init__(with_batch(dataset), batch_sampler=sampler, **options)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """The batches from `step` on. Nothing is fetched before the first is asked for."""
        if self.step is None:
            raise ValueError(
                "the loader has no step; add SamplerState() to the callbacks of the Trainer. Tuner and "
                "LearningRateFinder leave it out: give Tuner a plain DataLoader, as the README shows"
            )
        self.batch_sampler.step = self.step  # type: ignore[union-attr]
        yield from super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Nothing, as `SamplerState` has it; Lightning warns of loaders that cannot be asked."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""


class SamplerState(Callback):
    """Saves the sampler of a `SamplerLoader` in each checkpoint, and goes on from there.

    What is saved is the step that training has reached, in batches of the sampler: with
    `accumulate_grad_batches` several of them make an update. A run may resume in the middle of an epoch, and
    on another number of processes. An epoch of Lightning is all batches of the sampler, or as many as
    `limit_train_batches` says; the next one goes on from there. Training ends after the last batch.

    Raises:
        ValueError: when training starts, a loader that is no `SamplerLoader`, a sampler of another rank or
            shorter than `min_epochs` or `min_steps`, or a checkpoint of other batches or without a sampler.

    Examples:
        >>> import dataeff as de
        >>> import torch
        >>> class Model(torch.nn.Linear, LightningModule):
        ...     def train_dataloader(self):
        ...         sampler = de.samplers.shuffled(20, batch_size=4, seed=1, steps=10)
        ...         return SamplerLoader(torch.ones(20, 3), sampler)
        ...     def training_step(self, batch):
        ...         return self(batch).square().mean()
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.parameters())
        >>> trainer = Trainer(
        ...     callbacks=[SamplerState()], use_distributed_sampler=False, max_epochs=1, accelerator="cpu",
        ...     barebones=True,
        ... )
        >>> trainer.fit(Model(3, 1))
        >>> trainer.global_step
        10
    """

    def __init__(self) -> None:
        self.step = 0
        """Batches trained on."""
        self._trainer: Trainer | None = None
        self._sampler: Sampler | None = None
        self._loaded: dict[str, Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew in another trainer, and count a batch before any other callback saves a checkpoint."""
        if trainer is not self._trainer:
            self.step, self._sampler, self._trainer = 0, None, trainer
        trainer.callbacks.remove(self)  # type: ignore[attr-defined]
        trainer.callbacks.insert(0, self)  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        """The sampler's state at the step that training has reached."""
        return {} if self._sampler is None else self._sampler.state_dict(self.step)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a state until there is a sampler."""
        self._loaded = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the loader begin where the checkpoint stands; Lightning may be in the middle of an epoch."""
        sampler = self._begin(trainer)
        if not self.step:
            epochs = -(-len(sampler) // int(trainer.num_training_batches))
            most = len(sampler) if pl_module.automatic_optimization else trainer.min_steps or 0
            _check_lasts(trainer, sampler, epochs=epochs, updates=most)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the loader begin where the last epoch ended; it may be a new one."""
        sampler = self._begin(trainer)
        if self.step >= len(sampler):  # and yet Lightning goes on
            epochs = trainer.current_epoch + 1  # the one of the last batch may be resumed at its end
            _check_lasts(trainer, sampler, epochs=epochs, updates=trainer.global_step)

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Count what was trained on."""
        self.step += 1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End training with the sampler."""
        self._end(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget what `validate` or `test` loaded: it is not for a later `fit`."""
        self._loaded = None

    def _begin(self, trainer: Trainer) -> Sampler:
        loader = trainer.train_dataloader
        if not isinstance(loader, SamplerLoader):
            raise ValueError(
                f"the train dataloader is a {type(loader).__name__}; "
                "expected a SamplerLoader(dataset, sampler)"
            )
        sampler: Any = loader.batch_sampler
        _check_rank(trainer, sampler)
        if self._loaded is not None:
            sampler.load_state_dict(self._loaded)
            self.step, self._loaded = sampler.step, None
        elif trainer.global_step and not self.step:
            raise ValueError(
                f"the checkpoint of step {trainer.global_step} holds no sampler's state: it was saved "
                "without SamplerState(); load its weights into the model and begin anew"
            )
        self._sampler, loader.step = sampler, self.step
        self._end(trainer)
        return self._sampler

    def _end(self, trainer: Trainer) -> None:
        if self._sampler is not None and self.step >= len(self._sampler):
            trainer.should_stop = True


def _check_rank(trainer: Trainer, sampler: Sampler) -> None:
    share = trainer.distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
    if (sampler.rank, sampler.world_size) != (share["rank"], share["num_replicas"]):
        raise ValueError(
            f"the sampler is of rank {sampler.rank} of {sampler.world_size}, this process is "
            f"{share['rank']} of {share['num_replicas']}; make the sampler in train_dataloader(), where "
            "torch.distributed is ready, or give it rank= and world_size="
        )


def _check_lasts(trainer: Trainer, sampler: Sampler, *, epochs: int, updates: int) -> None:
    for name, least, most in (
        ("min_epochs", trainer.min_epochs, epochs),
        ("min_steps", trainer.min_steps, updates),
    ):
        if (least or 0) > most:
            raise ValueError(
                f"{name} is {least}, but the sampler's {len(sampler)} batches are enough for {most}; lower "
                f"{name}, or make the sampler with more steps"
            )
