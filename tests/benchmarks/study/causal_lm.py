"""A causal language model, fine-tuned: SmolLM2 on one half of the film reviews."""

import json
import math
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import nn
from torch.nn import functional

import dataeff as de
from tests import realdata
from tests.benchmarks.study import _text
from tests.benchmarks.study._recipe import Recipe, parts, shortened
from tests.benchmarks.study._train import Forward, Setup


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
    dataset, rows = corpus.dataset(), held_out.dataset()
    finished, measured = (
        torch.stack([rows[i * len(rows) // wanted] for i in range(wanted)]).to(device)  # evenly over all
        for wanted in (own.finished_on, own.measured_on)
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

    def losses(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = model(input_ids=batch["input_ids"], use_cache=False).logits
        return functional.cross_entropy(
            logits.flatten(0, 1).float(), batch["labels"].flatten(), reduction="none"
        )

    def forward(ids: Any) -> Forward:
        windows = torch.stack([dataset[i] for i in ids]).to(device)
        batch = shortened(_pair(windows), whole.run, ids.step)
        tokens = int((batch["labels"] >= 0).sum())
        return Forward(losses(batch).sum() / tokens, samples=len(ids), tokens=tokens)

    @torch.no_grad()
    def measure(windows: torch.Tensor) -> dict[str, float]:
        model.eval()
        nats = sum(float(losses(_pair(part)).sum()) for part in windows.split(4))
        model.train()
        loss = nats / windows[:, 1:].numel()
        return {
            "validation_loss": loss,
            "perplexity": math.exp(loss),
            "bits_per_byte": loss / math.log(2) / text.bytes_per_token,
        }

    return Setup(
        model=model,
        optimizer=whole.optimizer,
        run=whole.run,
        forward=forward,
        measure=lambda: measure(measured),
        finish=lambda: measure(finished),
        cost=whole.cost,
        evaluations=own.evaluations,
        values={
            "index_seconds": round(whole.index_seconds, 2),
            "parameters": sum(p.numel() for p in model.parameters()),
        },
    )


def _pair(windows: torch.Tensor) -> dict[str, torch.Tensor]:
    """(B, S + 1) ids to S inputs and S targets."""
    return {"input_ids": windows[:, :-1], "labels": windows[:, 1:]}


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
    if not (folder / "text.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        texts = [row["text"] for row in realdata.labelled_reviews()]
        _write([text for text in texts if not _text.is_held_out(text, 2)], folder / "train")
        sizes = _write([text for text in texts if _text.is_held_out(text, 50)], folder / "held_out")
        (folder / "text.json").write_text(json.dumps(sizes))
    text_bytes, tokens = json.loads((folder / "text.json").read_text())
    train, held_out = (de.corpus.open(folder / part, format="megatron") for part in ("train", "held_out"))
    return _text.Text(folder, 49152, train, held_out, text_bytes / tokens)


def _write(texts: list[str], path: Path) -> tuple[int, int]:
    """Texts, each with an end, as Megatron's files. Gives their bytes of UTF-8 and their tokens."""
    from transformers import AutoTokenizer

    model = realdata.smollm2()
    tokenizer = AutoTokenizer.from_pretrained(model.parent, gguf_file=model.name)
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    samples = [np.asarray([*ids, end], np.uint16) for ids in tokenizer(texts)["input_ids"]]
    de.corpus.from_samples(samples).write(path, "megatron", dtype="uint16")
    return sum(len(text.encode()) for text in texts), sum(map(len, samples))
