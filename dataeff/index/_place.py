"""Where an index may lie."""

from pathlib import Path
from typing import Any


def refuse_inside(corpus: Any, out: Path) -> None:
    """ValueError for an index in the folder of its corpus, whose files are all taken for the corpus.

    `corpus` is a path, or anything that may have one. A saved Hugging Face dataset knows its files.

    Examples:
        >>> refuse_inside(Path("."), Path("idx"))
        Traceback (most recent call last):
        ...
        ValueError: idx lies in the corpus folder ., and would be read as a part of it; give another out=
        beside it
    """
    path = corpus if isinstance(corpus, str | Path) else getattr(corpus, "path", None)
    if not isinstance(path, str | Path) or not (folder := Path(path)).is_dir():
        return
    saved = any((folder / name).exists() for name in ("state.json", "dataset_dict.json"))
    if not saved and out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"{out} lies in the corpus folder {folder}, and would be read as a part of it; give another out= "
            "beside it"
        )
