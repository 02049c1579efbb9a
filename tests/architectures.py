"""Small models of any architecture, and what it means to route one: each row alone, with its own tokens."""

import functools
import inspect
import itertools

import torch
import transformers
from torch import nn

transformers.logging.set_verbosity_error()
BATCH, SEQ = 3, 11
SMALL = {
    "vocab_size": 61,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    **dict.fromkeys(
        (
            "attention_dropout",
            "hidden_dropout",
            "hidden_dropout_prob",
            "attention_probs_dropout_prob",
            "embd_pdrop",
            "attn_pdrop",
            "resid_pdrop",
            "dropout",
            "dropout_rate",
            "activation_dropout",
        ),
        0.0,
    ),
}
TEXT = {"attention_mask": (-2, -1), "position_ids": -1, "position_embeddings": 1}


def hf(model_type, *, auto="AutoModel", **options):
    """A small model of a type of transformers, with random weights and without dropout."""
    usual = transformers.AutoConfig.for_model(model_type)
    known = {name: value for name, value in SMALL.items() if hasattr(usual, name)}
    config = transformers.AutoConfig.for_model(model_type, **(known | options))
    torch.manual_seed(0)
    return drawn(getattr(transformers, auto).from_config(config))


def drawn(model):
    """The model in float64, in training mode, with weights so large that attention is not nearly even."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.3)
    return model.double().train()


def generator():
    return torch.Generator().manual_seed(1)


def tokens(batch=BATCH, seq=SEQ):
    return torch.randint(1, 61, (batch, seq), generator=generator())


def floats(*shape):
    return torch.randn(shape, generator=generator(), dtype=torch.float64)


def padded(side):
    """Token ids and their mask, as a tokenizer gives them."""
    lengths = torch.tensor([SEQ, 7, 4])[:, None]
    mask = torch.arange(SEQ) < lengths if side == "right" else torch.arange(SEQ) >= SEQ - lengths
    return {"input_ids": tokens() * mask, "attention_mask": mask.long()}


TEXTS = {
    "whole": lambda: {"input_ids": tokens()},
    "padded right": lambda: padded("right"),
    "padded left": lambda: padded("left"),
}
SEQ2SEQ = {
    name: lambda make=make: make() | {"decoder_input_ids": tokens(BATCH, 9)} for name, make in TEXTS.items()
}
IMAGES = {"images": lambda: {"pixel_values": floats(BATCH, 3, 16, 16)}}
T5_AXES = {"attention_mask": (-2, -1), "position_bias": (-2, -1), "encoder_attention_mask": -2,
           "encoder_decoder_position_bias": -2}  # fmt: skip


def hidden_of(output):
    if isinstance(output, torch.Tensor):
        return output
    return next(value for value in output.values() if isinstance(value, torch.Tensor))


def run(model, given):
    """The output, and the gradients of all parameters."""
    model.zero_grad()
    out = hidden_of(model(**given))
    out.sin().sum().backward()
    return out.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def row_of(value, b, own, axes, seq):
    """What an argument is for row `b` and its own of `seq` tokens; without a batch axis it is everybody's.

    One that is shorter has no entries for the first of them.
    """
    if isinstance(value, tuple | list):
        return tuple(row_of(each, b, own, axes, seq) for each in value)
    if isinstance(value, dict):
        return {name: row_of(each, b, own, axes, seq) for name, each in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    axes = (axes,) if isinstance(axes, int) else axes
    axes = [axis % value.dim() for axis in axes]
    if value.dim() == 2 and len(value) == BATCH:  # (B, S)
        axes = [axis for axis in axes if axis]
    for axis in axes:
        short = seq - value.shape[axis]
        value = value.index_select(axis, own[short:] - short) if value.shape[axis] > 1 else value
    if 0 in axes or value.shape[0] == 1:
        return value
    each = value.shape[0] // BATCH if value.shape[0] % BATCH == 0 else 1
    return value[b * each : (b + 1) * each]


def by_documents(forward, given, own):
    """Hidden states (S, C) of packed documents: each document alone, on its own of the tokens `own`."""
    first, hidden = next(iter(given.items()))
    bounds = next(name for name in given if "cu_seq" in name)
    merged = hidden.clone()
    for begin, end in itertools.pairwise(given[bounds].tolist()):
        mine = own[(own >= begin) & (own < end)]
        if len(mine):
            more = {
                name: of_tokens(value, mine, len(hidden)) for name, value in given.items() if name != first
            }
            more[bounds] = given[bounds].new_tensor([0, len(mine)])
            out = forward(hidden[mine], **more)
            merged = merged.index_copy(0, mine, out if isinstance(out, torch.Tensor) else out[0])
    return merged


def of_tokens(value, own, seq):
    """An argument of packed tokens: its entries for `own`, if it has one for each of `seq`."""
    if isinstance(value, tuple | list):
        return tuple(of_tokens(each, own, seq) for each in value)
    return value[own] if isinstance(value, torch.Tensor) and value.dim() > 1 and len(value) == seq else value


def alone(layer, calls, axes):
    """A layer's forward that runs each row alone, on its own tokens of each call, and puts them back.

    `axes` are the token axes of its arguments, by name.
    """
    forward, names, calls = layer.forward, list(inspect.signature(layer.forward).parameters), iter(calls)

    @functools.wraps(forward)
    def by_rows(*args, **kwargs):
        given = dict(zip(names, args, strict=False)) | kwargs
        first, hidden = next(iter(given.items()))
        if hidden.dim() == 2:
            return by_documents(forward, given, next(calls)[0].long())
        rows = []
        for b, own in enumerate(next(calls).long().expand(len(hidden), -1)):
            mine = {
                name: None
                if "past" in name or name == "cache"
                else row_of(value, b, own, axes.get(name, ()), hidden.shape[1])
                for name, value in given.items()
                if name != first
            }
            mine |= {"use_cache": False} if "use_cache" in mine else {}
            out = forward(hidden[b, own][None], **mine)
            row = hidden[b].clone()
            row[own] = (out if isinstance(out, torch.Tensor) else out[0])[0]
            rows.append(row)
        merged = torch.stack(rows)
        biases = [given.get(name) for name in ("position_bias", "encoder_decoder_position_bias")]  # of T5
        return merged if isinstance(out, torch.Tensor) else (merged, *biases[: len(out) - 1])

    layer.forward = by_rows
