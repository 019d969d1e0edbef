"""Writes rows about a test into the test's recording, beside the rows that the test logs.

| entity | content |
|---|---|
| property `pytest` | node id, attempt, worker, outcome |
| `pytest/phase` | a row at the start of setup, call and teardown |
| `pytest/output/stdout`, `pytest/output/stderr` | the output of the test, as far as pytest captures it |
| `pytest/logs/<logger>` | the `logging` records of the test (`logging_capture.py` writes them) |
| `pytest/failure` | pytest's text about a phase that failed, with the traceback |
| `pytest/report` | a document that says why the test has failed; only if it has failed |
| `pytest/notes` | notes that say which rows are not in the recording, and why |
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mpr.pytest_plugin.options import REPORT, ROOT
from mpr.pytest_plugin.recording.system import System
from mpr.pytest_plugin.results import FailedPhase
from mpr.sdk import native

if TYPE_CHECKING:
    from mpr.pytest_plugin.recording.running_test import RunningTest

_FENCE, _MARKS = re.compile("~+"), re.compile("`+")


def log_output(running: RunningTest) -> None:
    """Write the output that pytest has captured since this function was last called, one row for each line.

    `running` is the running test. Only standard output and standard error are written. All rows have the present time,
    because pytest does not say when a line was printed.
    """
    for _when, kind, text in running.new_output():
        lines = text.splitlines() if kind in ("stdout", "stderr") else []
        if lines:
            running.note_rows()
            level = "INFO" if kind == "stdout" else "WARN"
            times = [System.now()] * len(lines)
            native.send_texts(running.stream.handle, f"{ROOT}/output/{kind}", lines, times, level)


def log_end(running: RunningTest, outcome: str, worker: str) -> None:
    """Write the outcome, phases, failures and notes of the test `running` into its recording, at its end.

    `outcome` is the outcome of the test, and `worker` the name of the worker of pytest-xdist.
    """
    log_test(
        running.stream.handle, nodeid=running.item.nodeid, attempt=running.attempt, worker=worker, outcome=outcome,
        phases=running.phases, failures=running.failures(), notes=running.notes, explained=running.explained,
    )  # fmt: skip


def log_test(
    handle: Any,
    *,
    nodeid: str,
    attempt: int,
    worker: str,
    outcome: str,
    phases: Sequence[tuple[str, float]],
    failures: Iterable[tuple[str, str]],
    notes: Iterable[str],
    explained: Sequence[FailedPhase] = (),
) -> None:
    """Write the outcome, phases, failures and notes of any test, even of a test whose process has died.

    Parameters
    ----------
    handle:
        The SDK's native object for the recording.
    nodeid, attempt, worker, outcome:
        The node id of the test, the attempt (from 0), the name of the worker, and the outcome.
    phases:
        The name of each phase, and its start in seconds since the Unix epoch.
    failures:
        The name of each phase that failed, and pytest's text about the failure.
    notes:
        Notes that say which rows are not in the recording, and why.
    explained:
        Why the test has failed. Empty if it has not failed.
    """
    native.send_property(handle, ROOT, {"nodeid": nodeid, "attempt": attempt, "worker": worker, "outcome": outcome})
    if phases:
        native.send_texts(handle, f"{ROOT}/phase", [name for name, _ in phases], [time for _, time in phases])
    for phase, text in failures:
        native.log_text(handle, f"{ROOT}/failure", f"{phase} failed\n{text}", "ERROR")
    for note in notes:
        native.log_text(handle, f"{ROOT}/notes", note, "WARN")
    if explained:
        native.log_document(handle, REPORT, _document(nodeid, explained))


def _document(nodeid: str, failures: Iterable[FailedPhase]) -> str:
    """Return a document in Markdown that describes `failures`, the failed phases of the test `nodeid`."""
    parts = []
    for each in failures:
        parts.append(f"## {_code(each.message)}")
        has_text = each.text.strip() not in ("", each.message)
        end = ":" if each.source or has_text else "."
        place = f", at {_code(each.where)}" if each.where else ""
        parts.append(f"{_code(nodeid)} failed in the {each.phase}{place}{end}")
        if each.source:
            parts.append(f"    {each.source}")
        if has_text:
            # A fence is longer than any row of these characters in the text.
            fence = "~" * max(4, 1 + max(len(run) for run in _FENCE.findall(each.text) or [""]))
            parts.append(f"{fence}\n{each.text}\n{fence}")
    return "\n\n".join(parts)


def _code(text: str) -> str:
    """Return `text` as code in Markdown, so that none of its characters has a special meaning."""
    marks = "`" * (1 + max(len(run) for run in _MARKS.findall(text) or [""]))
    return f"{marks} {text} {marks}" if "`" in text else f"`{text}`"
