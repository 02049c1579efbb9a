"""A sampler of dataeff in the `Trainer` of Hugging Face transformers."""

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import attrs
from dataeff.corpus import Samples, with_batch
from dataeff.samplers import curriculum, importance, mixture, shuffled, token_budget
from torch.utils.data import DataLoader, IterableDataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import RemoveColumnsCollator

Sampler = curriculum | mixture | shuffled | token_budget

_KEPT = (
    "collate_fn",
    "num_workers",
    "pin_memory",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "generator",
    "prefetch_factor",
    "persistent_workers",
)


def attach(trainer: Trainer, sampler: Sampler) -> None:
    """Let a trainer train on the batches of a sampler, and resume with the next one from its checkpoints.

    Its train dataloader becomes a plain DataLoader with `sampler` as batch sampler, which Accelerate does not
    divide among processes a second time. Dataset, collator, workers and unused columns stay as the trainer
    has them. The collator sees `samples.batch.step`; in evaluation it gets a plain list. Each checkpoint
    holds the sampler's state, in `trainer_state.json`; `train(resume_from_checkpoint=...)` goes on from it on
    any number of processes.

    A batch of the sampler is the global batch of one micro-step: `batch_size` is
    `per_device_train_batch_size` times the number of processes, however many `gradient_accumulation_steps`
    there are, and the paces of a curriculum count micro-steps. The sampler's batches are the whole run, from
    its first one on: set `max_steps`, or `num_train_epochs=1`.

    Args:
        trainer: of any subclass; with a map-style train dataset.
        sampler: made after the TrainingArguments, which start torch.distributed.

    Raises:
        ValueError: arguments that contradict the sampler, by name and with the cure; from `train()`, a
            checkpoint of other batches.

    Examples:
        >>> import tempfile
        >>> import dataeff as de
        >>> import torch
        >>> class Model(torch.nn.Linear):
        ...     def forward(self, x, labels):
        ...         return {"loss": (super().forward(x) - labels).square().mean()}
        >>> folder = tempfile.TemporaryDirectory()
        >>> args = TrainingArguments(
        ...     folder.name, per_device_train_batch_size=4, max_steps=10, use_cpu=True, report_to="none",
        ...     disable_tqdm=True,
        ... )
        >>> dataset = [{"x": torch.ones(3), "labels": torch.ones(1)} for _ in range(20)]
        >>> trainer = Trainer(Model(3, 1), args, train_dataset=dataset)
        >>> attach(trainer, de.samplers.shuffled(20, batch_size=4, seed=1, steps=10))
        >>> trainer.train().global_step
        {'train_runtime': ...}
        10
        >>> folder.cleanup()
    """
    _check(trainer, sampler)
    trainer.get_train_dataloader = functools.partial(_loader, trainer, sampler)  # type: ignore[method-assign]
    trainer.remove_callback(SamplerState)
    trainer.add_callback(SamplerState())


class SamplerState(TrainerCallback, ExportableState):
    """What keeps checkpoints in step with the sampler; `attach` adds it to the trainer.

    Examples:
        >>> SamplerState().state()
        {'args': {}, 'attributes': {'saved': None}}
    """

    # The sampler comes with the dataloader: a trainer may make its callbacks anew, from what state() says.
    sampler: Sampler | None = None
    step: int = 0

    def state(self) -> dict[str, Any]:
        """What `trainer_state.json` holds: the sampler's state at the step that training has reached."""
        saved = None if self.sampler is None else self.sampler.state_dict(self.step)
        return {"args": {}, "attributes": {"saved": saved}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Go on where the checkpoint stands; without one, from the first step."""
        sampler = self.sampler = kwargs["train_dataloader"].batch_sampler.sampler
        sampler.step = self.step = _reached(args, state, sampler)
        if not state.global_step:
            return
        held: Any = state.stateful_callbacks
        saved = held.get(type(self).__name__, {}).get("attributes", {}).get("saved")
        if saved is None:
            raise ValueError(
                f"the checkpoint of step {state.global_step} holds no sampler's state: it was saved without "
                "attach(trainer, sampler); load its weights into the model and begin anew"
            )
        sampler.load_state_dict(saved)
        if sampler.step != self.step:
            raise ValueError(
                f"gradient_accumulation_steps is {args.gradient_accumulation_steps}, which makes "
                f"{self.step} batches of {state.global_step} steps; the checkpoint was saved after "
                f"{sampler.step} batches: resume with the gradient_accumulation_steps that it was saved with"
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note the step that training has reached; the loader is ahead of it."""
        self.step = _reached(args, state, self.sampler)


def _reached(args: TrainingArguments, state: TrainerState, sampler: Any) -> int:
    return min(state.global_step * args.gradient_accumulation_steps, len(sampler))


def _loader(trainer: Trainer, sampler: Sampler) -> DataLoader[Any]:
    own = type(trainer).get_train_dataloader(trainer)
    options: dict[str, Any] = {name: getattr(own, name) for name in _KEPT}
    if isinstance(options["collate_fn"], RemoveColumnsCollator):
        options["collate_fn"] = _Columns(options["collate_fn"])
    return DataLoader(with_batch(own.dataset), batch_sampler=_Counted(sampler), **options)


@attrs.frozen(eq=False)
class _Counted:
    """A sampler's batches as Trainer counts them: those before its step are empty, for Trainer skips them."""

    sampler: Sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[int]]:
        yield from itertools.repeat([], self.sampler.step)
        yield from self.sampler


@attrs.frozen(eq=False)
class _Columns:
    """Trainer's collate function that leaves out what the model does not take; this one keeps the batch."""

    own: RemoveColumnsCollator

    def __call__(self, samples: Samples) -> Any:
        names = self.own.signature_columns
        kept = [
            {k: v for k, v in sample.items() if k in names} if isinstance(sample, dict) else sample
            for sample in samples
        ]
        return self.own.data_collator(Samples(kept, samples.batch))


def _check(trainer: Trainer, sampler: Any) -> None:
    args = trainer.args
    if isinstance(sampler, importance):
        raise ValueError(
            "the sampler is importance, which needs the losses of its samples; write the loop with Accelerate"
        )
    if trainer.train_dataset is None or isinstance(trainer.train_dataset, IterableDataset):
        raise ValueError(
            f"train_dataset is a {type(trainer.train_dataset).__name__}; expected a map-style dataset, whose "
            "samples the sampler can ask for by id"
        )
    for name, expected, why in (
        ("train_sampling_strategy", "random", "the sampler says which samples come when"),
        ("auto_find_batch_size", False, "the batch size is the sampler's"),
        ("ignore_data_skip", False, "a resumed run would begin with the first batch"),
        ("dataloader_in_order", True, "a checkpoint knows the last step, not which ones came before"),
    ):
        if (value := getattr(args, name, expected)) != expected:  # a version may lack it
            raise ValueError(f"{name} is {value!r}; expected {expected!r}: {why}")
    if (sampler.rank, sampler.world_size) != (args.process_index, args.world_size):
        raise ValueError(
            f"the sampler is of rank {sampler.rank} of {sampler.world_size}, this process is "
            f"{args.process_index} of {args.world_size}; make the sampler after the TrainingArguments, which "
            "start torch.distributed, or give it rank= and world_size="
        )
    _check_sizes(trainer, sampler)


def _check_sizes(trainer: Trainer, sampler: Any) -> None:
    args = trainer.args
    micro = trainer.get_total_train_batch_size(args) // args.gradient_accumulation_steps
    if getattr(sampler, "batch_size", micro) != micro:
        raise ValueError(
            f"the sampler's batch_size is {sampler.batch_size}; expected {micro}, what a micro-step takes: "
            f"per_device_train_batch_size is {args.per_device_train_batch_size}, on {args.world_size} "
            "processes (gradient_accumulation_steps do not count)"
        )
    updates = -(-len(sampler) // args.gradient_accumulation_steps)
    if args.max_steps > updates:
        raise ValueError(
            f"max_steps is {args.max_steps}, but the sampler's {len(sampler)} batches are enough for "
            f"{updates}; set max_steps={updates}, or make the sampler with more steps"
        )
    if args.max_steps <= 0 and math.ceil(args.num_train_epochs * updates) > updates:
        raise ValueError(
            f"num_train_epochs is {args.num_train_epochs}, but the sampler's {len(sampler)} batches are the "
            f"whole run; set max_steps={updates}, or num_train_epochs=1"
        )
