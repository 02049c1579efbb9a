"""The batches that samplers yield: sample ids that know their step."""

from typing import Any, SupportsIndex, overload


class Batch(list[int]):
    """The sample ids of one batch, as a list that knows its step in `.step`. A slice of it does too.

    Examples:
        >>> batch = Batch([3, 1, 2], step=7)
        >>> batch, batch.step, batch[:2].step
        ([3, 1, 2], 7, 7)
    """

    step: int

    def __init__(self, ids: Any, *, step: int) -> None:
        super().__init__(ids)
        self.step = step

    @overload
    def __getitem__(self, place: SupportsIndex) -> int: ...

    @overload
    def __getitem__(self, place: slice) -> "Batch": ...

    def __getitem__(self, place: SupportsIndex | slice) -> "int | Batch":
        """One id, or a batch of some."""
        if not isinstance(place, slice):
            return super().__getitem__(place)
        part = type(self).__new__(type(self))
        part.__dict__.update(self.__dict__)
        part.extend(super().__getitem__(place))
        return part
