"""What a process says of its tests while they run: one JSON line per event, read by whoever survives it.

Not `workeroutput` of pytest-xdist: a worker that crashes has none. A test that has begun and not ended when everything
is over has crashed, whatever ended it.
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
        Which test, the how-manieth attempt (from 0), and where it runs; the worker's name is "main" without xdist.
    path:
        Its recording, relative to the run's folder.
    application_id:
        Of the recording.
    time:
        Seconds since the epoch.
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
        As in `Started`: it belongs to that.
    outcome:
        "passed", "failed", "skipped" or "interrupted".
    kept:
        Whether the recording is there.
    duration_secs:
        From the begin of the setup to the end of the teardown.
    complete:
        Whether all that was logged is in the recording, as far as mpr knows.
    notes:
        What a reader of the recording must know: what is not in it, and why.
    """

    path: str
    outcome: str
    kept: bool
    duration_secs: float
    complete: bool = True
    notes: tuple[str, ...] = ()


class Journal:
    """Of one process. Each line is one `write` to a file that is open for appending, so that no line is torn by another
    process, and all are there when this one is killed."""

    def __init__(self, folder: Path, worker: str) -> None:
        self.pid = os.getpid()
        path = folder / f"{_PREFIX}{worker}-{self.pid}{_SUFFIX}"
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write(self, event: Started | Ended) -> None:
        """Raises `OSError` where the disk refuses."""
        line = json.dumps({"event": type(event).__name__.lower(), **asdict(event)}) + "\n"
        os.write(self._fd, line.encode())

    def phase(self, path: str, name: str, time: float) -> None:
        """The test of the recording `path` has come to the phase `name`."""
        os.write(self._fd, (json.dumps({"event": "phase", "path": path, "name": name, "time": time}) + "\n").encode())

    def error(self, text: str) -> None:
        """Something of mpr's own went wrong."""
        os.write(self._fd, (json.dumps({"event": "error", "text": text}) + "\n").encode())

    def close(self) -> None:
        os.close(self._fd)


@dataclass(slots=True)
class JournaledTest:
    """What the journals say of one recording: `end` is None where its process has not come to its end."""

    start: Started
    phases: list[tuple[str, float]] = field(default_factory=list)
    end: Ended | None = None


@dataclass(slots=True)
class Journals:
    """All journals of a run, put together."""

    tests: dict[str, JournaledTest] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


def journal_files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_PREFIX}*{_SUFFIX}"))


def read_journals(folder: Path) -> Journals:
    """What the journals in `folder` say, by the recording's path, in the order of their begin."""
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
            # A full disk has cut it.
            continue
        if isinstance(found, dict):
            yield found
