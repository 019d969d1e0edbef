"""Workers are killed at random. Every result still has all of its rows, and each row is there once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

import mpr
from tests import support, tasks

_ROWS = 5
_TASKS = 300


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_results_have_exactly_their_rows_however_workers_are_killed(
    seed: int, start_method: Any, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    path = tmp_path / "run.rrd"
    pids: set[int] = set()

    def maybe_kill(result: tuple[int, int]) -> None:
        pids.add(result[1])
        if chance.random() < 0.05:
            victim = chance.choice(sorted(pids))
            pids.discard(victim)
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)

    with mpr.Pool("app", 3, sinks=path, start_method=start_method) as pool:
        results = [pool.apply_async(tasks.log_some, (number, _ROWS), callback=maybe_kill) for number in range(_TASKS)]
        outcomes = [_outcome(result) for result in results]
    support.check_file(path)
    found = support.numbers(path)
    assert set(found.values()) <= {1}
    expected = {number * _ROWS + row for number, returned in enumerate(outcomes) if returned for row in range(_ROWS)}
    assert expected - set(found) == set()
    # Most tasks have their results.
    assert sum(outcomes) > _TASKS // 2


def _outcome(result: Any) -> bool:
    try:
        result.get(60)
    except mpr.WorkerDiedError:
        return False
    return True
