"""Tests of other projects have the same outcomes with the plugin as without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pytest_plugin import proof


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", proof.SUITES)
def test_outcomes_of_a_library_do_not_change(tmp_path: Path, name: str) -> None:
    found = list(proof.comparisons(proof.SUITES[name], tmp_path))
    assert [] == [line for each in found for line in each.differences]
    for each in found:
        assert each.steady >= 20, each.way
        # A recording of a test that failed without the plugin, too, is kept in all modes.
        assert each.recordings >= (20 if each.way.startswith("on ") else 0), each.way


@pytest.mark.parametrize(("steady", "differences", "is_proof"), [(1, [], True), (0, [], False), (1, ["x"], False)])
def test_a_comparison_without_tests_proves_nothing(steady: int, differences: list[str], is_proof: bool) -> None:
    found = proof.Comparison(way="on -n0", steady=steady, recordings=0, differences=differences)
    assert found.is_proof is is_proof
