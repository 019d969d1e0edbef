"""Processes are killed at random. Every result still has all of its rows, and each row is there once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

import mpr
from mpr.rrd import framing, recover
from tests import killed, support, tasks

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


# --- signals to everything --------------------------------------------------------------------------------------------

_SEED = int(os.environ.get("MPR_TEST_SEED", time.time_ns() // 1_000_000_000 // 3600))
_RUNS = int(os.environ.get("MPR_TEST_KILL_RUNS", "150"))
_SIGNALS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT)
# No run takes so long, whatever is killed. A recording waits 10 s at most for processes that do not end.
_RUN_SECS = 90.0


def _victims(parent: psutil.Process) -> list[psutil.Process]:
    """Return all processes of a run but the resource tracker of `multiprocessing`."""
    found = [parent]
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in parent.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "resource_tracker" not in " ".join(each.cmdline()):
                    found.append(each)
    return found


def _hit(chance: random.Random, victims: list[psutil.Process], waits: list[tuple[float, psutil.Process]]) -> str:
    """Send a random signal to one of `victims`: to the parent less often than to others."""
    victim = victims[0] if chance.random() < 0.1 else chance.choice(victims[1:] or victims)
    number = chance.choice(_SIGNALS)
    with contextlib.suppress(psutil.NoSuchProcess):
        victim.send_signal(number)
        if number == signal.SIGSTOP:
            waits.append((time.monotonic() + chance.uniform(0, 0.5), victim))
    return f"{number.name} to {'the parent' if victim is victims[0] else 'a child'}"


def _hit_a_run(chance: random.Random, folder: Path, options: list[str]) -> list[str]:
    """Run the program, and hit its processes until it has ended. Returns what was done."""
    done: list[str] = []
    waits: list[tuple[float, psutil.Process]] = []
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, killed.__file__, folder, *options],
            stdout=said,
            stderr=said,
            env={**os.environ, "PYTHONPATH": str(Path(killed.__file__).parent.parent)},
        )
    seen: dict[int, psutil.Process] = {}
    deadline = time.monotonic() + _RUN_SECS
    # The moments of the hits, as sizes of the list of results. So they are spread over the run, however fast it is.
    moments = sorted(chance.randint(0, 2_400) for _ in range(chance.randint(3, 8)))
    support.wait_for(lambda: (folder / "results").exists() or process.poll() is not None, 60)
    while process.poll() is None:
        assert time.monotonic() < deadline, f"hangs after {done}: {folder}"
        victims = _victims(psutil.Process(process.pid))
        seen |= {each.pid: each for each in victims}
        for at, victim in list(waits):
            if time.monotonic() > at:
                waits.remove((at, victim))
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim.send_signal(signal.SIGCONT)
        if len(done) < len(moments) and _size(folder / "results") >= moments[len(done)]:
            done.append(_hit(chance, victims, waits))
        time.sleep(0.02)
    for _, victim in waits:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.SIGCONT)
    _, left = psutil.wait_procs(list(seen.values()), 30)
    assert left == [], f"processes are left after {done}"
    return done


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _rows(folder: Path, start: str) -> Counter[tuple[str, int]]:
    """Count the scalars of the file whose name is `start`, or that was left as its `.part` file."""
    found: Counter[tuple[str, int]] = Counter()
    for path in (folder / start, folder / f".{start}.part"):
        if path.exists():
            cells = support.cells(path) if framing.is_finished(path) else support.cells_of_growing(path)
            found.update(
                (cell.entity, int(float(cell.value.strip("[]"))))
                for cell in cells.elements()
                if cell.component == "Scalars:scalars"
            )
    return found


def _missing(folder: Path, options: list[str]) -> list[str]:
    """Return the rows of results in hand that are in no file, and rows that are there twice."""
    lines = (folder / "results").read_text().splitlines() if (folder / "results").exists() else []
    if any(each.startswith(("task", "joined")) for each in lines):
        (found,) = recover.find(folder / "run.rrd")
        support.check_file(recover.recover(found).path)
    main = _rows(folder, "run.rrd")
    wrong = [f"{row} is there {count} times" for row, count in main.items() if count > 1]
    for kind, *numbers in map(str.split, lines):
        if kind == "task":
            value = killed.value(*map(int, numbers))
            wanted = {(f"/rows/{row}", value) for row in range(killed.ROWS)}
            wrong += [f"{row} of {kind} {numbers} is missing" for row in sorted(wanted - set(main))]
            name = "-".join(numbers)
            if options[1] == "directory" and wanted - set(_rows(folder / "episodes", f"{name}.rrd")):
                wrong.append(f"rows of {kind} {numbers} are missing in their episode")
            if options[2] == "own" and not _rows(folder, f"run-own-{name}.rrd")[("/n", value)]:
                wrong.append(f"the task recording of {kind} {numbers} is missing")
        elif kind == "joined":
            wanted = {(f"/joined/{row}", int(numbers[0])) for row in range(killed.ROWS)}
            wrong += [f"{row} of {kind} {numbers} is missing" for row in sorted(wanted - set(main))]
    return wrong


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000 * _SEED, 1000 * _SEED + _RUNS))
def test_no_row_of_a_result_is_lost_whoever_is_hit(seed: int, tmp_path: Path) -> None:
    """About 600 signals in all runs together. `MPR_TEST_SEED` repeats them, though not their exact moments."""
    chance = random.Random(seed)
    options = [chance.choice(support.START_METHODS), chance.choice(["file", "directory"]), chance.choice(["own", "no"])]
    print(f"seed {seed}: {options}")
    done = _hit_a_run(chance, tmp_path, options)
    print(f"seed {seed}: {len(done)} signals: {done}")
    assert _missing(tmp_path, options) == [], (tmp_path / "said").read_text()[-3000:]
