"""The section `dynamic_batching`: batches by tokens."""

from typing import Any

from dataeff.migration._section import Section

_KEYS = (
    "enabled",
    "metrics_path",
    "max_tokens",
    "lr_scaling_method",
    "min_batch_size",
    "max_batch_size",
    "sequence_picking_order",
    "verbose",
)


def token_budget(section: Section) -> tuple[dict[str, Any], list[str]]:
    """Options of `samplers.token_budget`, and what is different about them; none where it is not enabled.

    Examples:
        >>> options, notes = token_budget(Section("s", {"enabled": True, "max_tokens": 4096}))
        >>> options, len(notes)
        ({'max_tokens': 4096, 'lr_scaling': 'linear'}, 3)
    """
    section.only(*_KEYS)
    if not section.flag("enabled"):
        return {}, []
    order = section.one_of("sequence_picking_order", ("dataloader", "random", "seqlen"), default="dataloader")
    budget: dict[str, Any] = {
        "max_tokens": section.whole("max_tokens", low=1),
        "lr_scaling": "none"
        if section.table.get("lr_scaling_method", "") is None
        else section.one_of("lr_scaling_method", ("linear", "sqrt", "none"), default="linear"),
    }
    notes = [
        f"{section.at('max_tokens')}: is what one process holds in a batch here, padding counted; DeepSpeed "
        "counts no padding, and puts train_micro_batch_size_per_gpu such groups side by side",
        f"{section.path}: every sample is used here; DeepSpeed leaves out those above max_tokens, which are "
        "an error here, and the last ones",
        f"{section.at('sequence_picking_order')}: {order!r} is the order in which DeepSpeed fills batches; "
        "here samples come in the order of the sampler, sorted by length within a window of its batches",
    ]
    if section.table.get("max_batch_size") is not None:
        budget["max_samples"] = section.whole("max_batch_size", low=1)
        notes.append(
            f"{section.at('max_batch_size')}: is of one process there, of the global batch here; multiply "
            "max_samples by the number of processes"
        )
    if section.whole("min_batch_size", low=1, default=1) > 1:
        notes.append(f"{section.at('min_batch_size')}: is not served; DeepSpeed leaves out smaller batches")
    if path := section.text("metrics_path"):
        notes.append(f"{section.at('metrics_path')}: lengths are in {path}; read them with import_deepspeed")
    section.flag("verbose")
    return budget, notes
