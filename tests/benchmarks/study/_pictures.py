"""Grey pictures with a label each, some of them held out: Fashion-MNIST, and small digits for CI."""

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
import torch
from numpy.typing import NDArray

from tests import realdata

HELD_OUT = 5  # one digit in so many


@attrs.frozen(eq=False)
class Labelled:
    """Pictures as bytes, (N, 1, height, width) uint8, and what they show, (N,) int64."""

    pictures: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, where: torch.Tensor | slice) -> "Labelled":
        """Those at some places."""
        return Labelled(self.pictures[where], self.labels[where])

    def spread(self, wanted: int) -> "Labelled":
        """So many of them or all, evenly over the whole."""
        wanted = min(len(self), wanted)
        return self[torch.arange(wanted) * len(self) // wanted]


def load(source: str) -> tuple[Labelled, Labelled]:
    """Pictures to train on, and held out.

    Of "fashion_mnist", 60,000 and 10,000 of 28 by 28 in ten classes, held out is its own test set, and what
    of it occurs among the others, byte for byte, is not trained on (there is no such picture). Of "digits",
    1,797 of 8 by 8 that scikit-learn carries, held out are those that the hash of their bytes picks.
    """
    if source == "fashion_mnist":
        train, held_out = _fashion("train"), _fashion("t10k")
        known = {picture.tobytes() for picture in held_out.pictures.numpy()}
        return train[_where(train, lambda picture: picture not in known)], held_out
    digits = _digits()
    chosen = _where(digits, is_held_out)
    return digits[~chosen], digits[chosen]


def is_held_out(picture: bytes) -> bool:
    """One picture in `HELD_OUT`, by its bytes alone.

    Examples:
        >>> sum(is_held_out(bytes([i])) for i in range(200))
        34
    """
    found = hashlib.blake2b(picture, digest_size=8).digest()
    return int.from_bytes(found, "little") % HELD_OUT == 0


def _fashion(part: str) -> Labelled:
    pictures = _idx(realdata.fashion_mnist() / f"{part}-images-idx3-ubyte.gz", header=16)
    labels = _idx(realdata.fashion_mnist() / f"{part}-labels-idx1-ubyte.gz", header=8)
    return Labelled(
        torch.from_numpy(pictures.reshape(-1, 1, 28, 28)), torch.from_numpy(labels.astype(np.int64))
    )


def _idx(path: Path, *, header: int) -> NDArray[np.uint8]:
    """The bytes of a file of MNIST's format, behind its header."""
    with gzip.open(path) as file:
        return np.frombuffer(bytearray(file.read()[header:]), np.uint8)


def _digits() -> Labelled:
    from sklearn.datasets import load_digits

    found = load_digits()
    pictures = torch.from_numpy((found.images * 15).astype(np.uint8))  # from 0 to 16 each
    return Labelled(pictures[:, None], torch.from_numpy(found.target.astype(np.int64)))


def _where(all_of: Labelled, rule: Callable[[bytes], bool]) -> torch.Tensor:
    """Which pictures a rule on their bytes holds for. (N,) bool."""
    return torch.tensor([rule(picture.tobytes()) for picture in all_of.pictures.numpy()])
