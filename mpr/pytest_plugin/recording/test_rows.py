"""Writes rows about a test into the test's recording, beside the rows that the test logs.

| entity | content |
|---|---|
| property `pytest` | node id, attempt, worker, outcome |
| `pytest/phase` | a row at the begin of setup, call and teardown |
| `pytest/output/stdout`, `pytest/output/stderr` | the output of the test, as far as pytest captures it |
| `pytest/logs/<logger>` | the `logging` records of the test |
| `pytest/failure` | pytest's text about a phase that failed, with the traceback |
| `pytest/notes` | notes that say which rows are not in the recording, and why |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import rerun as rr

    from mpr.pytest_plugin.recording.running_test import RunningTest


ROOT = "pytest"
LOGS = f"{ROOT}/logs"


def log_output(running: RunningTest) -> None:
    """Write the output (stdout, stderr) that pytest has captured in the phase that has just ended."""
    import rerun as rr

    for _when, kind, text in running.new_output():
        if kind in ("stdout", "stderr") and text:
            running.note_rows()
            level = rr.TextLogLevel.INFO if kind == "stdout" else rr.TextLogLevel.WARN
            for line in text.splitlines():
                running.stream.native.log(f"{ROOT}/output/{kind}", rr.TextLog(line, level=level))


def log_end(running: RunningTest, outcome: str, worker: str) -> None:
    """Write the outcome, phases, failures and notes of a test that has ended in this process."""
    log_test(
        running.stream.native, nodeid=running.item.nodeid, attempt=running.attempt, worker=worker, outcome=outcome,
        phases=running.phases, failures=running.failures, notes=running.notes,
    )  # fmt: skip


def log_test(
    stream: rr.RecordingStream,
    *,
    nodeid: str,
    attempt: int,
    worker: str,
    outcome: str,
    phases: Sequence[tuple[str, float]],
    failures: Iterable[tuple[str, str]],
    notes: Iterable[str],
) -> None:
    """Write the outcome, phases, failures and notes of a test to `stream`. The process of the test may have died.

    Parameters
    ----------
    stream:
        The stream of the test's recording, or one that appends to it.
    nodeid, attempt, worker, outcome:
        The values of the property `pytest`, as in `RecordedTest`.
    phases, failures, notes:
        As in `RunningTest`.
    """
    import pyarrow as pa
    import rerun as rr

    values = {"nodeid": nodeid, "attempt": attempt, "worker": worker, "outcome": outcome}
    # The values are Arrow arrays, because the SDK converts plain values slowly. This conversion would take as much time
    # as all other work for the recording of an empty test.
    stream.send_property(ROOT, rr.AnyValues(**{name: pa.array([value]) for name, value in values.items()}))
    if phases:
        index: Any = rr.TimeColumn("log_time", timestamp=[time for _, time in phases])
        stream.send_columns(f"{ROOT}/phase", [index], rr.TextLog.columns(text=[name for name, _ in phases]))
    for phase, text in failures:
        stream.log(f"{ROOT}/failure", rr.TextLog(f"{phase} failed\n{text}", level=rr.TextLogLevel.ERROR))
    for note in notes:
        stream.log(f"{ROOT}/notes", rr.TextLog(note, level=rr.TextLogLevel.WARN))
