"""Writes and reads journals. A journal is a file with one JSON line for each event of the tests in one process.

An event is the start or the end of a test, the start of a phase (setup, call, teardown), an error of mpr itself, or the
repair of a recording by `mpr recover`.

The `Controller` reads the journals of a run when all tests have ended. A test with a start but no end in a journal then
counts as crashed. The `workeroutput` of pytest-xdist, which is the data that a worker sends at its end, cannot replace
the journal: a worker that crashes sends no `workeroutput`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpr.pytest_plugin.recording import system
from mpr.pytest_plugin.recording.system import System
from mpr.pytest_plugin.results import FailedPhase, GoldenChange, Step

_PREFIX, _SUFFIX = "journal-", ".jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Says that an attempt (one execution) of a test has started.

    Attributes
    ----------
    nodeid, attempt, worker, pid:
        The node id of the test, the attempt (from 0), the name of the worker ("main" without pytest-xdist), and the id
        of the worker's process.
    path:
        The path of the test's recording, relative to the run's folder.
    application_id:
        The application id of the recording.
    time:
        The start of the test in seconds since the Unix epoch.
    parameters:
        The values of the test's parameters as texts, by their names.
    """

    nodeid: str
    attempt: int
    worker: str
    pid: int
    path: str
    application_id: str
    time: float
    parameters: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Says that an attempt (one execution) of a test has ended, its teardown included.

    Attributes
    ----------
    path:
        The path of the test's recording, as in the `Started` event of the test.
    outcome:
        The worst outcome of the phases: "passed", "failed", "skipped" or "interrupted".
    kept:
        True if the recording was kept, false if it was removed.
    duration_secs:
        The time in seconds from the start of the setup to the end of the teardown.
    complete:
        True if all rows that were logged are in the recording, as far as mpr knows.
    notes:
        Notes for readers of the recording: which rows are missing, and why.
    outcomes:
        The outcome of each phase by its name. A failed subtest and an interruption have the keys "subtests" and
        "interrupted".
    failures:
        Why the test has failed. Empty if it has not failed.
    goldens:
        The golden recordings that differed from the rows of the test.
    """

    path: str
    outcome: str
    kept: bool
    duration_secs: float
    complete: bool = True
    notes: tuple[str, ...] = ()
    outcomes: dict[str, str] = field(default_factory=dict)
    failures: tuple[FailedPhase, ...] = ()
    goldens: tuple[GoldenChange, ...] = ()


class Journal:
    """Writes the journal of one process. A line is in the file when the method that adds it returns.

    Parameters
    ----------
    folder:
        The folder of the run, which must exist.
    worker:
        The name of the worker, which becomes a part of the file's name.

    Attributes
    ----------
    pid:
        The id of the process that made this object.

    Raises
    ------
    OSError
        If the file cannot be made.
    """

    def __init__(self, folder: str, worker: str) -> None:
        self.pid: int = System.getpid()
        path = f"{folder}/{_PREFIX}{worker}-{self.pid}{_SUFFIX}"
        self._fd = System.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write(self, event: Started | Ended) -> None:
        """Add `event` to the journal. Raises `OSError` if the line cannot be written."""
        if isinstance(event, Started):
            self._add({"event": "started", **_fields(event)})
        else:
            lists = {"failures": event.failures, "goldens": event.goldens}
            inner = {name: [_fields(each) for each in events] for name, events in lists.items()}
            self._add({"event": "ended", **_fields(event), **inner})

    def phase(self, path: str, name: str, time: float) -> None:
        """Add the event that the phase `name` ("setup", "call" or "teardown") of a test has started.

        `path` is the path of the test's recording, as in `Started`. `time` is the start in seconds since the Unix
        epoch. Raises `OSError` if the line cannot be written.
        """
        self._add({"event": "phase", "path": path, "name": name, "time": time})

    def error(self, text: str) -> None:
        """Add an error of mpr itself, which `text` describes. Raises `OSError` if the line cannot be written."""
        self._add({"event": "error", "text": text})

    def recovered(self, path: str) -> None:
        """Add the event that `mpr recover` has repaired the recording at `path`, relative to the run's folder.

        Raises `OSError` if the line cannot be written.
        """
        self._add({"event": "recovered", "path": path})

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        System.close(fd)

    def _add(self, event: dict[str, Any]) -> None:
        system.write_all(self._fd, (system.to_json(event) + "\n").encode())


def _fields(event: Any) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__slots__}


@dataclass(slots=True)
class JournaledTest:
    """Holds the events of one attempt (one execution) of a test.

    `phases` has the name of each phase that has started, and its start in seconds since the Unix epoch. `end` is None
    if the test has not ended. `is_recovered` is true if `mpr recover` has repaired the recording.
    """

    start: Started
    phases: list[tuple[str, float]] = field(default_factory=list)
    end: Ended | None = None
    is_recovered: bool = False

    def steps(self) -> tuple[Step, ...]:
        """Return the phases that have started, with their outcomes and durations.

        A phase lasts until the next one starts. If the test has not ended, its last phase has the outcome "crashed" and
        no duration. Its other phases have the outcome "passed", because the journal has outcomes only of ended tests.
        """
        end = None if self.end is None else self.start.time + self.end.duration_secs
        outcomes = {} if self.end is None else self.end.outcomes
        found = []
        for (name, start), (_, stop) in zip(self.phases, [*self.phases[1:], ("", end)], strict=True):
            is_over = "crashed" if stop is None else "passed"
            secs = None if stop is None else max(0.0, stop - start)
            found.append(Step(name=name, outcome=outcomes.get(name, is_over), duration_secs=secs))
        return tuple(found)


@dataclass(slots=True)
class Journals:
    """Holds the content of all journals of a run.

    The keys of `tests` are the paths of the recordings, relative to the run's folder. `errors` has the texts of the
    errors of mpr itself.
    """

    tests: dict[str, JournaledTest] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


def journal_files(folder: Path) -> list[Path]:
    """Return the paths of all journals in `folder`, the folder of a run, sorted by name."""
    return sorted(folder.glob(f"{_PREFIX}*{_SUFFIX}"))


def read_journals(folder: Path) -> Journals:
    """Return the content of all journals in `folder`, the folder of a run. The tests are sorted by their start.

    Incomplete lines are left out, and so are events of tests without a start. Raises `OSError` if a journal cannot be
    read.
    """
    found = Journals()
    for path in journal_files(folder):
        for line in _lines(path):
            kind = line.pop("event", None)
            if kind == "started":
                found.tests[line["path"]] = JournaledTest(Started(**line))
            elif kind == "ended" and line["path"] in found.tests:
                line["notes"] = tuple(line["notes"])
                line["failures"] = tuple(FailedPhase(**each) for each in line["failures"])
                line["goldens"] = tuple(GoldenChange(**each) for each in line["goldens"])
                found.tests[line["path"]].end = Ended(**line)
            elif kind == "phase" and line["path"] in found.tests:
                found.tests[line["path"]].phases.append((line["name"], line["time"]))
            elif kind == "recovered" and line["path"] in found.tests:
                found.tests[line["path"]].is_recovered = True
            elif kind == "error":
                found.errors.append(line["text"])
    found.tests = dict(sorted(found.tests.items(), key=lambda each: each[1].start.time))
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(errors="replace").splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            # The line is incomplete, for example because the disk was full.
            continue
        if isinstance(found, dict):
            yield found
