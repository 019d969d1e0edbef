"""Take the census once per test case of CPython, because its tests may share one pool."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import support


@pytest.fixture(autouse=True, scope="class")
def census() -> Iterator[None]:
    before = support.census()
    yield
    assert support.left_over(before) == []
