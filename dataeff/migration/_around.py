"""What is read of a DeepSpeed config around its own sections: the batch size and the peak learning rate."""

from collections.abc import Iterator

from dataeff.migration._section import Section

_FILLED_IN = (
    ("", "train_batch_size"),
    ("", "train_micro_batch_size_per_gpu"),
    ("", "gradient_accumulation_steps"),
    ("optimizer.params", "lr"),
)


def batch_size(top: Section) -> int | None:
    """Samples of a step over all ranks; None where they are "auto" or not said.

    Examples:
        >>> batch_size(Section("", {"train_batch_size": 512})), batch_size(Section("", {}))
        (512, None)
    """
    return top.whole("train_batch_size", low=1) if _is_said(top, "train_batch_size") else None


def peak(top: Section) -> float | None:
    """The optimizer's learning rate; None where it is "auto" or not said.

    Examples:
        >>> peak(Section("", {"optimizer": {"params": {"lr": "auto"}}})) is None
        True
    """
    params = _at(top, "optimizer.params")
    return params.number("lr") if _is_said(params, "lr") else None


def missing(top: Section) -> Iterator[str]:
    """What others are to fill in, and what is not said at all.

    Examples:
        >>> list(missing(Section("", {})))
        ['train_batch_size is missing; give batch_size to a sampler and to the table run']
    """
    for path, key in _FILLED_IN:
        section = _at(top, path)
        if key in section and not _is_said(section, key):
            yield f"{section.at(key)}: is 'auto', which a trainer fills in, so it is read as missing"
    if not _is_said(top, "train_batch_size"):
        yield "train_batch_size is missing; give batch_size to a sampler and to the table run"


def _at(section: Section, path: str) -> Section:
    for key in path.split(".") if path else ():
        section = section.inner(key)
    return section


def _is_said(section: Section, key: str) -> bool:
    return key in section and section.table[key] != "auto"
