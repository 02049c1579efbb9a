"""Two processes with DDP take the same step as one process with the whole batch."""

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
