import json
import re
import subprocess
import sys
from pathlib import Path

import accelerated
import dataeff as de
import pytest
import torch
import train
from torch.utils.data import IterableDataset

from dataeff_transformers import attach

HERE = Path(__file__).parent


@pytest.fixture
def folder(tmp_path):
    de.index.from_values({"m": range(train.SAMPLES)}, out=tmp_path / "index")
    return tmp_path


def torchrun(script, processes, *words):
    """Exit status of a script, which finds torch.distributed as torchrun starts it."""
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run([sys.executable, *command, HERE / script, *map(str, words)], check=False).returncode


def noted(folder, run, processes=1):
    """(length, sorted ids) of each micro-step, put together from all ranks."""
    ranks = [(folder / f"{run}-{rank}.txt").read_text().splitlines() for rank in range(processes)]
    steps = []
    for lines in zip(*ranks, strict=True):
        lengths, ids = zip(*((int(line.split()[0]), line.split()[1:]) for line in lines), strict=True)
        assert len(set(lengths)) == 1
        steps.append((lengths[0], sorted(int(i) for part in ids for i in part)))
    return steps


def due(folder, start, stop):
    """The same of an uninterrupted run, as words say."""
    sampler = train.make(folder, rank=0, world_size=1)
    return [(train.SEQLEN(step), sorted(sampler.global_batch(step))) for step in range(start, stop)]


def test_a_run_that_was_killed_goes_on_with_the_next_global_batch_on_other_processes(folder):
    """Two processes, killed after update 5; one, lost after update 9; two again. Checkpoints are every 2."""
    assert torchrun("train.py", 2, folder, "first", 5)
    assert noted(folder, "first", 2) == due(folder, 0, 10)
    with pytest.raises(KeyboardInterrupt):
        train.main(folder, "second", 9)
    assert noted(folder, "second") == due(folder, 8, 18)
    assert torchrun("train.py", 2, folder, "third", -1) == 0
    assert noted(folder, "third", 2) == due(folder, 16, train.STEPS)

    (folder / "out").rename(folder / "interrupted")
    train.main(folder, "whole", -1)
    assert noted(folder, "whole") == due(folder, 0, train.STEPS)
    resumed, whole = (torch.load(folder / f"{run}.pt") for run in ("third", "whole"))
    for name, weight in whole.items():
        torch.testing.assert_close(resumed[name], weight, rtol=1e-4, atol=1e-6)


def test_a_loop_with_accelerate_that_was_killed_goes_on_with_the_next_global_batch(folder):
    """Two processes, killed after step 10; one goes on from the checkpoint of step 8."""
    assert torchrun("accelerated.py", 2, folder, "first", 10)
    assert noted(folder, "first", 2) == due(folder, 0, 10)
    accelerated.main(folder, "second", -1)
    assert noted(folder, "second") == due(folder, 8, train.STEPS)
    assert noted(folder, "prepared", 2) == due(folder, 0, train.STEPS)

    (folder / "saved").rename(folder / "interrupted")
    accelerated.main(folder, "whole", -1)
    resumed, whole = (torch.load(folder / f"{run}.pt") for run in ("second", "whole"))
    for name, weight in whole.items():
        torch.testing.assert_close(resumed[name], weight, rtol=1e-4, atol=1e-6)


def trainer_of(folder, *, dataset=train.ROWS, collator=train.collate, notes="notes-0.txt", **others):
    trainer = train.Noting(
        train.model(), train.arguments(folder, **others), train_dataset=dataset, data_collator=collator
    )
    trainer.notes = folder / notes
    return trainer


def test_a_checkpoint_holds_the_state_of_the_step_that_training_reached(folder):
    trainer, sampler = trainer_of(folder, max_steps=6), train.make(folder)
    attach(trainer, sampler)
    trainer.train()
    for update in (2, 4, 6):
        written = json.loads((folder / f"out/checkpoint-{update}/trainer_state.json").read_text())
        saved = written["stateful_callbacks"]["SamplerState"]["attributes"]["saved"]
        assert saved == sampler.state_dict(update * train.ACCUMULATION)
    assert sampler.step > 6 * train.ACCUMULATION  # the loader had asked for more


def test_the_last_update_may_have_fewer_batches(folder):
    trainer, sampler = trainer_of(folder, gradient_accumulation_steps=3), train.make(folder)
    attach(trainer, sampler)
    trainer.train()
    assert (trainer.state.global_step, trainer.state.epoch) == (11, 1)
    assert noted(folder, "notes") == due(folder, 0, train.STEPS)
    trainer.train(resume_from_checkpoint=True)  # nothing is left
    assert len(noted(folder, "notes")) == train.STEPS


def test_a_trainer_may_train_again_from_the_beginning_or_from_a_checkpoint(folder):
    trainer = trainer_of(folder, max_steps=3, save_steps=1)
    attach(trainer, train.make(folder))
    trainer.train()
    trainer.train()
    trainer.train(resume_from_checkpoint=str(folder / "out/checkpoint-2"))
    assert noted(folder, "notes") == due(folder, 0, 6) + due(folder, 0, 6) + due(folder, 4, 6)


def test_a_trainer_that_makes_its_callbacks_anew_resumes_too(folder):
    for steps in (2, 4):
        trainer = trainer_of(folder, max_steps=steps, restore_callback_states_from_checkpoint=True)
        attach(trainer, train.make(folder))
        trainer.train(resume_from_checkpoint=steps == 4)
    assert noted(folder, "notes") == due(folder, 0, 8)


SAMPLERS = {
    "mixture": lambda: de.samplers.mixture({"a": 60, "b": 36}, weights={"a": 1, "b": 2}, **KEYS),
    "shuffled": lambda: de.samplers.shuffled(train.SAMPLES, **KEYS),
    "token_budget": lambda: de.samplers.token_budget(
        de.samplers.shuffled(train.SAMPLES, **KEYS), lengths=[4 + i % 12 for i in range(96)], max_tokens=48
    ),
}
KEYS = {"batch_size": train.BATCH_SIZE, "seed": 1, "steps": 24}


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_resumes(folder, name):
    for steps in (4, 6):
        sampler = SAMPLERS[name]()
        trainer = trainer_of(folder, max_steps=steps, gradient_accumulation_steps=1)
        attach(trainer, sampler)
        trainer.train(resume_from_checkpoint=steps == 6)
    assert noted(folder, "notes") == [(train.SEQLEN(step), sorted(sampler[step])) for step in range(6)]


def test_other_weights_of_a_mixture_are_resumed(folder):
    trainer, sampler = trainer_of(folder, max_steps=4), SAMPLERS["mixture"]()
    sampler.reweigh({"a": 1, "b": 0}, step=0)
    attach(trainer, sampler)
    trainer.train()
    resumed = SAMPLERS["mixture"]()
    trainer = trainer_of(folder, max_steps=6)
    attach(trainer, resumed)
    trainer.train(resume_from_checkpoint=True)
    assert resumed.state_dict(8) == sampler.state_dict(8)
    assert [ids for _, ids in noted(folder, "notes")[8:]] == [sorted(resumed[step]) for step in range(8, 12)]


def test_the_loader_keeps_what_the_arguments_say(folder):
    trainer = trainer_of(
        folder, dataloader_num_workers=2, dataloader_prefetch_factor=3, dataloader_persistent_workers=True
    )
    own = trainer.get_train_dataloader()
    attach(trainer, train.make(folder))
    loader = trainer.get_train_dataloader()
    for name in ("num_workers", "prefetch_factor", "persistent_workers", "pin_memory", "worker_init_fn"):
        assert repr(getattr(loader, name)) == repr(getattr(own, name))
    assert (loader.num_workers, loader.prefetch_factor, loader.persistent_workers) == (2, 3, True)


@pytest.mark.parametrize("workers", [0, 2])
def test_unused_columns_are_left_out_and_the_collator_sees_the_step(folder, workers):
    from datasets import Dataset

    def collate(samples):
        assert {name for sample in samples for name in sample} == {"input_ids"}
        return {
            "input_ids": torch.tensor([sample["input_ids"].tolist() for sample in samples]),
            "step": samples.batch.step,
        }

    rows = Dataset.from_list([{**row, "input_ids": row["input_ids"].tolist()} for row in train.ROWS])
    for dataset in (train.ROWS, rows.with_format("torch")):
        trainer = trainer_of(folder, dataset=dataset, collator=collate, dataloader_num_workers=workers)
        sampler = train.make(folder)
        attach(trainer, sampler)
        seen = [(b["step"], b["input_ids"][:, 0].tolist()) for b in trainer.get_train_dataloader()]
        assert seen == [(step, sampler[step]) for step in range(train.STEPS)]


def refused(folder, message, sampler=None, *, dataset=train.ROWS, **others):
    with pytest.raises(ValueError, match=message):
        attach(trainer_of(folder, dataset=dataset, **others), sampler or train.make(folder))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "train_sampling_strategy",
            "group_by_length",
            "is 'group_by_length'; expected 'random': the sampler",
        ),
        ("auto_find_batch_size", True, "is True; expected False: the batch size is the sampler's"),
        ("ignore_data_skip", True, "is True; expected False: a resumed run would begin with the first batch"),
        ("dataloader_in_order", False, "is False; expected True: a checkpoint knows the last step"),
        (
            "num_train_epochs",
            3,
            r"is 3, but the sampler's 32 batches are the whole run; set max_steps=16, or",
        ),
        ("max_steps", 17, "is 17, but the sampler's 32 batches are enough for 16; set max_steps=16, or make"),
        ("per_device_train_batch_size", 8, r"is 8, on 1 processes \(gradient_accumulation_steps do not"),
    ],
)
def test_arguments_that_contradict_the_sampler_are_refused(folder, name, value, message):
    refused(folder, f"{name} {message}", **{name: value})


def test_samplers_that_cannot_serve_are_refused(folder):
    refused(
        folder,
        "batch_size is 8; expected 4, what a micro-step takes: per_device_train_batch_size is 4, on 1 pro",
        de.samplers.shuffled(96, batch_size=8, seed=1),
    )
    refused(
        folder,
        "the sampler is of rank 1 of 2, this process is 0 of 1; make the sampler after the TrainingArguments",
        train.make(folder, rank=1, world_size=2),
    )
    refused(
        folder,
        "the sampler is importance, which needs the losses of its samples; write the loop with Accelerate",
        de.samplers.importance(96, batch_size=4, seed=1, epochs=2),
    )


class Stream(IterableDataset):
    def __iter__(self):
        yield from train.ROWS


@pytest.mark.parametrize(("dataset", "name"), [(Stream(), "Stream"), (None, "NoneType")])
def test_a_dataset_without_ids_is_refused(folder, dataset, name):
    refused(folder, f"train_dataset is a {name}; expected a map-style dataset", dataset=dataset, max_steps=3)


def test_a_checkpoint_of_other_batches_is_refused(folder):
    trainer = trainer_of(folder, max_steps=2)
    attach(trainer, train.make(folder))
    trainer.train()

    def resume(sampler, **others):
        trainer = trainer_of(folder, max_steps=4, **others)
        attach(trainer, sampler)
        trainer.train(resume_from_checkpoint=True)

    with pytest.raises(ValueError, match="the state is of source curriculum .*, this sampler of 96 samples;"):
        resume(de.samplers.shuffled(96, batch_size=4, seed=3))
    with pytest.raises(
        ValueError,
        match="gradient_accumulation_steps is 1, which makes 2 batches of 2 steps; the checkpoint was saved "
        "after 4 batches: resume with the gradient_accumulation_steps that it was saved with",
    ):
        resume(train.make(folder), gradient_accumulation_steps=1)


def test_a_checkpoint_without_a_sampler_is_refused(folder):
    def plain(samples):
        ids = torch.stack([sample["input_ids"] for sample in samples])
        return {"input_ids": ids, "labels": ids}

    trainer_of(folder, max_steps=2, collator=plain).train()
    trainer = trainer_of(folder, max_steps=4)
    attach(trainer, train.make(folder))
    with pytest.raises(ValueError, match=r"step 2 holds no sampler's state: .*without attach\(trainer, samp"):
        trainer.train(resume_from_checkpoint=True)


def examples(page):
    """What a page shows with these packages, below what its examples share."""
    shared, *others = re.findall(r"^```py(?:thon)?\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [
        shared,
        *(code for code in others if re.search(r"^from (accelerate|transformers)", code, re.MULTILINE)),
    ]


@pytest.mark.parametrize("page", ["plugins/dataeff-transformers/README.md", "docs/loops.md"])
@pytest.mark.filterwarnings("default")
def test_the_examples_run_and_resume(tmp_path, monkeypatch, page):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        scope = {"__name__": "__main__"}
        for code in examples(HERE.parents[2] / page):
            exec(compile(code, page, "exec"), scope)  # noqa: S102
