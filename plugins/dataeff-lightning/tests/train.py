"""A tiny model under Lightning that notes what it trains on: torchrun train.py FOLDER RUN LOST_AFTER."""

import os
import sys
from pathlib import Path

import dataeff as de
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import distributed

from dataeff_lightning import SamplerLoader, SamplerState

STEPS, SAMPLES, LENGTH = 32, 96, 16
BATCH_SIZE, ACCUMULATION = 4, 2
SEQLEN = de.pacing.linear(4, LENGTH, steps=STEPS - 2, multiple=2)
ROWS = torch.tensor([[i] + [(i * 7 + j) % SAMPLES for j in range(LENGTH)] for i in range(SAMPLES)])


def make(folder, **of):
    curriculum = de.Curriculum(
        de.index.open(folder / "index"), {"m": de.paced(de.pacing.linear(20, SAMPLES, steps=STEPS))}
    )
    return de.samplers.curriculum(curriculum, batch_size=BATCH_SIZE, seed=3, **of)


def collate(samples):
    return de.transforms.truncate(torch.stack(samples), SEQLEN(samples.batch.step) + 1)


class Model(LightningModule):
    """Next tokens from the last one. Notes the length and the ids (first tokens) of each batch."""

    def __init__(self, folder, run, sampler=None, workers=2):
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Sequential(torch.nn.Embedding(SAMPLES, 8), torch.nn.Linear(8, SAMPLES))
        self.folder, self.run, self.sampler, self.workers = folder, run, sampler, workers

    def train_dataloader(self):
        sampler, options = self.sampler or make(self.folder), {}
        if distributed.is_initialized() and self.workers:  # a fork may copy a lock that gloo's threads hold
            options["multiprocessing_context"] = "forkserver"
        return SamplerLoader(ROWS, sampler, collate_fn=collate, num_workers=self.workers, **options)

    def training_step(self, batch):
        with (self.folder / f"{self.run}-{self.global_rank}.txt").open("a") as file:
            print(batch.shape[1] - 1, *batch[:, 0].tolist(), file=file)
        logits = self.body(batch[:, :-1])
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


class Lost(Callback):
    """The machine is lost after some batch: by SIGKILL, or in a test's own process by an exception."""

    def __init__(self, after):
        self.after = after

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == self.after:
            if trainer.world_size == 1:
                raise RuntimeError("lost")
            os.killpg(0, 9)  # with the processes that load its data


def trainer_of(folder, *, lost_after=-1, saves="{step}", when=None, **others):
    """A Trainer that saves each second update, or `when`, in files named by `saves`."""
    given = {
        "accelerator": "cpu",
        "accumulate_grad_batches": ACCUMULATION,
        "devices": int(os.environ.get("WORLD_SIZE", 1)),
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "logger": False,
        "max_epochs": 1,
        "use_distributed_sampler": False,
    }
    when = when or {"every_n_train_steps": 2}
    keep = ModelCheckpoint(folder / "saved", saves, save_top_k=-1, **when)
    return Trainer(callbacks=[SamplerState(), keep, Lost(after=lost_after)], **given | others)


def last(folder):
    saved = list((folder / "saved").glob("*.ckpt"))
    return max(saved, key=lambda path: int(path.stem.removeprefix("step=")), default=None)


def main(folder, run, lost_after):
    model = Model(folder, run)
    trainer = trainer_of(folder, lost_after=lost_after)
    trainer.fit(model, ckpt_path=last(folder))
    if trainer.is_global_zero:
        torch.save(model.body.state_dict(), folder / f"{run}.pt")


def divided(folder):
    """What Lightning says where it is left to divide the batches among processes."""
    trainer = trainer_of(folder, use_distributed_sampler=True, lost_after=0)
    try:
        trainer.fit(Model(folder, "divided"))
    except TypeError as error:
        (folder / f"divided-{trainer.global_rank}.txt").write_text(str(error))


if __name__ == "__main__":
    if sys.argv[2] == "first":
        divided(Path(sys.argv[1]))
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    if distributed.is_initialized():
        distributed.destroy_process_group()  # gloo's threads would race with the interpreter's end
