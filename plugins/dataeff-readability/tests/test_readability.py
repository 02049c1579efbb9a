import pickle
import socket

import dataeff as de
import numpy as np
import pytest
import textstat
from tokenizers import Tokenizer, models, pre_tokenizers

from dataeff_readability import flesch

SEUSS = "I do not like them in a box. I do not like them with a fox. I do not like them, Sam I am."
NEWS = "The council met on Tuesday to discuss the new library. Most members supported the proposal."
LEGAL = (
    "Notwithstanding anything to the contrary contained herein, the indemnifying party shall, subject to the "
    "limitations hereinafter enumerated, reimburse the indemnified party for reasonable expenditures "
    "necessarily incurred in connection with the investigation of any administrative proceeding."
)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("the metric went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_harder_text_is_higher():
    values = flesch()([LEGAL, SEUSS, NEWS])
    assert values.dtype == np.float64
    assert values.argsort().tolist() == [1, 2, 0]


@pytest.mark.parametrize("text", [SEUSS, NEWS, LEGAL, "naïve café, 1948"])
def test_it_is_100_minus_what_textstat_gives(text):
    assert flesch()([text])[0] == 100 - textstat.flesch_reading_ease(text)


@pytest.mark.parametrize("text", ["", " ", "... !? -", "\n\n"])
def test_a_sample_without_a_word_has_0(text):
    assert flesch()([text]).tolist() == [0.0]


def test_any_bytes_have_a_finite_value():
    rng = np.random.default_rng(0)
    samples = [rng.integers(0, 256, size, dtype=np.uint8) for size in range(300)]
    samples += [np.frombuffer("日本語のテキスト。".encode()[:-1], np.uint8), np.full(50_000, ord("x"))]
    assert np.isfinite(flesch()(samples)).all()


@pytest.mark.parametrize("wrong", [256, -1])
def test_a_token_that_is_no_byte_asks_for_decode(wrong):
    with pytest.raises(ValueError, match=rf"token id {wrong} is no byte; .* flesch\(tokenizer.decode\)"):
        flesch()([[65, wrong]])


def test_decode_must_be_a_function():
    with pytest.raises(ValueError, match="decode is 'gpt2'; expected a function from token ids to text"):
        flesch("gpt2")


@pytest.fixture
def tokenizer():
    words = {word: number for number, word in enumerate(dict.fromkeys(f"{SEUSS} {LEGAL}".split()))}
    made = Tokenizer(models.WordLevel(words, unk_token="I"))  # noqa: S106
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


def test_tokens_are_decoded_by_the_function_given(tokenizer):
    samples = [tokenizer.encode(text).ids for text in (SEUSS, LEGAL)]
    assert flesch(tokenizer.decode)(samples).tolist() == flesch()([SEUSS, LEGAL]).tolist()


def upper(ids):
    return bytes(ids).decode().upper()


def test_it_prints_without_addresses(tokenizer):
    assert de.metrics.identity(flesch()).startswith("flesch(decode=None) of code ")
    assert de.metrics.identity(flesch(upper)).startswith(f"flesch(decode={__name__}.upper) of code ")
    said = de.metrics.identity(flesch(tokenizer.decode))
    assert said.startswith("flesch(decode=tokenizers.Tokenizer.decode) of code ")


def test_it_compares_and_pickles(tokenizer):
    assert flesch(upper) == pickle.loads(pickle.dumps(flesch(upper)))  # noqa: S301
    sample = [tokenizer.encode(LEGAL).ids]
    sent = pickle.loads(pickle.dumps(flesch(tokenizer.decode)))  # noqa: S301
    assert sent(sample) == flesch(tokenizer.decode)(sample)


def test_an_index_is_built_with_it_by_name(tmp_path):
    index = de.index.build([LEGAL, SEUSS, NEWS], ["flesch"], out=tmp_path / "idx", progress=False)
    assert index.order("flesch").tolist() == [1, 2, 0]
    assert index.values("flesch").tolist() == flesch()([LEGAL, SEUSS, NEWS]).tolist()
