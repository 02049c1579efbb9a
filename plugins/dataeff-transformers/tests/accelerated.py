"""A loop with Accelerate that notes what it trains on: torchrun accelerated.py FOLDER RUN LOST_AFTER."""

import os
import sys
from pathlib import Path

import dataeff as de
import torch
import train
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, send_to_device
from torch import distributed
from torch.utils.data import DataLoader


class Trained:
    """What Accelerate saves of a sampler: its state at the step that training has reached."""

    def __init__(self, sampler):
        self.sampler, self.step = sampler, sampler.step

    def state_dict(self):
        return self.sampler.state_dict(self.step)

    def load_state_dict(self, state):
        self.sampler.load_state_dict(state)
        self.step = self.sampler.step


def load(sampler):
    return DataLoader(
        de.corpus.with_batch(train.ROWS),
        batch_sampler=sampler,
        collate_fn=train.collate,
        num_workers=2,
        multiprocessing_context="forkserver",  # a fork may copy a lock that gloo's threads hold
    )


def note(folder, name, batch):
    with (folder / f"{name}.txt").open("a") as file:
        print(batch["input_ids"].shape[1], *batch["input_ids"][:, 0].tolist(), file=file)


def prepared(folder):
    """The other way: Accelerate divides each global batch, and may prepare the loader."""
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(split_batches=True))
    sampler = train.make(folder, rank=0, world_size=1)
    for batch in accelerator.prepare(load(sampler)):
        note(folder, f"prepared-{accelerator.process_index}", batch)


def main(folder, run, lost_after):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=train.ACCUMULATION)
    sampler = train.make(folder)  # Accelerator() has started torch.distributed
    loader = load(sampler)
    model = train.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model, optimizer = accelerator.prepare(model, optimizer)  # not the loader

    trained = Trained(sampler)
    accelerator.register_for_checkpointing(trained)
    if (folder / "saved").exists():
        accelerator.load_state(str(max((folder / "saved").iterdir(), key=lambda path: int(path.name))))
    for batch in loader:
        batch = send_to_device(batch, accelerator.device)
        note(folder, f"{run}-{accelerator.process_index}", batch)
        with accelerator.accumulate(model):
            accelerator.backward(model(**batch).loss)
            optimizer.step()
            optimizer.zero_grad()
        trained.step += 1
        if trained.step % 4 == 0:
            accelerator.save_state(str(folder / "saved" / str(trained.step)))
        if trained.step == lost_after:
            os.killpg(0, 9)  # with the processes that load its data
    if accelerator.is_main_process:
        torch.save(accelerator.unwrap_model(model).state_dict(), folder / f"{run}.pt")


if __name__ == "__main__":
    prepared(Path(sys.argv[1]))
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    distributed.destroy_process_group()  # gloo's threads would race with the interpreter's end
