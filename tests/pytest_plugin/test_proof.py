"""Tests of other projects have the same outcomes with the plugin as without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pytest_plugin import proof


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", proof.SUITES)
def test_outcomes_of_a_library_do_not_change(tmp_path: Path, name: str) -> None:
    count, found = proof.differences(proof.SUITES[name], str(tmp_path / "output"))
    assert [] == found
    assert count >= 20
    assert list((tmp_path / "output").rglob("*.rrd"))
