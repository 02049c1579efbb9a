"""A tiny model under Trainer that notes what it trains on: torchrun train.py FOLDER RUN LOST_AFTER."""

import os
import sys
from pathlib import Path

import dataeff as de
import torch
from torch import distributed
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from dataeff_transformers import attach

STEPS, SAMPLES, LENGTH = 32, 96, 16  # steps are micro-steps
BATCH_SIZE, ACCUMULATION = 4, 2
SEQLEN = de.pacing.linear(4, LENGTH, steps=STEPS - 2, multiple=2)
ROWS = [
    {"input_ids": torch.tensor([i] + [(i * 7 + j) % SAMPLES for j in range(LENGTH - 1)]), "unused": "x"}
    for i in range(SAMPLES)
]


def make(folder, **of):
    curriculum = de.Curriculum(
        de.index.open(folder / "index"), {"m": de.paced(de.pacing.linear(20, SAMPLES, steps=STEPS))}
    )
    return de.samplers.curriculum(curriculum, batch_size=BATCH_SIZE, seed=3, **of)


def model():
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=SAMPLES,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    )


def arguments(folder, **others):
    given = {
        "per_device_train_batch_size": BATCH_SIZE // int(os.environ.get("WORLD_SIZE", 1)),
        "gradient_accumulation_steps": ACCUMULATION,
        "num_train_epochs": 1,
        "save_steps": 2,
        "dataloader_num_workers": 2,
        "dataloader_pin_memory": False,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return TrainingArguments(str(folder / "out"), **given | others)


def collate(samples):
    ids = torch.stack([sample["input_ids"] for sample in samples])
    batch = de.transforms.truncate({"input_ids": ids}, SEQLEN(samples.batch.step))
    return batch | {"labels": batch["input_ids"]}


class Noting(Trainer):
    """Notes the length and the ids (each sample's first token) of every micro-step in `notes`."""

    notes: Path

    def training_step(self, model, inputs, *args, **kwargs):
        with self.notes.open("a") as file:
            print(inputs["input_ids"].shape[1], *inputs["input_ids"][:, 0].tolist(), file=file)
        return super().training_step(model, inputs, *args, **kwargs)


class Lost(TrainerCallback):
    """The machine is lost after some update: by SIGKILL, or in a test's own process by an exception."""

    def __init__(self, after):
        self.after = after

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.after:
            if args.world_size == 1:
                raise KeyboardInterrupt
            os.killpg(0, 9)  # with the processes that load its data


def main(folder, run, lost_after):
    args = arguments(folder)
    trainer = Noting(
        model(), args, train_dataset=ROWS, data_collator=collate, callbacks=[Lost(after=lost_after)]
    )
    trainer.notes = folder / f"{run}-{args.process_index}.txt"
    attach(trainer, make(folder))
    trainer.train(resume_from_checkpoint=any(Path(args.output_dir).glob("checkpoint-*")))
    if args.process_index == 0:
        torch.save(trainer.model.state_dict(), folder / f"{run}.pt")
    return trainer


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    distributed.destroy_process_group()  # gloo's threads would race with the interpreter's end
