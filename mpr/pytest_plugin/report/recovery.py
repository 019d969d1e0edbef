"""Repairs the recordings of a run of pytest that was killed, for the command `mpr recover`.

Covers: which recordings belong to tests that were running, and the rows about these tests.
Does not cover: the files of other programs, and recordings of tests that have ended (`mpr.rrd.recover`).
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

from mpr.errors import FormatError, SinkError
from mpr.pytest_plugin.journal import Journal, JournaledTest, Journals, journal_files, read_journals
from mpr.pytest_plugin.report import layout, repair
from mpr.rrd import framing
from mpr.rrd.survey import reader_of, survey


class KilledRuns:
    """Repairs recordings of runs that were killed.

    An object reads the journals of a run only once, for the first recording of the run.
    """

    def __init__(self) -> None:
        self._journals: dict[Path, Journals] = {}

    def recover(self, path: Path) -> str | None:
        """Repair the recording at `path` if the test's process has died before the end of the test.

        Returns a text about the repair. Returns None and changes nothing if `path` belongs to no test, if the test has
        ended, or if the recording was repaired before. The recording gets the node id, the outcome "crashed" and the
        phases of the test, and if possible the layout of `layout.py`. Raises `SinkError` if the process still runs, or
        if the recording cannot be repaired. Raises `OSError` if a journal cannot be read or written.
        """
        folder = path.parent
        if folder not in self._journals:
            self._journals[folder] = read_journals(folder) if journal_files(folder) else Journals()
        test = self._journals[folder].tests.get(path.name)
        if test is None or test.end is not None or test.is_recovered:
            return None
        if _is_running(test):
            raise SinkError(f"{path} is being written by the process {test.start.pid}, which runs {test.start.nodeid}")
        errors: list[str] = []
        had_rows = _has_rows(path)
        result = repair.repaired(folder, test, errors)
        if errors:
            raise SinkError("; ".join(errors))
        # The recording is whole already. Without the layout it is only harder to look at.
        with contextlib.suppress(Exception):
            layout.add_layout(path)
        journal = Journal(str(folder), "recover")
        try:
            journal.recovered(path.name)
        finally:
            journal.close()
        phase = result.steps[-1].name if result.steps else "setup"
        # The test may have logged rows just before its process died.
        empty = "" if had_rows else "; no row of it was in the file"
        return f"{path}: recovered: {test.start.nodeid} crashed during its {phase}{empty}"


def _is_running(test: JournaledTest) -> bool:
    with contextlib.suppress(psutil.Error):
        # A process that was created later is another process with the same process id.
        created: float = psutil.Process(test.start.pid).create_time()
        return created <= test.start.time
    return False


def _has_rows(path: Path) -> bool:
    """Return True if there may be rows in the file at `path`. Raises `SinkError` if the file cannot be read."""
    try:
        with path.open("rb") as file:
            return survey(reader_of(file.fileno()), path.stat().st_size).chunk_count > 0
    except FormatError:
        # The file is shorter than a header, or only the SDK knows its format.
        return path.stat().st_size > framing.HEADER_SIZE
    except OSError as error:
        raise SinkError(error.errno, f"cannot recover {path}: {error.strerror}") from error
