"""A test case of CPython's may share one pool among its tests: the census is taken for the whole case."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import support


@pytest.fixture(autouse=True, scope="class")
def census() -> Iterator[None]:
    before = support.census()
    yield
    assert support.left_over(before) == []
