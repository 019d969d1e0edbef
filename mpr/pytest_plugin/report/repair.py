"""Repairs the recording of a test whose process has died, and adds the outcome "crashed" to the recording."""

from __future__ import annotations

import shlex
from pathlib import Path

from mpr.errors import SinkError
from mpr.pytest_plugin.journal import JournaledTest
from mpr.pytest_plugin.results import FailedPhase, RecordedTest
from mpr.rrd import append

CRASHED = "crashed"


def repaired(folder: Path, test: JournaledTest, errors: list[str]) -> RecordedTest:
    """Repair the recording of a test that has started and never ended, and return the result of the test.

    `folder` is the folder of the run, and `test` has the journaled events of the test. If the recording cannot be
    repaired, the reason is added to `errors`, and the result is returned nevertheless. The `path` in the result is None
    if the recording does not exist.
    """
    # Imported here because the import needs the SDK, and the process of the controller may record no test itself.
    from mpr.pytest_plugin.recording import test_rows

    path = folder / test.start.path
    phase = test.phases[-1][0] if test.phases else "setup"
    note = (
        f"the process {test.start.pid} has died during the {phase} of this test: what it had logged last may be missing"
    )
    died = FailedPhase(phase=phase, message=note)
    try:
        append.append(
            path,
            test.start.application_id,
            lambda stream: test_rows.log_test(
                stream.inner, nodeid=test.start.nodeid, attempt=test.start.attempt, worker=test.start.worker,
                outcome=CRASHED, phases=test.phases, failures=[], notes=[note], explained=[died],
            ),
        )  # fmt: skip
    except SinkError as error:
        errors.append(f"{error}; try: mpr recover {shlex.quote(str(path))}")
    return RecordedTest(
        nodeid=test.start.nodeid,
        attempt=test.start.attempt,
        worker=test.start.worker,
        outcome=CRASHED,
        started=test.start.time,
        duration_secs=None,
        path=path if path.exists() else None,
        size_bytes=path.stat().st_size if path.exists() else 0,
        complete=False,
        notes=(note,),
        parameters=test.start.parameters,
        failures=(died,),
        steps=test.steps(),
    )
