"""On which models of transformers tokens can be routed, and whether each row is what it is alone.

`python -m tests.benchmarks.architectures`. Every model type that `AutoModel` knows is made small, with
random weights, and routed. Each sample's output, and the gradients, are to be those of the sample alone, with
its own tokens, masks and positions, to four digits: some compute in float32 by themselves. What else can
happen: it is refused, with a reason; it fails in the model's own code; or nothing is learned here, as the
model cannot be made small in this way, draws at random or wants inputs of its own. No time is measured.
"""

import contextlib
import inspect
import multiprocessing
import re
import warnings
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import torch
import transformers
from torch import nn
from tqdm import tqdm
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from dataeff.routing import attach
from tests.architectures import (
    BATCH,
    IMAGES,
    SEQ2SEQ,
    SMALL,
    T5_AXES,
    TEXT,
    TEXTS,
    alone,
    drawn,
    floats,
    run,
    tokens,
)
from tests.benchmarks.record import write

KEEP, SECONDS, PARAMETERS = 5, 120, 6_000_000
AXES = TEXT | T5_AXES | {"alibi": -1, "sinusoidal_pos": -2, "per_layer_input": 1}
NAMES: dict[str, Any] = (
    dict.fromkeys(("d_model", "dim", "n_embd", "embedding_size", "word_embed_proj_dim"), 16)
    | dict.fromkeys(("n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"), 4)
    | dict.fromkeys(("num_encoder_layers", "num_decoder_layers"), 4)
    | dict.fromkeys(("n_head", "n_heads", "num_heads", "encoder_attention_heads", "attention_heads"), 2)
    | dict.fromkeys(("decoder_attention_heads", "num_experts_per_tok"), 2)
    | dict.fromkeys(("ffn_dim", "d_ff", "hidden_dim", "encoder_ffn_dim", "decoder_ffn_dim", "n_inner"), 24)
    | dict.fromkeys(("ffn_hidden_size", "max_seq_len"), 32)
    | dict.fromkeys(("head_dim", "d_kv", "moe_intermediate_size", "shared_expert_intermediate_size"), 8)
    | dict.fromkeys(("kv_lora_rank", "q_lora_rank", "v_head_dim"), 8)
    | dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "rotary_dim", "patch_size"), 4)
    | dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4)
    | dict.fromkeys(("n_shared_experts", "n_group", "topk_group", "first_k_dense_replace"), 1)
    | dict.fromkeys(("drop_path_rate", "layerdrop", "encoder_layerdrop", "decoder_layerdrop"), 0.0)
    | dict.fromkeys(("mask_time_prob", "mask_feature_prob"), 0.0)
    | dict.fromkeys(("sliding_window", "attention_chunk_size", "local_attention", "index_topk"), 4)
    | {"image_size": 16, "image_token_id": 60, "bos_token_id": 1, "eos_token_id": 2}
)

_SECTIONS = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}
OWN: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("qwen2_vl_text", "qwen2_5_vl_text", "glm4v_text", "glm4v_moe_text"), _SECTIONS),
    **dict.fromkeys(("glm_image_text", "glm_ocr_text"), _SECTIONS),
    "whisper": {"max_source_positions": 12},
    "hunyuan_v1_dense": {"head_dim": 8},
    "ministral": {"head_dim": 8},
    "diffllama": {"num_key_value_heads": 2},
    "xmod": {"default_language": "en_XX"},
    "gpt_neo": {"attention_types": [[["global"], 4]]},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "gemma4_text": {"layer_types": ["sliding_attention"] * 3 + ["full_attention"]},
}


def small(usual: Any) -> dict[str, Any]:
    """Options of a config, and of those inside it, for a model of a few thousand parameters."""
    known = {name: value for name, value in (SMALL | NAMES).items() if _is_number(usual, name)}
    if known.get("qk_rope_head_dim"):
        known |= {"num_key_value_heads": known["num_attention_heads"], "head_dim": 4}
    if getattr(usual, "layer_types", None) and not isinstance(
        getattr(type(usual), "layer_types", None), property
    ):
        known["layer_types"] = (list(usual.layer_types) * 4)[:4]
    for name in getattr(usual, "sub_configs", {}):
        inside = getattr(usual, name, None)
        if isinstance(inside, transformers.PretrainedConfig):
            known[name] = {"model_type": inside.model_type, **small(inside)}
    return known


def _is_number(config: Any, name: str) -> bool:
    of_class = getattr(type(config), name, None)
    if isinstance(of_class, property) and of_class.fset is None:
        return False
    try:
        value = getattr(config, name, None)
    except Exception:  # one a layer
        return False
    return isinstance(value, int | float) and not isinstance(value, bool)


def made(model_type: str) -> nn.Module:
    """A small model of a type, in training mode and without dropout. Raises what its code raises."""
    usual = transformers.AutoConfig.for_model(model_type)
    config = transformers.AutoConfig.for_model(model_type, **small(usual) | OWN.get(model_type, {}))
    experts = {"experts_implementation": "eager"}  # others are not for float64
    options = (
        experts if hasattr(config, "num_experts_per_tok") or hasattr(config, "num_local_experts") else {}
    )
    with torch.device("meta"):
        size = sum(p.numel() for p in transformers.AutoModel.from_config(config, **options).parameters())
    if size > PARAMETERS:
        raise ValueError(f"{size:,} parameters when it is to be small")
    torch.manual_seed(0)
    model: nn.Module = drawn(transformers.AutoModel.from_config(config, **options))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def inputs(model: nn.Module) -> dict[str, Any]:
    """What it is called with, by what that is; empty for a model of other things."""
    takes = inspect.signature(model.forward).parameters
    off = {"use_cache": False} if "use_cache" in takes else {}
    if "input_ids" in takes:
        both = "pixel_values" in takes and not hasattr(model.config, "image_token_id")
        more = off | (IMAGES["images"]() if both else {})
        return {
            kind: lambda make=make: make() | more
            for kind, make in (SEQ2SEQ if "decoder_input_ids" in takes else TEXTS).items()
        }
    if "pixel_values" in takes:
        return IMAGES
    if "input_features" in takes:
        bins = getattr(model.config, "num_mel_bins", 80)
        more = off | ({"decoder_input_ids": tokens(BATCH, 9)} if "decoder_input_ids" in takes else {})
        return {"sound": lambda: {"input_features": floats(BATCH, bins, 24), **more}}
    if "input_values" in takes:
        return {"sound": lambda: {"input_values": floats(BATCH, 6000)}}
    return {}


def tried(model_type: str) -> dict[str, str]:
    """How routing a model of a type ends, and why: "served", "differs", "refused", "fails" or "not tried".

    The worst of its kinds of input counts, and what could not be tried with some is told by the others.
    """
    try:
        model = made(model_type)
    except Exception as error:
        return {"how": "not tried", "why": f"it cannot be made small so: {_line(error)}"}
    kinds = inputs(model)
    if not kinds:
        return {"how": "not tried", "why": "it wants inputs of its own"}
    found = [_of(model, make()) | {"with": kind} for kind, make in kinds.items()]
    worst = min(found, key=lambda own: ORDER.index(own["how"]))
    alike = [own["with"] for own in found if own["how"] == worst["how"]]
    return worst | {"with": ", ".join(alike)}


ORDER = ("differs", "fails", "refused", "served", "not tried")
"""The worst first."""


def _of(model: nn.Module, given: dict[str, Any]) -> dict[str, str]:
    """One kind of input."""
    try:
        plain, _ = run(model, given)
    except Exception as error:
        try:  # some compute in float32 by themselves
            model.float()
            given = {
                k: v.float() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in given.items()
            }
            plain, _ = run(model, given)
        except Exception:
            return {"how": "not tried", "why": f"untouched, it fails: {_line(error)}"}
    if not torch.equal(run(model, given)[0], plain) or not plain.abs().max() < 1e6:
        return {"how": "not tried", "why": "untouched, it draws at random or gives nan or huge numbers"}
    calls: dict[str, list[torch.Tensor]] = {}
    try:
        with _routed(model, calls) as layers:
            out, grads = run(model, given)
    except Exception as error:
        return {"how": "refused" if _is_ours(error) else "fails", "why": _line(error)}
    if not calls:
        return {"how": "not tried", "why": "it called no routed layer with more tokens than are to be kept"}
    with _rows_alone(layers, calls):
        try:
            expected, meant = run(model, given)
        except Exception as error:
            return {"how": "not tried", "why": f"rows alone fail: {_line(error)}"}
    if grads.keys() != meant.keys():
        return {"how": "differs", "why": "by which parameters have a gradient"}
    off = [_distance(out, expected), *(_distance(grad, meant[name]) for name, grad in grads.items())]
    served = all(each < 1e-4 for each in off)  # nan is not
    return {"how": "served" if served else "differs", "why": f"by {max(off):.1g} at most"}


@contextlib.contextmanager
def _routed(model: nn.Module, calls: dict[str, list[torch.Tensor]]) -> Iterator[dict[str, nn.Module]]:
    """Tokens routed, and those of each call of a layer remembered."""
    route = attach(model, keep=KEEP, seed=1234)

    def remember(name: str) -> Any:
        def hook(*_: Any) -> None:
            if name in route.kept():
                calls.setdefault(name, []).append(route.kept()[name])

        return hook

    handles = [layer.register_forward_hook(remember(name)) for name, layer in route.layers.items()]
    try:
        yield route.layers
    finally:
        for handle in handles:
            handle.remove()
        route.remove()


@contextlib.contextmanager
def _rows_alone(layers: dict[str, nn.Module], calls: dict[str, list[torch.Tensor]]) -> Iterator[None]:
    for name, ids in calls.items():
        alone(layers[name], ids, AXES)
    try:
        yield
    finally:
        for name in calls:
            del layers[name].forward


def _distance(own: torch.Tensor, other: torch.Tensor) -> float:
    return float((own - other).abs().max() / other.abs().max().clamp(min=1e-2))


def _is_ours(error: BaseException) -> bool:
    """Whether the library raised it, and not the model's code."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals["__name__"].startswith("dataeff.")


def _line(error: Exception) -> str:
    text = re.sub(r" from '[^']*'", "", str(error)).strip().splitlines()  # where a module's file lies
    return f"{type(error).__name__}: {text[0] if text else ''}"[:300]


def _send(model_type: str, to: Connection) -> None:
    warnings.simplefilter("ignore")
    to.send(tried(model_type))


def figures(model_types: Iterable[str]) -> dict[str, dict[str, str]]:
    """How each type ends, in a process of its own: some end it, or do not end."""
    forked, found = multiprocessing.get_context("fork"), {}
    for model_type in tqdm(list(model_types), unit="types", leave=False):
        here, there = forked.Pipe(duplex=False)
        process = forked.Process(target=_send, args=(model_type, there))
        process.start()
        there.close()
        try:
            found[model_type] = (
                here.recv() if here.poll(SECONDS) else {"how": "not tried", "why": f"over {SECONDS} seconds"}
            )
        except EOFError:
            found[model_type] = {"how": "not tried", "why": "its process ended"}
        process.kill()
        process.join()
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {"keep": KEEP, "types": figures(MODEL_MAPPING_NAMES)}
    write("architectures", found, versions={"transformers": transformers.__version__})
