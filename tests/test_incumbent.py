"""What is known to go wrong in the incumbent, one test each, that it does not here."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import dataeff as de
from dataeff import Curriculum, paced
from dataeff.corpus import with_batch
from dataeff.pacing import linear, root


def tree(folder):
    return {
        file: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()
    }


def make(index, **options):
    growing = Curriculum(index, {"loss": paced(root(1, 100, steps=40), by="percentile")})
    return de.samplers.curriculum(growing, **{"batch_size": 10, "seed": 1, "steps": 200} | options)


def test_a_resumed_run_draws_the_same_batches_whatever_the_global_generators_say(index):
    expected = [make(index)[step] for step in range(200)]
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    resumed = make(index)
    resumed.load_state_dict(make(index).state_dict(77))
    assert list(resumed) == expected[77:]


def test_an_old_checkpoint_resumes_after_many_epochs_since_no_file_is_written(index):
    before, sampler = tree(index.path), make(index)
    old = pickle.dumps(sampler.state_dict(3))
    expected = [sampler[step] for step in range(3, 200)]
    list(sampler)  # twenty epochs of the pool later
    resumed = make(index)
    resumed.load_state_dict(pickle.loads(old))  # noqa: S301
    assert list(resumed) == expected
    assert tree(index.path) == before


@pytest.mark.parametrize("workers", [0, 2])
def test_lengths_are_those_of_the_batch_s_own_step_however_far_the_loader_is_ahead(index, workers):
    seqlen = linear(4, 64, steps=50, multiple=4)

    def collate(samples):
        return de.transforms.truncate(torch.stack(samples), seqlen(samples.batch.step))

    options = {"prefetch_factor": 8, "num_workers": workers} if workers else {}
    dataset = with_batch(torch.zeros(100, 64))
    sampler = make(index)
    for step, batch in enumerate(DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, **options)):
        assert batch.shape == (10, seqlen(step))
        if workers and step == 20:
            assert sampler.step > 30  # ahead, and the checkpoint says where training is all the same
            assert sampler.state_dict(step + 1)["step"] == 21
            break


def test_a_metric_that_matches_nothing_is_an_error(index):
    with pytest.raises(ValueError, match="no sample is eligible at step 0: 'length' reaches value -3"):
        Curriculum(index, {"length": paced(-3)})
    with pytest.raises(ValueError, match="unknown name 'lenght' in the index .*; did you mean 'length'"):
        Curriculum(index, {"lenght": paced(3)})


@pytest.mark.parametrize("samples", [1, 2, 7, 99])
def test_fewer_samples_than_percentiles_have_a_pool_at_every_percentile(samples, tmp_path):
    index = de.index.from_values({"loss": np.arange(samples)}, out=tmp_path)
    for percentile in range(1, 101):
        pool = Curriculum(index, {"loss": paced(percentile, by="percentile")}).pool(0)
        assert len(pool) == -(-samples * percentile // 100)


def test_difficulties_may_be_fractions(tmp_path):
    index = de.index.from_values({"loss": [0.25, 0.125, 0.5]}, out=tmp_path)
    growing = Curriculum(index, {"loss": paced(linear(0.125, 0.5, steps=3))})
    assert [growing.pool(step).tolist() for step in range(4)] == [[1], [1, 0], [1, 0], [1, 0, 2]]


def test_batches_of_dicts_are_counted_by_their_samples(index):
    rows = [{"input_ids": torch.full((8,), i), "attention_mask": torch.ones(8), "id": i} for i in range(100)]
    sampler = make(index, steps=10)
    for step, batch in enumerate(DataLoader(with_batch(rows), batch_sampler=sampler)):
        assert batch["id"].tolist() == sampler[step]
        assert de.transforms.truncate(batch, 5)["input_ids"].shape == (10, 5)


def test_ids_beyond_those_that_float32_holds_are_exact():
    samples = 2**24 + 2**10
    sampler = de.samplers.shuffled(samples, batch_size=samples // 16, seed=1)
    counts = np.zeros(samples, np.int64)
    for batch in sampler:
        counts[batch] += 1
    assert (counts == 1).all()


def test_batches_by_tokens_use_the_last_sample_too():
    lengths = np.arange(1, 1001)
    stream = de.samplers.shuffled(1000, batch_size=50, seed=1)
    drawn = [i for batch in de.samplers.token_budget(stream, lengths=lengths, max_tokens=4096) for i in batch]
    assert sorted(drawn) == list(range(1000))


# Token dropping. In other files: recomputation cannot overwrite what was drawn (test_engines.py), masks are
# not cut as [:r, :r] and rotary positions go with their tokens (test_architectures.py), each dtype counts
# (test_ops.py), the learning rate of layer tokens is there (test_lr.py).


class Named(torch.nn.Module):
    """Blocks whose names are part of each other's, and of the model's."""

    def __init__(self, blocks=12, width=4):
        super().__init__()
        self.gpt2 = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(blocks))

    def forward(self, x):
        for block in self.gpt2:
            x = block(x)
        return x


def test_more_than_2048_tokens_are_kept_on_a_cpu_and_in_any_dtype():
    model = Named(3).to(torch.bfloat16)
    route = de.routing.attach(model, keep=2500, seed=1)
    model(torch.zeros(1, 3000, 4, dtype=torch.bfloat16))
    assert route.kept()["gpt2.1"].shape == (1, 2500)


def test_layers_are_the_modules_that_were_named_and_no_others():
    model = Named()
    route = de.routing.attach(model, keep=2, seed=1, layers=[model.gpt2[2]])
    model(torch.zeros(1, 5, 4))
    assert list(route.kept()) == ["gpt2.2"]


def test_a_checkpoint_has_the_names_of_the_model():
    model = Named()
    names = list(model.state_dict())
    de.routing.attach(model, keep=2, seed=1)
    assert list(model.state_dict()) == names


def test_layer_tokens_are_counted_at_the_length_that_a_curriculum_gives():
    model, seen = Named(), []
    route = de.routing.attach(model, keep=linear(2, 8, steps=4, multiple=2), seed=1)
    for block in model.gpt2:
        block.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[0] * args[0].shape[1]))
    for step in range(6):
        route.step, seqlen = step, int(linear(4, 10, steps=4, multiple=2)(step))
        seen.clear()
        model(de.transforms.truncate(torch.zeros(3, 12, 4), seqlen))
        assert sum(seen) == route.layer_tokens(3, seqlen)
