"""Modes of a pool in combination: the rows of each result are in every sink, whatever else is chosen.

Faults hide in pairs of modes. So every pair of values of two modes is in one of these pools. With `-m slow`, more
combinations are drawn at random, from a seed that is in the name of the test.
"""

from __future__ import annotations

import functools
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import rerun as rr
import rerun.blueprint as rrb
from allpairspy import AllPairs

import mpr
from mpr.producer import log_counters, outbox_writer, router
from mpr.rrd import manifest_store
from mpr.rrd.manifest import Manifest
from mpr.rrd.verify import verify
from mpr.transport.status_page import _BACK_PRESSURE
from tests import support


class Modes(NamedTuple):
    """One value of each mode."""

    start_method: str
    route: str
    sinks: str
    logs: str
    limits: str
    chunksize: int
    kill: str
    retries: int
    telemetry: bool


_VALUES: dict[str, tuple[Any, ...]] = {
    "start_method": ("fork", "forkserver", "spawn"),
    "route": ("memory", "messages", "direct"),
    "sinks": ("file", "compact", "directory", "directory and file", "stream and file"),
    "logs": ("rows", "columns", "images", "threads", "blueprint", "own recordings"),
    "limits": ("usual", "low", "small outbox"),
    "chunksize": (1, 4),
    "kill": (
        "", "task", "worker.claimed", "worker.ended", "worker.flushed", "worker.noted", "worker.sent", "worker.roll",
        "worker.opened", "worker.rolled",
    ),
    "retries": (0, 1),
    "telemetry": (False, True),
}  # fmt: skip


def _is_possible(values: list[Any]) -> bool:
    chosen = dict(zip(Modes._fields, values, strict=False))
    # Only files and viewers can be written without the parent, and each worker has its own files then.
    return chosen.get("route") != "direct" or (
        chosen.get("sinks", "file") in ("file", "compact")
        and chosen.get("logs", "rows") not in ("own recordings", "blueprint")
    )


_PAIRS = [Modes(*values) for values in AllPairs([list(each) for each in _VALUES.values()], filter_func=_is_possible)]


def _drawn(seed: int) -> Modes:
    draw = random.Random(seed)
    while True:
        values = [draw.choice(each) for each in _VALUES.values()]
        if _is_possible(values):
            return Modes(*values)


# --- what a task logs, and what must come -------------------------------------------------------------------------

_TASKS = 12
_ROWS = 5


def _row(number: int, attempt: int, index: int) -> float:
    return float(1000 * number + 100 * attempt + index)


def _rows(number: int, attempt: int) -> Counter[int]:
    return Counter(int(_row(number, attempt, index)) for index in range(_ROWS))


def _log(logs: str, number: int, attempt: int) -> None:
    rows = [_row(number, attempt, index) for index in range(_ROWS)]
    if logs == "columns":
        rr.send_columns(
            "n", [rr.TimeColumn("step", sequence=np.arange(_ROWS))], rr.Scalars.columns(scalars=np.array(rows))
        )
        return
    if logs == "blueprint":
        rr.send_blueprint(rrb.Blueprint(rrb.TimeSeriesView(origin="n")))
    if logs == "own recordings":
        with rr.RecordingStream("own", recording_id=f"own-{number}-{attempt}"):
            for row in rows:
                rr.log("n", rr.Scalars(row))
    for row in rows:
        if logs == "threads":
            thread = threading.Thread(target=rr.log, args=("n", rr.Scalars(row)))
            thread.start()
            thread.join()
        else:
            rr.log("n", rr.Scalars(row))
        if logs == "images":
            rr.log("image", rr.Image(np.full((64, 64, 3), number, np.uint8)))


def _task(modes: Modes, number: int) -> int:
    task = mpr.current_task()
    assert task is not None
    _log(modes.logs, number, task.attempt)
    if modes.kill == "task" and number == 5 and task.attempt == 1:
        rr.get_global_data_recording().flush()  # type: ignore[union-attr]  # a worker has one
        os.kill(os.getpid(), signal.SIGKILL)
    return task.attempt


def _lower_limits_here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a worker wait for room after a few kilobytes, and keep nothing in memory that can be on the disk.

    Returns a list that gets the number of manifests each time that some are moved to the disk.
    """
    monkeypatch.setattr("mpr.limits.OUTBOX_MIN_BYTES", 8 * 1024)
    monkeypatch.setattr("mpr.limits.OUTBOX_MAX_BYTES", 16 * 1024)
    monkeypatch.setattr(manifest_store, "MANIFEST_STORE_MAX_BYTES", 0)
    spilled: list[int] = []
    on_disk = manifest_store._on_disk

    def note(manifests: list[Manifest], folder: Path) -> list[Manifest]:
        spilled.append(len(manifests))
        return on_disk(manifests, folder)

    monkeypatch.setattr(manifest_store, "_on_disk", note)
    return spilled


def _lower_limits(limits: str) -> None:
    """Flush and look for room after every row, and with low limits change the outbox. This runs in each worker."""
    log_counters.CHECK_EVERY_BYTES = 1
    outbox_writer.UNFLUSHED_MAX_BYTES = 1
    if limits == "low":
        # An outbox that is changed so often is full only if a single row is too large for it.
        outbox_writer.OUTBOX_ROLL_BYTES = 1


def _sinks(modes: Modes, folder: Path) -> tuple[list[Any], list[Any]]:
    """Return the sinks of a pool, and the stream sinks among them."""
    file = mpr.FileSink(path=folder / "run.rrd", compact=modes.sinks == "compact")
    if modes.sinks == "stream and file":
        stream = mpr.BinaryStreamSink(memory_bytes=2**24 if modes.limits == "usual" else 1)
        return [stream, file], [stream]
    episodes = mpr.DirectorySink(path=folder / "episodes", name="{index:d}-{attempt}.rrd")
    return {"directory": [episodes], "directory and file": [episodes, file]}.get(modes.sinks, [file]), []


def _check(modes: Modes, folder: Path, attempts: dict[int, int]) -> None:
    """Check that every sink has the rows of each result once, and no rows but those of attempts."""
    wanted = sum((_rows(number, attempt) for number, attempt in attempts.items()), Counter[int]())
    if (folder / "run.rrd").exists():
        _check_rows(folder / "run.rrd", wanted)
        assert all(each.is_whole or not modes.telemetry for each in verify(folder / "run.rrd"))
    if (folder / "stream.rrd").exists():
        if modes.logs == "own recordings":
            # The stream has all recordings, so it has each row twice.
            assert support.rerun_cli("rrd", "verify", folder / "stream.rrd").returncode == 0
            assert wanted + wanted - support.numbers(folder / "stream.rrd") == Counter()
        else:
            _check_rows(folder / "stream.rrd", wanted)
    if "directory" in modes.sinks:
        for number, attempt in attempts.items():
            path = folder / "episodes" / f"{number}-{attempt}.rrd"
            support.check_file(path)
            assert _rows(number, attempt) == support.numbers(path)
    if modes.logs == "own recordings":
        for number, attempt in attempts.items():
            paths = list(folder.rglob(f"*own-{number}-{attempt}.rrd"))
            assert len(paths) == 1 + (modes.sinks == "directory and file")
            for path in paths:
                support.check_file(path)
                assert _rows(number, attempt) == support.numbers(path)


def _check_rows(path: Path, wanted: Counter[int]) -> None:
    support.check_file(path)
    found = support.numbers(path)
    assert wanted - found == Counter()
    possible = sum((_rows(number, attempt) for number in range(_TASKS) for attempt in (1, 2)), Counter[int]())
    assert found - possible == Counter()


def _run(modes: Modes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if modes.route == "messages":
        monkeypatch.setattr("mpr.aggregator.intake.OutboxReader", _refuse)
    if modes.kill.startswith("worker"):
        monkeypatch.setenv("MPR_FAILPOINTS", f"{modes.kill}@1:2:kill")
    spilled = [] if modes.limits == "usual" else _lower_limits_here(monkeypatch)
    sinks, streams = _sinks(modes, folder)
    readers = [threading.Thread(target=_read, args=(stream, folder / "stream.rrd")) for stream in streams]
    with (
        mpr.SharedRecording(
            "app", sinks=sinks, route="direct" if modes.route == "direct" else "funnel", telemetry_view=modes.telemetry
        ) as recording,
        mpr.Pool(
            "app",
            2,
            recording=recording,
            start_method=modes.start_method,  # type: ignore[arg-type]  # one of the three
            initializer=None if modes.limits == "usual" else functools.partial(_lower_limits, modes.limits),
            retries=modes.retries,
            telemetry=modes.telemetry,
        ) as pool,
    ):
        # After the pool, because `fork` must not have other threads.
        for reader in readers:
            reader.start()
        attempts = _results(pool, modes)
    for reader in readers:
        reader.join()
    if not modes.kill or modes.retries:
        assert len(attempts) == _TASKS
    _check(modes, folder, attempts)
    assert bool(spilled) == (modes.limits != "usual")
    assert recording.stats().lost_rows == 0


def _wait_for_room(_: int) -> tuple[int, int]:
    """Log until there is no room in the outbox. Returns the number of the outbox, and how long it has waited (ns)."""
    producer: Any = router.producer()
    for number in range(100):
        if number >= 5 and producer.status_page.counters[_BACK_PRESSURE]:
            break
        # Each image is larger than the outbox may be. But the parent may take it before the next one is logged. Noise,
        # because the SDK compresses.
        noise = np.random.default_rng(number).integers(0, 255, (200, 200, 3), np.uint8)
        rr.log("image", rr.Image(noise))
    return producer._writer.announcer.current.number, producer.status_page.counters[_BACK_PRESSURE]


@pytest.mark.parametrize("limits", ["low", "small outbox"])
def test_low_limits_are_reached(limits: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spilled = _lower_limits_here(monkeypatch)
    lower = functools.partial(_lower_limits, limits)
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", start_method="fork", initializer=lower) as pool:
        for outbox, waited_ns in pool.map(_wait_for_room, range(3), chunksize=1):
            assert (outbox > 0, waited_ns > 0) == (limits == "low", True)
    assert spilled
    support.check_file(tmp_path / "run.rrd")


def _results(pool: mpr.Pool, modes: Modes) -> dict[int, int]:
    """Return the attempt of each task that has a result. The others have failed with their worker."""
    found = {}
    task = functools.partial(_task, modes)
    results = pool.imap(task, range(_TASKS), chunksize=modes.chunksize)
    for number in range(_TASKS):
        try:
            found[number] = next(results)
        except mpr.WorkerDiedError:
            assert modes.kill
    return found


def _read(stream: Any, path: Path) -> None:
    path.write_bytes(b"".join(stream))


def _refuse(*_: object) -> None:
    raise PermissionError


def _name(modes: Modes) -> str:
    return "-".join(str(each) for each in modes).replace(" ", "_")


@pytest.mark.filterwarnings("ignore::rerun.error_utils.RerunWarning")
@pytest.mark.parametrize("modes", _PAIRS, ids=_name)
def test_the_rows_of_each_result_are_in_every_sink(
    modes: Modes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _run(modes, tmp_path, monkeypatch)


_SEED = int(os.environ.get("MPR_TEST_SEED", time.time_ns() // 1_000_000_000 // 3600))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::rerun.error_utils.RerunWarning")
@pytest.mark.parametrize("seed", range(1000 * _SEED, 1000 * _SEED + 100))
def test_the_rows_of_each_result_are_in_every_sink_in_modes_drawn_at_random(
    seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    modes = _drawn(seed)
    print(f"seed {seed}: {modes}")
    _run(modes, tmp_path, monkeypatch)
