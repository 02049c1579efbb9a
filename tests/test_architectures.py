"""Routing on architectures of today. A new one is a row of the table."""

import copy

import attrs
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from dataeff.demo._model import GPT
from dataeff.pacing import linear
from dataeff.routers import random_ltd
from dataeff.routing import attach
from tests.architectures import (
    BATCH,
    IMAGES,
    SEQ,
    SEQ2SEQ,
    T5_AXES,
    TEXT,
    TEXTS,
    alone,
    floats,
    hf,
    hidden_of,
    run,
    tokens,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)


def torch_encoder(batch_first=True, norm_first=False):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0, batch_first=batch_first, norm_first=norm_first)
    return nn.TransformerEncoder(layer, 4, enable_nested_tensor=False).double().train()


def torch_decoder():
    torch.manual_seed(0)
    layer = nn.TransformerDecoderLayer(16, 2, 24, dropout=0.0, batch_first=True)
    return nn.TransformerDecoder(layer, 4).double().train()


def plain_gpt():
    torch.manual_seed(0)
    return GPT(vocabulary=61, length=32, width=16, heads=2, layers=4).double().train()


HARMLESS = {kind: TEXTS[kind] for kind in ("whole", "padded right")}  # some give nan for padding on the left
PACKED = {
    "packed": lambda: {
        "input_ids": tokens(1, 12),
        "position_ids": torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3]]),
        "use_cache": False,
    }
}
VISION = {"image_size": 16, "patch_size": 4}
CAUSAL = nn.Transformer.generate_square_subsequent_mask(SEQ, dtype=torch.float64)
PADDED = torch.arange(SEQ) >= torch.tensor([SEQ, 7, 4])[:, None]


def seen(**masks):
    return lambda: {"src": floats(BATCH, SEQ, 16), **masks}


@attrs.frozen
class Row:
    """An architecture: its model, what it is called with, which axes of what its layers get are tokens."""

    make: object
    inputs: dict
    axes: dict
    keep: int = 5
    router: object = "random_ltd"


SIDES = {f"{side}_{what}": size for side in ("encoder", "decoder")
         for what, size in (("layers", 4), ("attention_heads", 2), ("ffn_dim", 24))}  # fmt: skip
ROWS = {
    "gpt2": Row(lambda: hf("gpt2", auto="AutoModelForCausalLM"), TEXTS | PACKED, TEXT),
    "gpt2-eager": Row(lambda: hf("gpt2", attn_implementation="eager"), TEXTS, TEXT),
    "llama": Row(lambda: hf("llama", auto="AutoModelForCausalLM"), TEXTS | PACKED, TEXT),
    "bert": Row(lambda: hf("bert"), TEXTS, TEXT),
    "bert-eager": Row(lambda: hf("bert", attn_implementation="eager"), TEXTS, TEXT),
    "vit": Row(lambda: hf("vit", **VISION), IMAGES, {}),
    "dinov2": Row(lambda: hf("dinov2", **VISION), IMAGES, {}),
    "dinov3": Row(
        lambda: hf("dinov3_vit", num_register_tokens=3, pos_embed_rescale=None, **VISION),
        IMAGES,
        {"position_embeddings": 0},
        keep=9,
        router=random_ltd(shared=True, prefix=4),
    ),
    "mistral, sliding": Row(lambda: hf("mistral", sliding_window=4), TEXTS, TEXT),
    "qwen3": Row(lambda: hf("qwen3", head_dim=8), TEXTS, TEXT),
    "gpt-neox": Row(lambda: hf("gpt_neox"), TEXTS, TEXT),
    "modernbert": Row(lambda: hf("modernbert", local_attention=4), TEXTS, TEXT),
    "bloom": Row(lambda: hf("bloom", n_layer=4, n_head=2), HARMLESS, TEXT | {"alibi": -1}),
    "opt": Row(lambda: hf("opt", ffn_dim=24, word_embed_proj_dim=16), TEXTS, TEXT),
    "phi": Row(lambda: hf("phi"), TEXTS, TEXT),
    "olmo2": Row(lambda: hf("olmo2"), TEXTS, TEXT),
    "falcon, alibi": Row(lambda: hf("falcon", alibi=True), HARMLESS, TEXT | {"alibi": -1}),
    "distilbert": Row(lambda: hf("distilbert", dim=16, n_heads=2, n_layers=4, hidden_dim=24), TEXTS, TEXT),
    "roformer": Row(lambda: hf("roformer"), TEXTS, TEXT | {"sinusoidal_pos": -2}),
    "t5": Row(lambda: hf("t5", d_model=16, d_kv=8, d_ff=24, num_layers=4, num_decoder_layers=4, num_heads=2),
              SEQ2SEQ, T5_AXES),
    "bart": Row(lambda: hf("bart", d_model=16, **SIDES), SEQ2SEQ, T5_AXES),
    "plain": Row(plain_gpt, {"whole": lambda: {"ids": tokens()}}, {}),
    "torch encoder": Row(
        torch_encoder,
        {
            "whole": seen(),
            "causal": seen(mask=CAUSAL, is_causal=True),
            "square": seen(mask=CAUSAL.roll(2, 1)),
            "padded": seen(src_key_padding_mask=PADDED),
            "causal, padded": seen(mask=CAUSAL.isinf(), src_key_padding_mask=PADDED, is_causal=True),
        },
        {"src_mask": (-2, -1), "src_key_padding_mask": 1},
    ),
    "torch encoder, norm first": Row(lambda: torch_encoder(norm_first=True), {"whole": seen()}, {}),
    "torch decoder": Row(
        torch_decoder,
        {"whole": lambda: {
            "tgt": floats(BATCH, SEQ, 16), "memory": floats(BATCH, 6, 16), "tgt_mask": CAUSAL,
            "memory_mask": floats(SEQ, 6) > 1, "tgt_key_padding_mask": PADDED,
        }},
        {"tgt_mask": (-2, -1), "memory_mask": -2, "tgt_key_padding_mask": 1},
    ),
}  # fmt: skip
CASES = [(name, kind) for name, row in ROWS.items() for kind in row.inputs]
every = pytest.mark.parametrize(("name", "kind"), CASES)


@every
def test_keeping_all_is_the_untouched_model_to_the_bit(name, kind):
    row = ROWS[name]
    model, given = row.make(), row.inputs[kind]()
    expected, grads = run(model, given)
    route = attach(model, keep=SEQ + 40, seed=7)
    out, found = run(model, given)
    assert torch.equal(out, expected)
    assert found.keys() == grads.keys()
    assert all(torch.equal(found[parameter], grads[parameter]) for parameter in grads)
    assert route.kept() == {}


@every
def test_each_row_is_what_it_is_alone_with_its_own_tokens(name, kind):
    row = ROWS[name]
    model, given = row.make(), row.inputs[kind]()
    route = attach(model, router=row.router, keep=row.keep, seed=7)
    out, grads = run(model, given)
    kept = route.kept()
    assert kept.keys() == route.layers.keys()
    assert all(own.shape[1] == row.keep for own in kept.values())
    layers = route.layers
    route.remove()
    for layer, own in kept.items():
        alone(layers[layer], [own], row.axes)
    expected, meant = run(model, given)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    assert grads.keys() == meant.keys()
    for parameter, grad in grads.items():
        torch.testing.assert_close(grad, meant[parameter], rtol=1e-8, atol=1e-8)


def test_an_encoder_and_a_decoder_have_a_span_each():
    model, given = ROWS["t5"].make(), SEQ2SEQ["padded right"]()
    route = attach(model, router="span", keep=5, seed=7)
    run(model, given)
    kept = route.kept()
    assert list(kept) == ["encoder.block.1", "encoder.block.2", "decoder.block.1", "decoder.block.2"]
    assert torch.equal(kept["encoder.block.1"], kept["encoder.block.2"])
    assert torch.equal(kept["decoder.block.1"], kept["decoder.block.2"])
    assert not torch.equal(kept["encoder.block.1"], kept["decoder.block.1"])
    assert kept["decoder.block.1"].max() < 9


@pytest.mark.parametrize(("name", "kind"), [case for case in CASES if "padded" in case[1]])
def test_kept_real_tokens_never_see_padding(name, kind):
    row = ROWS[name]
    model, given = row.make(), row.inputs[kind]()
    real = given.get("attention_mask", ~PADDED).bool()
    if "decoder_input_ids" in given or "tgt" in given:
        pytest.skip("padding is the encoder's")
    route = attach(model, keep=row.keep, seed=7)
    out = hidden_of(model(**given))
    route.step = 1
    route.step = 0
    for field in ("input_ids", "src"):
        if field in given:
            other = given[field].clone()
            other[~real] = other[~real].flip(0) + 1
            given[field] = other
    again = hidden_of(model(**given))
    torch.testing.assert_close(out[real], again[real], rtol=1e-9, atol=1e-9)
    for own in route.kept().values():
        of_real = torch.gather(real, 1, own.long())
        assert torch.equal(
            of_real.sum(1), real.sum(1).clamp(max=row.keep)
        )  # padding only where nothing is left


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gpt2", "whole"),
        ("llama", "padded right"),
        ("bert", "padded right"),
        ("vit", "images"),
        ("t5", "whole"),
    ],
)
def test_a_compiled_model_has_no_break_in_its_graph(name, kind):
    row = ROWS[name]
    model, given = row.make(), row.inputs[kind]()
    route = attach(model, keep=row.keep, seed=7)
    expected, kept = hidden_of(model(**given)), route.kept()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for step in (1, 2, 0):
        route.step = step
        out = hidden_of(compiled(**given))
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(route.kept()[layer], own) for layer, own in kept.items())
    assert counter.frame_count <= 2  # the model, and what counts micro-batches before it
    torch.compiler.reset()


REFUSED = {
    "a window of its own": (
        lambda: hf("gpt_neo", window_size=4, num_layers=4, num_heads=2, attention_types=[[["local"], 4]]),
        "layer 'h.1' knows by itself where its tokens stand: .*window, .*leave it out",
    ),
    "convolutions": (
        lambda: hf("convbert"),
        "layer 'encoder.layer.1' knows by itself where its tokens stand: .*check=False",
    ),
    "no attention": (lambda: hf("fnet"), "layer 'encoder.layer.1' knows by itself where its tokens stand"),
    "windows cut by the model": (
        lambda: hf("longformer", attention_window=4, num_hidden_layers=4),
        r"the argument 'is_index_masked' has shape \(3, \d+\) and looks aligned to the \d+ tokens; declare",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_served_is_refused_by_name(name):
    make, said = REFUSED[name]
    model = make()
    attach(model, keep=5, seed=7)
    with pytest.raises(ValueError, match=said):
        model(input_ids=tokens())


@pytest.mark.parametrize("name", ROWS)
def test_it_leaves_the_model_as_it_is(name, tmp_path):
    row = ROWS[name]
    model, given = row.make(), next(iter(row.inputs.values()))()
    keys = list(model.state_dict())
    expected = hidden_of(model.eval()(**given))
    model.train()
    pace = linear(row.keep - 3, row.keep + 3, steps=3, multiple=2)
    route = attach(model, router=row.router, keep=pace, seed=7)
    route.step = 1
    run(model, given)
    kept = {layer: ids.clone() for layer, ids in route.kept().items()}
    assert list(model.state_dict()) == keys
    twin = copy.deepcopy(model)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    run(twin, given)
    averaged.update_parameters(model)
    assert route.kept().keys() == kept.keys()
    assert all(torch.equal(route.kept()[layer], kept[layer]) for layer in kept)
    assert torch.equal(hidden_of(twin.eval()(**given)), expected)
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(tmp_path)
        loaded = type(model).from_pretrained(tmp_path).double().eval()
        torch.testing.assert_close(hidden_of(loaded(**given)), expected)
    assert torch.equal(hidden_of(model.eval()(**given)), expected)
    assert route.kept() == {}
    model.train()
    route.remove()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
