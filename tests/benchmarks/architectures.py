"""On which models of transformers tokens can be routed, and whether each row is what it is alone.

`python -m tests.benchmarks.architectures`. Every model type that `AutoModel` knows is made small, with
random weights, and routed. Each sample's output, and the gradients, are to be those of the sample alone, with
its own tokens, masks and positions, to four digits: some compute in float32 by themselves. What else can
happen: it is refused, with a reason; it fails in the model's own code; or nothing is learned here, as the
model cannot be made small in this way, draws at random or wants inputs of its own. No time is measured.
"""

import contextlib
import copy
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
from torch.nn.modules.conv import _ConvNd
from tqdm import tqdm
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from dataeff.routing import attach, named_blocks
from tests.architectures import (
    BATCH,
    SEQ,
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
AXES = TEXT | T5_AXES | {"alibi": -1, "sinusoidal_pos": -2, "per_layer_input": 1, "position_embeddings": -2}
AXES |= {"input_ids": -1}
SIZES: dict[float, str] = {
    16: (
        "d_model dim n_embd embedding_size word_embed_proj_dim out_hidden_size output_dim "
        "projection_dim hidden_sizes embed_dims embed_dim embed_dim_per_stage backbone_channel_list "
        "fpn_hidden_size condition_dim projector_hidden_size projection_hidden_dim d_latents "
        "text_hidden_size audio_hidden_size vision_output_dim unit_embed_dim projector_input_dim "
        "projector_output_dim cross_hidden_size decoder_hidden_size pred_hidden_size "
        "hidden_size_global image_size"
    ),
    4: (
        "n_layer n_layers num_layers encoder_layers decoder_layers num_encoder_layers "
        "num_decoder_layers depth encoder_num_hidden_layers decoder_num_hidden_layers "
        "speech_encoder_layers t2u_encoder_layers t2u_decoder_layers pred_num_hidden_layers "
        "num_global_layers window_size mamba_n_heads mm_tokens_per_image num_filters "
        "encoder_hidden_size qk_rope_head_dim qk_nope_head_dim rotary_dim patch_size num_experts "
        "num_local_experts n_routed_experts sliding_window attention_chunk_size local_attention "
        "index_topk"
    ),
    2: (
        "encoder_num_attention_heads decoder_num_attention_heads resampler_n_heads "
        "encoder_num_key_value_heads decoder_num_key_value_heads num_frames cross_num_attention_heads "
        "cross_num_key_value_heads frames_per_clip speech_encoder_attention_heads "
        "t2u_encoder_attention_heads index_kpool t2u_decoder_attention_heads pred_num_attention_heads "
        "tubelet_size n_head n_heads num_heads encoder_attention_heads attention_heads "
        "decoder_attention_heads num_experts_per_tok eos_token_id"
    ),
    8: (
        "mamba_d_head mamba_d_state mamba_chunk_size state_size cross_head_dim global_head_dim "
        "hidden_size_per_layer_input subsampling_conv_channels resampler_head_dim head_dim d_kv "
        "moe_intermediate_size shared_expert_intermediate_size kv_lora_rank q_lora_rank v_head_dim"
    ),
    24: (
        "intermediate_size_mlp mlp_dim speech_encoder_intermediate_size t2u_encoder_ffn_dim "
        "t2u_decoder_ffn_dim ffn_dim d_ff hidden_dim encoder_ffn_dim decoder_ffn_dim n_inner"
    ),
    32: "upsample_initial_channel crop_size spec_size ffn_hidden_size max_seq_len",
    61: (
        "vocab_size_per_layer_input entity_vocab_size t2u_vocab_size unit_hifi_gan_vocab_size "
        "char_vocab_size shape_vocab_size pronunciation_vocab_size encoder_hash_byte_group_vocab"
    ),
    0.0: (
        "residual_dropout router_jitter_noise mask_ratio drop_path_rate layerdrop encoder_layerdrop "
        "decoder_layerdrop mask_time_prob mask_feature_prob"
    ),
    1: "n_shared_experts n_group topk_group first_k_dense_replace bos_token_id",
    60: "image_token_id",
}
NAMES = {name: size for size, names in SIZES.items() for name in names.split()}

UNSET = {"vocab_size", "head_dim", "num_key_value_heads", "n_routed_experts", "num_experts"}
UNSET |= {"n_shared_experts", "moe_intermediate_size", "num_experts_per_tok", "num_local_experts"}
"""Numbers that a config may lack, and a model not."""

_SECTIONS = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}
_SERIES = {"prediction_length": 9, "context_length": SEQ, "lags_sequence": [1, 2]}
_RESNET = {
    "model_type": "resnet",
    "hidden_sizes": [16] * 4,
    "embedding_size": 16,
    "depths": [1] * 4,
    "out_features": ["stage2", "stage3", "stage4"],
}
_DETR = {
    "use_timm_backbone": False,
    "backbone": None,
    "d_model": 32,
    "hidden_size": 32,
    "backbone_config": _RESNET,
}
OWN: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("qwen2_vl_text", "qwen2_5_vl_text", "glm4v_text"), _SECTIONS),
    **dict.fromkeys(("glm_image_text", "glm_ocr_text", "paddleocr_vl_text", "qwen2_5_omni_text"), _SECTIONS),
    "glm4v_moe_text": {"rope_parameters": _SECTIONS["rope_parameters"] | {"partial_rotary_factor": 1.0}},
    "hunyuan_vl_text": {
        "head_dim": 8,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "xdrope_section": [1] * 4},
    },
    **{name: {"window_size": 16} for name in ("qwen2_5_vl_vision", "exaone4_5_vision")},
    **{name: {"mamba_d_ssm": 32} for name in ("bamba", "granitemoehybrid", "falcon_h1")},
    **dict.fromkeys(("autoformer", "informer", "time_series_transformer"), _SERIES),
    **dict.fromkeys(("detr", "conditional_detr", "deformable_detr", "table-transformer", "dab-detr"), _DETR),
    **{name: {"pos_embed_rescale": None} for name in ("dinov3_vit", "sapiens2")},
    "gemma3n_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 0,
        "activation_sparsity_pattern": None,
        "intermediate_size": 24,
        "laurel_rank": 4,
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "esm": {"mask_token_id": 3, "token_dropout": False, "pad_token_id": 0},
    "esmc": {"num_key_value_heads": 2},
    "zaya": {"num_experts_per_tok": 1},
    "bros": {"hidden_size": 64},
    "lilt": {"hidden_size": 24, "channel_shrink_ratio": 2},
    "layoutlmv3": {"coordinate_size": 2, "shape_size": 4, "visual_embed": False},
    "mobilebert": {"normalization_type": "layer_norm"},
    "reformer": {"axial_pos_embds": False, "attn_layers": ["local"] * 4, "local_attn_chunk_length": 4},
    "vivit": {"tubelet_size": [2, 4, 4]},
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
    known = {
        name: _like(value, getattr(usual, name))
        for name, value in (SMALL | NAMES).items()
        if _takes(usual, name, value)
    }
    if known.get("qk_rope_head_dim"):
        known |= {"num_key_value_heads": known.get("num_attention_heads", 2), "head_dim": 4}
    kinds = getattr(usual, "layer_types", None)
    if kinds and _takes(usual, "layer_types", list(kinds)):
        known["layer_types"] = (list(kinds) * 4)[:4]
    rope = getattr(usual, "rope_parameters", None)
    if isinstance(rope, dict) and "mrope_section" in rope:
        sections = [1, 1, 0] if "qk_rope_head_dim" in known else [1, 1, 2]
        known["rope_parameters"] = rope | {"mrope_section": sections, "partial_rotary_factor": 1.0}
    for name in getattr(usual, "sub_configs", {}):
        inside = getattr(usual, name, None)
        if isinstance(inside, transformers.PretrainedConfig):
            known[name] = {"model_type": inside.model_type, **small(inside)}
    return known | OWN.get(usual.model_type, {})


def _takes(usual: Any, name: str, value: Any) -> bool:
    """Whether a config has such an option, of such a type."""
    try:
        before = getattr(usual, name)
        setattr(copy.copy(usual), name, _like(value, before))
    except Exception:  # one a layer, or one that is computed
        return False
    if before is None:
        return name in UNSET
    if isinstance(before, list | tuple):
        return isinstance(value, list) or all(isinstance(each, int | float) for each in before)
    return isinstance(before, int | float) and not isinstance(before, bool)


def _like(value: Any, before: Any) -> Any:
    """The same for each stage where there are several."""
    several = isinstance(before, list | tuple) and not isinstance(value, list)
    return type(before)([value] * len(before)) if several else value


def made(model_type: str) -> nn.Module:
    """A small model of a type, in training mode and without dropout. Raises what its code raises."""
    usual = transformers.AutoConfig.for_model(model_type)
    config = transformers.AutoConfig.for_model(model_type, **small(usual))
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


PICTURES = [(BATCH, 3, 16, 16), (BATCH, 3, 32, 32), (BATCH, 3, 64, 64), (BATCH, 3, 32, 128)]
PICTURES += [(BATCH, 2, 3, 16, 16), (BATCH, 1, 3, 16, 16)]
SHAPES: dict[str, tuple[str, Any]] = {
    "pixel_values": ("images", lambda n: [*PICTURES, (BATCH * 16, n), (BATCH, 16, n), (BATCH * 16, 3, 4, 4)]),
    "pixel_values_videos": ("images", lambda n: [(BATCH, 2, 3, 32, 32)]),
    "hidden_states": ("images", lambda n: [(BATCH * 16, n)]),
    "input_features": (
        "sound",
        lambda n: [
            (BATCH, *shape)
            for bins in (n, 80, 128, 160, 320, 560)
            for shape in ((bins, 24), (24, bins), (96, bins), (bins, 3000))
        ],
    ),
    "input_values": ("sound", lambda n: [(BATCH, 5760), (BATCH, 1, 5760), (BATCH, 1024, 128)]),
    "audio_mel": ("sound", lambda n: [(BATCH, 96, 128)]),
    "past_values": ("series", lambda n: [(BATCH, 13), (BATCH, 32, 1)]),
}
"""What a model may be called with, and the shapes that it may have; `n` is what its first layer takes."""

MORE: dict[str, Any] = {
    **dict.fromkeys(("grid_thw", "image_grid_thw"), lambda c: torch.tensor([[1, 4, 4]] * BATCH)),
    "merge_sizes": lambda c: torch.full((BATCH,), 2),
    "pixel_position_ids": lambda c: torch.cartesian_prod(*[torch.arange(4)] * 2).repeat(BATCH, 1, 1),
    "spatial_shapes": lambda c: torch.tensor([[4, 4]] * BATCH),
    "pixel_attention_mask": lambda c: torch.ones(BATCH, 16, dtype=torch.int64),
    "bbox": lambda c: torch.ones(BATCH, SEQ, 4, dtype=torch.int64),
    "visual_feats": lambda c: floats(BATCH, 7, c.visual_feat_dim),
    "visual_pos": lambda c: floats(BATCH, 7, 4),
    "past_time_features": lambda c: floats(BATCH, 13, c.num_time_features),
    "future_time_features": lambda c: floats(BATCH, 9, c.num_time_features),
    "past_observed_mask": lambda c: torch.ones(BATCH, 13, dtype=torch.float64),
    "future_values": lambda c: floats(BATCH, 9),
    "states": lambda c: floats(BATCH, SEQ, c.state_dim),
    "actions": lambda c: floats(BATCH, SEQ, c.act_dim),
    **dict.fromkeys(("rewards", "returns_to_go"), lambda c: floats(BATCH, SEQ, 1)),
    "timesteps": lambda c: torch.arange(SEQ).repeat(BATCH, 1),
    "noise": lambda c: floats(BATCH, 16),
    "audio_mel_mask": lambda c: torch.zeros(BATCH, 96, dtype=torch.bool),
}
"""What else some are to be given, by name."""

REQUIRED = {"grid_thw", "image_grid_thw", "merge_sizes", "pixel_position_ids"}
"""Of these, what is given to those alone that do not run without it."""


def inputs(model: nn.Module) -> dict[str, list[dict[str, Any]]]:
    """What it is called with, by what that is, in the forms that it may take; empty for other things."""
    takes = inspect.signature(model.forward).parameters
    needs = {name for name, own in takes.items() if own.default is own.empty}
    more = {"use_cache": False} if "use_cache" in takes else {}
    given = {name for name in MORE if name in takes and (name not in REQUIRED or name in needs)}
    given -= {"pixel_attention_mask"} if "spatial_shapes" not in takes else set()
    more |= {name: MORE[name](model.config) for name in given}
    if "input_ids" in takes:
        both = "pixel_values" in takes and not hasattr(model.config, "image_token_id")
        shapes = [*PICTURES, (BATCH, 16, 48)] if both else []
        images: list[dict[str, Any]] = [{"pixel_values": floats(*shape)} for shape in shapes] or [{}]
        return {
            kind: [make() | more | image for image in images]
            for kind, make in (SEQ2SEQ if "decoder_input_ids" in takes else TEXTS).items()
        }
    if "decoder_input_ids" in takes:
        more["decoder_input_ids"] = tokens(BATCH, 9)
    weights = (module.weight for module in model.modules() if isinstance(module, nn.Linear | _ConvNd))
    first = next((weight[0].numel() for weight in weights), 0)
    for name, (kind, shapes_of) in SHAPES.items():
        if name in takes:
            forms = [more | {name: floats(*shape)} for shape in shapes_of(first)]
            if "input_features_mask" in takes:
                for form in forms:
                    form["input_features_mask"] = torch.ones(BATCH, max(form[name].shape[1:])).long()
            return {kind: forms}
    return {"its own": [more]} if len(more) > 1 else {}


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
    found = [_first(model, forms) | {"with": kind} for kind, forms in kinds.items()]
    worst = min(found, key=lambda own: ORDER.index(own["how"]))
    alike = [own["with"] for own in found if own["how"] == worst["how"]]
    return worst | {"with": ", ".join(alike)}


def _first(model: nn.Module, forms: list[dict[str, Any]]) -> dict[str, str]:
    """The first form of an input that the model takes."""
    found = []
    for given in forms:
        found.append(_of(model, given))
        if "untouched, it fails" not in found[-1]["why"] and "no routed layer" not in found[-1]["why"]:
            return found[-1]
    return next((own for own in found if "no routed layer" in own["why"]), found[0])


ORDER = ("differs", "fails", "refused", "served", "not tried")
"""The worst first."""


def _of(model: nn.Module, given: dict[str, Any], *, decoder: bool = False) -> dict[str, str]:
    """One kind of input; `decoder` routes the decoder alone, where the largest tower is not called."""
    model.double()
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
        with _routed(model, calls, decoder=decoder) as layers:
            out, grads = run(model, given)
    except Exception as error:
        return {"how": "refused" if _is_ours(error) else "fails", "why": _line(error)}
    if not calls and not decoder:
        return _of(model, given, decoder=True)
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
def _routed(
    model: nn.Module, calls: dict[str, list[torch.Tensor]], *, decoder: bool
) -> Iterator[dict[str, nn.Module]]:
    """Tokens routed, and those of each call of a layer remembered."""
    layers = list(named_blocks(model.get_decoder(), (1, 1)).values()) if decoder else None
    route = attach(model, keep=KEEP, seed=1234, layers=layers)

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
