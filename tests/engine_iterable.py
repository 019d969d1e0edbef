"""A dataset of PyTorch, in a module of its own, because only some environments have PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import IterableDataset


class Items(IterableDataset):  # type: ignore[type-arg]  # the class is only generic for type checkers
    """Yields the items of another dataset."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        return (self._dataset[index] for index in range(len(self._dataset)))
