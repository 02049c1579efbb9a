"""Samples that know the batch they were fetched for."""

from collections.abc import Iterable, Sequence
from typing import Any

import attrs
from torch.utils.data import Dataset


class Samples(list[Any]):
    """The samples of one batch, as a list; `.batch` is what the sampler gave: ids, and what they know.

    Examples:
        >>> samples = Samples(["a", "b"], [3, 5])
        >>> samples, samples.batch
        (['a', 'b'], [3, 5])
    """

    batch: Sequence[int]

    def __init__(self, samples: Iterable[Any], batch: Sequence[int]) -> None:
        super().__init__(samples)
        self.batch = batch


def with_batch(dataset: "Dataset[Any]") -> "Dataset[Any]":
    """A map-style dataset whose samples come to a DataLoader's collate function with their batch.

    `samples.batch.step` there is the step that the samples are for, though workers run ahead of training:
    what depends on the step, as truncation does, belongs there. `Corpus.dataset` gives such a dataset
    already.

    Examples:
        >>> from torch.utils.data import DataLoader
        >>> from dataeff.samplers import shuffled
        >>> dataset, sampler = with_batch(list("abcd")), shuffled(4, batch_size=2, seed=1)
        >>> def collate(samples):
        ...     return samples.batch.step, len(samples)
        >>> list(DataLoader(dataset, batch_sampler=sampler, collate_fn=collate))
        [(0, 2), (1, 2)]
    """
    return _WithBatch(dataset)


@attrs.frozen(eq=False)
class _WithBatch(Dataset[Any]):
    dataset: Any

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __getitems__(self, batch: Sequence[int]) -> Samples:
        fetch = getattr(self.dataset, "__getitems__", None)
        return Samples(fetch(batch) if fetch else map(self.dataset.__getitem__, batch), batch)
