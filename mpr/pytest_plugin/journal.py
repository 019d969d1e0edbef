"""Records the begin and end of each test in a file, one JSON line per event, which the controller reads.

`workeroutput` of pytest-xdist would not do, because a worker that crashes sends none. A test has crashed if its journal
has its begin, but not its end, when all processes have ended.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_PREFIX, _SUFFIX = "journal-", ".jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A test has begun.

    Attributes
    ----------
    nodeid, attempt, worker, pid:
        The test, its attempt (from 0), and the process in which it runs; the worker's name is "main" without xdist.
    path:
        The path of its recording, relative to the run's folder.
    application_id:
        The application id of the recording.
    time:
        The time in seconds since the epoch.
    """

    nodeid: str
    attempt: int
    worker: str
    pid: int
    path: str
    application_id: str
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A test has ended, its teardown included.

    Attributes
    ----------
    path:
        The path in its `Started` event.
    outcome:
        "passed", "failed", "skipped" or "interrupted".
    kept:
        Whether the recording was kept.
    duration_secs:
        The time in seconds from the begin of the setup to the end of the teardown.
    complete:
        Whether all rows that were logged are in the recording, as far as mpr knows.
    notes:
        Notes for readers of the recording: which rows are not in it, and why.
    """

    path: str
    outcome: str
    kept: bool
    duration_secs: float
    complete: bool = True
    notes: tuple[str, ...] = ()


class Journal:
    """Writes the journal of one process.

    Each line is one `write` to a file that is open for appending. So another process cannot write into a line, and all
    lines are in the file if this process is killed.
    """

    def __init__(self, folder: Path, worker: str) -> None:
        self.pid = os.getpid()
        path = folder / f"{_PREFIX}{worker}-{self.pid}{_SUFFIX}"
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write(self, event: Started | Ended) -> None:
        """Add an event. Raises `OSError` if the disk refuses it."""
        line = json.dumps({"event": type(event).__name__.lower(), **asdict(event)}) + "\n"
        os.write(self._fd, line.encode())

    def phase(self, path: str, name: str, time: float) -> None:
        """Add that the test of the recording `path` has begun the phase `name`."""
        os.write(self._fd, (json.dumps({"event": "phase", "path": path, "name": name, "time": time}) + "\n").encode())

    def error(self, text: str) -> None:
        """Add an error of mpr itself."""
        os.write(self._fd, (json.dumps({"event": "error", "text": text}) + "\n").encode())

    def close(self) -> None:
        os.close(self._fd)


@dataclass(slots=True)
class JournaledTest:
    """The events of one recording; `end` is None if its process has died before the end of the test."""

    start: Started
    phases: list[tuple[str, float]] = field(default_factory=list)
    end: Ended | None = None


@dataclass(slots=True)
class Journals:
    """The content of all journals of a run, by the paths of recordings."""

    tests: dict[str, JournaledTest] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


def journal_files(folder: Path) -> list[Path]:
    """Return the journals in the folder of a run."""
    return sorted(folder.glob(f"{_PREFIX}*{_SUFFIX}"))


def read_journals(folder: Path) -> Journals:
    """Return the content of the journals in `folder`, with the tests in the order of their begin."""
    found = Journals()
    for path in journal_files(folder):
        for line in _lines(path):
            kind = line.pop("event", None)
            if kind == "started":
                found.tests[line["path"]] = JournaledTest(Started(**line))
            elif kind == "ended" and line["path"] in found.tests:
                line["notes"] = tuple(line["notes"])
                found.tests[line["path"]].end = Ended(**line)
            elif kind == "phase" and line["path"] in found.tests:
                found.tests[line["path"]].phases.append((line["name"], line["time"]))
            elif kind == "error":
                found.errors.append(line["text"])
    found.tests = dict(sorted(found.tests.items(), key=lambda each: each[1].start.time))
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(errors="replace").splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            # A full disk has cut the line off.
            continue
        if isinstance(found, dict):
            yield found
