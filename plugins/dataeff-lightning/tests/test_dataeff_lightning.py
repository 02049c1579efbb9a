import re
import subprocess
import sys
from pathlib import Path

import dataeff as de
import pytest
import torch
import train
from lightning.pytorch import Callback
from lightning.pytorch.tuner import Tuner
from torch.utils.data import DataLoader

from dataeff_lightning import SamplerLoader, SamplerState

HERE = Path(__file__).parent


@pytest.fixture
def folder(tmp_path):
    de.index.from_values({"m": range(train.SAMPLES)}, out=tmp_path / "index")
    return tmp_path


def torchrun(processes, *words):
    """Exit status of train.py under torchrun."""
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    words = [HERE / "train.py", *map(str, words)]
    return subprocess.run([sys.executable, *command, *words], check=False, timeout=900).returncode


def noted(folder, run, processes=1):
    """(length, sorted ids) of each step, put together from all ranks."""
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
    """Two processes, killed after 10 batches; one, lost after 19; two again. Checkpoints are every 4."""
    assert torchrun(2, folder, "first", 10)
    assert noted(folder, "first", 2) == due(folder, 0, 10)
    with pytest.raises(RuntimeError, match="lost"):
        train.main(folder, "second", 19)
    assert noted(folder, "second") == due(folder, 8, 19)
    assert torchrun(2, folder, "third", -1) == 0
    assert noted(folder, "third", 2) == due(folder, 16, train.STEPS)

    (folder / "saved").rename(folder / "interrupted")
    train.main(folder, "whole", -1)
    assert noted(folder, "whole") == due(folder, 0, train.STEPS)
    resumed, whole = (torch.load(folder / f"{run}.pt") for run in ("third", "whole"))
    for name, weight in whole.items():
        torch.testing.assert_close(resumed[name], weight, rtol=1e-4, atol=1e-6)

    for rank in (0, 1):
        assert "set `Trainer(use_distributed_sampler=False)`" in (folder / f"divided-{rank}.txt").read_text()


def fit(folder, sampler=None, *, workers=2, resume=None, **others):
    trainer = train.trainer_of(folder, **others)
    trainer.fit(train.Model(folder, "notes", sampler, workers), ckpt_path=resume)
    return trainer


def test_a_checkpoint_holds_the_state_of_the_step_that_training_reached(folder):
    sampler = train.make(folder)
    fit(folder, sampler, max_steps=6, max_epochs=-1)
    for update in (2, 4, 6):
        checkpoint = torch.load(folder / f"saved/step={update}.ckpt", weights_only=True)
        assert checkpoint["callbacks"]["SamplerState"] == sampler.state_dict(update * train.ACCUMULATION)
    assert sampler.step > 6 * train.ACCUMULATION  # the loader had asked for more


def test_a_batch_that_failed_is_trained_on_again(folder):
    of = {"saves": "failed", "when": {"save_on_exception": True}}
    with pytest.raises(RuntimeError, match="lost"):
        fit(folder, lost_after=6, **of)
    fit(folder, resume=folder / "saved/failed.ckpt", **of)
    assert noted(folder, "notes") == due(folder, 0, train.STEPS)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_may_be_a_part_of_the_sampler(folder, workers):
    """Epochs of 10 batches, the last of 2; resumed in the middle of one and at its end."""
    of = {"limit_train_batches": 10, "max_epochs": 9, "workers": workers, "when": {"every_n_train_steps": 1}}
    trainer = fit(folder, **of)
    assert noted(folder, "notes") == due(folder, 0, train.STEPS)
    assert (trainer.current_epoch, trainer.global_step) == (4, 16)  # and not 9 epochs
    for update in (4, 5, 8, 10):
        (folder / "notes-0.txt").unlink()
        trainer = fit(folder, resume=folder / f"saved/step={update}.ckpt", **of)
        assert noted(folder, "notes") == due(folder, update * train.ACCUMULATION, train.STEPS)
        assert (trainer.current_epoch, trainer.global_step) == (4, 16)


def test_a_checkpoint_of_the_end_of_an_epoch_goes_on_with_the_next(folder):
    when = {"save_on_train_epoch_end": True}
    of = {"limit_train_batches": 10, "max_epochs": 9, "saves": "{epoch}", "when": when}
    fit(folder, **of)
    for epoch, step in enumerate((10, 20, 30)):
        (folder / "notes-0.txt").unlink()
        fit(folder, resume=folder / f"saved/epoch={epoch}.ckpt", **of)
        assert noted(folder, "notes") == due(folder, step, train.STEPS)


def test_a_run_that_is_done_stays_done(folder):
    fit(folder)
    assert fit(folder, resume=train.last(folder), max_epochs=3).global_step == 16
    assert noted(folder, "notes") == due(folder, 0, train.STEPS)


def test_a_loader_may_be_made_anew_each_epoch(folder):
    fit(folder, limit_train_batches=9, max_epochs=9, reload_dataloaders_every_n_epochs=1)
    assert noted(folder, "notes") == due(folder, 0, train.STEPS)


def test_a_trainer_may_fit_again(folder):
    trainer = train.trainer_of(folder, max_steps=3, max_epochs=-1)
    model = train.Model(folder, "notes")
    trainer.fit(model)
    trainer.fit_loop.epoch_loop.max_steps = 5
    trainer.fit(model)
    assert noted(folder, "notes") == due(folder, 0, 10)


class Saving(Callback):
    """Saves after some batch, from the hook in which batches are counted."""

    def __init__(self, path, after):
        self.path, self.after = path, after

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx + 1 == self.after:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("first", [False, True])
def test_a_callback_may_save_before_or_after(folder, first):
    trainer = train.trainer_of(folder)
    trainer.callbacks.insert(0 if first else 1, Saving(folder / "own.ckpt", after=8))
    trainer.fit(train.Model(folder, "notes"))
    saved = torch.load(folder / "own.ckpt", weights_only=True)["callbacks"]["SamplerState"]
    assert saved == train.make(folder).state_dict(8)


def test_a_callback_begins_anew_in_another_trainer(folder):
    state = SamplerState()
    for run, resume, start in (("a", None, 0), ("b", None, 0), ("c", folder / "saved/step=2.ckpt", 4)):
        trainer = train.trainer_of(folder, max_steps=3, max_epochs=-1)
        trainer.callbacks = [state, *trainer.callbacks[1:]]
        trainer.fit(train.Model(folder, run), ckpt_path=resume)
        assert noted(folder, run) == due(folder, start, 6)


@pytest.mark.parametrize(
    ("minimum", "batches", "said"),
    [
        (
            {"min_steps": 50, "max_epochs": -1},
            0,
            "min_steps is 50, but the sampler's 32 batches are enough for 32",
        ),
        (
            {"min_steps": 20, "max_epochs": -1},
            32,
            "min_steps is 20, but the sampler's 32 batches are enough for 16",
        ),
        (
            {"min_epochs": 5, "max_epochs": 9},
            0,
            "min_epochs is 5, but the sampler's 32 batches are enough for 1; low",
        ),
    ],
)
def test_a_sampler_that_is_too_short_for_the_trainer_is_refused(folder, minimum, batches, said):
    (folder / "notes-0.txt").touch()
    with pytest.raises(ValueError, match=said):
        fit(folder, **minimum)
    assert len(noted(folder, "notes")) == batches


def test_least_epochs_that_the_sampler_has_are_taken(folder):
    trainer = fit(folder, limit_train_batches=10, min_epochs=4, min_steps=16, max_epochs=-1)
    assert (trainer.current_epoch, trainer.global_step) == (4, 16)


def test_a_rate_is_found_with_a_plain_loader(folder):
    trainer, model = train.trainer_of(folder, default_root_dir=folder), train.Model(folder, "notes")
    plain = DataLoader(
        de.corpus.with_batch(train.ROWS), batch_sampler=train.make(folder), collate_fn=train.collate
    )
    Tuner(trainer).lr_find(model, train_dataloaders=plain, num_training=5, update_attr=False)
    (folder / "notes-0.txt").unlink()
    trainer.fit(model)
    assert noted(folder, "notes") == due(folder, 0, train.STEPS)


KEYS = {"batch_size": train.BATCH_SIZE, "seed": 1, "steps": 24}
SAMPLERS = {
    "mixture": lambda: de.samplers.mixture({"a": 60, "b": 36}, weights={"a": 1, "b": 2}, **KEYS),
    "shuffled": lambda: de.samplers.shuffled(train.SAMPLES, **KEYS),
    "token_budget": lambda: de.samplers.token_budget(
        de.samplers.shuffled(train.SAMPLES, **KEYS), lengths=[4 + i % 12 for i in range(96)], max_tokens=48
    ),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_resumes(folder, name):
    fit(folder, SAMPLERS[name](), max_steps=4, max_epochs=-1)
    sampler = SAMPLERS[name]()
    fit(folder, sampler, resume=train.last(folder))
    assert noted(folder, "notes") == [
        (train.SEQLEN(step), sorted(sampler[step])) for step in range(len(sampler))
    ]


def test_a_checkpoint_of_other_batches_is_refused(folder):
    fit(folder, max_steps=2, max_epochs=-1)
    with pytest.raises(ValueError, match="the state is of source curriculum .*, this sampler of 96 samples;"):
        fit(folder, de.samplers.shuffled(96, batch_size=4, seed=3), resume=train.last(folder))


def test_a_checkpoint_without_a_sampler_is_refused(folder):
    path = folder / "saved/step=2.ckpt"
    fit(folder, max_steps=2, max_epochs=-1)
    checkpoint = torch.load(path)
    del checkpoint["callbacks"]["SamplerState"]
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r"step 2 holds no sampler's state: .* without SamplerState\(\);"):
        fit(folder, resume=path)


def test_a_loader_without_the_callback_is_refused(folder):
    trainer = train.trainer_of(folder)
    trainer.callbacks = [each for each in trainer.callbacks if not isinstance(each, SamplerState)]
    with pytest.raises(
        ValueError,
        match=r"the loader has no step; add SamplerState\(\) to the callbacks of the Trainer. Tuner and Lear",
    ):
        trainer.fit(train.Model(folder, "notes"))


def test_another_loader_is_refused(folder):
    loader = DataLoader(de.corpus.with_batch(train.ROWS), batch_sampler=train.make(folder))
    with pytest.raises(ValueError, match="train dataloader is a DataLoader; expected a SamplerLoader"):
        train.trainer_of(folder).fit(train.Model(folder, "notes"), loader)


def test_samplers_that_cannot_serve_are_refused(folder):
    with pytest.raises(
        ValueError, match="is of rank 1 of 2, this process is 0 of 1; make the sampler in train_"
    ):
        fit(folder, train.make(folder, rank=1, world_size=2))
    with pytest.raises(ValueError, match="the sampler is importance, which needs the losses of its samples"):
        SamplerLoader(train.ROWS, de.samplers.importance(96, batch_size=4, seed=1, epochs=2))


def examples(page):
    """What a page shows with these packages, below what its examples share."""
    shared, *others = re.findall(r"^```py(?:thon)?\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [shared, *(code for code in others if re.search(r"^from (lightning)", code, re.MULTILINE))]


@pytest.mark.parametrize("page", ["plugins/dataeff-lightning/README.md", "docs/loops.md"])
@pytest.mark.filterwarnings("default")
def test_the_examples_run_and_resume(tmp_path, monkeypatch, page):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        scope = {"__name__": "__main__"}
        for code in examples(HERE.parents[2] / page):
            exec(compile(code, page, "exec"), scope)  # noqa: S102
