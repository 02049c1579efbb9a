"""A causal language model, fine-tuned: SmolLM2 on one half of the film reviews."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import nn

import dataeff as de
from tests import realdata
from tests.benchmarks import record
from tests.benchmarks.study import _next_token, _text
from tests.benchmarks.study._recipe import Recipe, parts
from tests.benchmarks.study._train import Setup

PACKED = True
"""Whether every sample is a full window."""


@attrs.frozen(kw_only=True)
class Settings(Recipe):
    """Of the recipe, the model and what is held out."""

    model: str = "smollm2"
    """Or "tiny": random weights, and the bytes of Python's documentation."""
    measured_on: int = 16
    """Held-out samples on the way, the same for all runs."""
    finished_on: int = 64
    """And at the end."""
    evaluations: int = 4


def setup(
    settings: dict[str, Any], arm: dict[str, Any], *, fraction: float, seed: int, data: Path, device: str
) -> Setup:
    """A run, ready to train."""
    own = Settings(**settings)
    tiny = own.model == "tiny"
    text = _text.load(data, source="python", vocabulary=256) if tiny else _halves(data)
    corpus, held_out = (part.windows(own.length + 1) for part in (text.train, text.held_out))
    measured, finished = (
        _next_token.held_out(held_out, many, device) for many in (own.measured_on, own.finished_on)
    )
    torch.manual_seed(seed)
    model = (_tiny(own.length) if tiny else _smollm2()).to(device).train()
    whole = parts(
        own,
        arm,
        fraction=fraction,
        seed=seed,
        model=model,
        example={"input_ids": measured[:1, :-1]},
        corpus=corpus,
        indexes=text.folder / f"index-{own.length}",
        device=device,
    )

    return _next_token.setup(
        model,
        lambda ids: model(input_ids=ids, use_cache=False).logits,
        whole,
        corpus=corpus,
        measured=measured,
        finished=finished,
        bytes_per_token=text.bytes_per_token,
        evaluations=own.evaluations,
        rows=4,
    )


def _smollm2() -> nn.Module:
    from transformers import LlamaForCausalLM

    path = realdata.smollm2()
    return LlamaForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)


def _tiny(length: int) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=256,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=length,
    )
    return LlamaForCausalLM(config)


def _halves(folder: Path) -> _text.Text:
    """The reviews as SmolLM2's tokens, made once: a half of them, and one in 50, which is of the other."""
    folder = folder / "reviews-smollm2"
    with _text.alone(folder):
        if not (folder / "text.json").exists():
            texts, encode = [row["text"] for row in realdata.labelled_reviews()], _encoder()
            _text.write([text for text in texts if not _text.is_held_out(text, 2)], folder / "train", encode)
            held_out = [text for text in texts if _text.is_held_out(text, 50)]
            sizes = _text.write(held_out, folder / "held_out", encode)
            record.put(folder / "text.json", json.dumps(sizes))
    text_bytes, tokens = json.loads((folder / "text.json").read_text())
    train, held_out = (de.corpus.open(folder / part, format="megatron") for part in ("train", "held_out"))
    return _text.Text(folder, 49152, train, held_out, text_bytes / tokens)


def _encoder() -> Callable[[str], Any]:
    """From a text to SmolLM2's tokens and its end."""
    from transformers import AutoTokenizer

    model = realdata.smollm2()
    tokenizer = AutoTokenizer.from_pretrained(model.parent, gguf_file=model.name)
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    return lambda text: np.asarray([*tokenizer(text)["input_ids"], end], np.uint16)
