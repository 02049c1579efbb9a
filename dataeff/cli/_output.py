"""Where a command writes."""

from pathlib import Path


def check(option: str, path: Path | None, *read: Path) -> None:
    """Raise ValueError if the file that an option names is one that the command reads.

    Examples:
        >>> check("--json", Path(__file__), Path(__file__).parent / "_output.py")
        Traceback (most recent call last):
        ...
        ValueError: --json ..._output.py is what the command reads, and would be overwritten; name another...
    """
    if path is not None and any(_same(path, other) for other in read):
        raise ValueError(
            f"{option} {path} is what the command reads, and would be overwritten; name another file"
        )


def _same(path: Path, other: Path) -> bool:
    """Whether both are one file, by whatever names."""
    return path.resolve() == other.resolve() or (path.exists() and other.exists() and path.samefile(other))
