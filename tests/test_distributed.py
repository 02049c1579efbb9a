"""Processes with DDP take the steps of one process with the whole batch, also when they are killed."""

import itertools
import subprocess
import sys

import torch

SCRIPT = """
import sys
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
import dataeff as de
from dataeff.demo._model import GPT

folder, rank, world_size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if world_size > 1:
    distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=world_size)
torch.manual_seed(0)
gpt = GPT(vocabulary=32, length=12, width=16, heads=2, layers=4).double()
model = DistributedDataParallel(gpt) if world_size > 1 else gpt
route = de.routing.attach(gpt, keep=de.pacing.linear(4, 12, steps=4, multiple=2), seed=7)
corpus = de.corpus.open([[(i * 7 + j) % 32 for j in range(13)] for i in range(40)])
index = de.index.open(f"{folder}/index")
curriculum = de.Curriculum(index, {"m": de.paced(de.pacing.linear(20, 40, steps=4))})
sampler = de.samplers.curriculum(curriculum, batch_size=8, seed=3)
optimizer = torch.optim.SGD(gpt.parameters(), lr=0.1)
trained, kept = [], []
for ids in sampler:
    route.step = ids.step
    batch = torch.stack([corpus.dataset()[i] for i in ids])
    logits = model(batch[:, :-1])
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
    optimizer.step()
    optimizer.zero_grad()
    trained.append(list(ids))
    kept.append(route.kept()["blocks.1"].tolist())
mask = (torch.arange(16) < 3 + 6 * rank).long()[None]  # 3 tokens on the first rank, 9 on the second
trimmed = de.transforms.trim_to_longest({"input_ids": mask, "attention_mask": mask}, multiple=4)
assert trimmed["input_ids"].shape[1] == (12 if world_size > 1 else 4)
torch.save([trained, kept, gpt.state_dict()], f"{folder}/{world_size}-{rank}.pt")
"""


def test_two_processes_take_the_steps_of_one(tmp_path):
    import dataeff as de

    de.index.from_values({"m": range(40)}, out=tmp_path / "index")
    runs = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path), str(rank), str(world_size)])
        for rank, world_size in [(0, 1), (0, 2), (1, 2)]
    ]
    assert [run.wait() for run in runs] == [0, 0, 0]
    whole, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    for i in (0, 1):  # the samples, then the tokens that each row kept
        assert [a + b for a, b in zip(first[i], second[i], strict=True)] == whole[i]
    for name, weight in whole[2].items():
        assert torch.equal(first[2][name], second[2][name])
        torch.testing.assert_close(first[2][name], weight, rtol=1e-10, atol=1e-12)


ELASTIC = """
import os, sys
from pathlib import Path
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
import dataeff as de

corpus = de.corpus.open([[(i * 7 + j) % 32 for j in range(17)] for i in range(60)])
seqlen = de.pacing.linear(4, 16, steps=16, multiple=2)

def collate(samples):
    step = samples.batch.step
    return step, list(samples.batch), de.transforms.truncate(torch.stack(samples), seqlen(step) + 1)

def main():
    folder, lost_at = Path(sys.argv[1]), int(sys.argv[2])
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    pace = de.paced(de.pacing.linear(20, 60, steps=18))
    curriculum = de.Curriculum(de.index.open(folder / "index"), {"m": pace})
    sampler = de.samplers.curriculum(curriculum, batch_size=6, seed=3)

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(32, 8), torch.nn.Linear(8, 32)).double()
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if (folder / "checkpoint.pt").exists():
        checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
        for name, part in (("model", model), ("optimizer", optimizer), ("sampler", sampler)):
            part.load_state_dict(checkpoint[name])

    options = {"num_workers": 2, "multiprocessing_context": "forkserver"}  # a fork may copy a lock of gloo's
    loader = DataLoader(corpus.dataset(), batch_sampler=sampler, collate_fn=collate, **options)
    for step, ids, tokens in loader:
        logits = parallel(tokens[:, :-1])
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        if step == lost_at:
            os.killpg(0, 9)  # in the middle of the step, with the processes that load its data
        optimizer.step()
        optimizer.zero_grad()
        with open(folder / f"{distributed.get_world_size()}-{rank}.txt", "a") as file:
            print(step, tokens.shape[1] - 1, *ids, file=file)
        if rank == 0:
            checkpoint = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(checkpoint | {"sampler": sampler.state_dict(step + 1)}, folder / "beside.pt")
            os.replace(folder / "beside.pt", folder / "checkpoint.pt")
    distributed.destroy_process_group()

if __name__ == "__main__":
    main()
"""


def torchrun(script, processes, *words):
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.Popen([sys.executable, *command, script, *map(str, words)])


def trained(folder, processes):
    """(step, length, *ids) of each step, the ids of all ranks one after the other."""
    ranks = [(folder / f"{processes}-{rank}.txt").read_text().splitlines() for rank in range(processes)]
    for lines in zip(*ranks, strict=True):
        parts = [[int(word) for word in line.split()] for line in lines]
        assert len({tuple(part[:2]) for part in parts}) == 1
        yield [*parts[0][:2], *itertools.chain.from_iterable(part[2:] for part in parts)]


def test_a_run_that_is_killed_and_resumed_on_other_processes_takes_the_steps_of_one(tmp_path):
    """Two processes, killed at step 7; one, killed at step 12; three. And one that was never killed."""
    import dataeff as de

    lost, never = tmp_path / "lost", tmp_path / "never"
    for folder in (lost, never):
        de.index.from_values({"m": range(60)}, out=folder / "index")
    (tmp_path / "train.py").write_text(ELASTIC)
    whole = torchrun(tmp_path / "train.py", 1, never, -1)
    for processes, lost_at in ((2, 7), (1, 12), (3, -1)):
        assert (torchrun(tmp_path / "train.py", processes, lost, lost_at).wait() == 0) == (lost_at < 0)
    assert whole.wait() == 0

    cl = de.Curriculum(de.index.open(lost / "index"), {"m": de.paced(de.pacing.linear(20, 60, steps=18))})
    sampler = de.samplers.curriculum(cl, batch_size=6, seed=3)
    seqlen = de.pacing.linear(4, 16, steps=16, multiple=2)
    due = [[step, seqlen(step), *sampler.global_batch(step)] for step in range(18)]
    assert list(trained(never, 1)) == due
    assert [list(trained(lost, processes)) for processes in (2, 1, 3)] == [due[:7], due[7:12], due[12:]]
    resumed, uninterrupted = (torch.load(folder / "checkpoint.pt") for folder in (lost, never))
    assert resumed["sampler"] == uninterrupted["sampler"] == sampler.state_dict(18)
    for name, weight in uninterrupted["model"].items():
        torch.testing.assert_close(resumed["model"][name], weight, rtol=1e-10, atol=1e-12)
