"""Compares the rows of a test with its golden recordings, and writes golden recordings.

A golden recording is a file with the rows that a test should log: `__recordings__/<module>/<test>.rrd` beside the
test's module. Usually, an earlier run of the test has written this file. A test may have several golden recordings with
different names.

Entities at and below `/__properties`, `/mpr` and `/pytest` are neither compared nor written. They have the properties
of the recording, and the rows of mpr itself.

Covers: the files of golden recordings, when these files are written, and the message of a test whose rows differ.
Does not cover: the comparison of two files (`mpr.compare.compare`), and the content of a golden recording
(`golden_file.py`).
"""

from __future__ import annotations

import functools
import os
import shlex
import tempfile
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from mpr import files
from mpr.compare import compare, reading
from mpr.errors import RecordingError
from mpr.pytest_plugin.options import ROOT
from mpr.pytest_plugin.recording import file_names
from mpr.pytest_plugin.recording.running_test import CALL
from mpr.pytest_plugin.results import GoldenChange

if TYPE_CHECKING:
    from mpr.compare.compare import Level
    from mpr.pytest_plugin.recording.recorder import Recorder
    from mpr.pytest_plugin.recording.test_stream import TestStream

FOLDER = "__recordings__"
#: Two properties of pytest's reports: the golden recordings that a test has used, and those that it has written.
USED, WRITTEN = "mpr_golden", "mpr_golden_written"
# Entities with rows about the run. These rows are not compared, because they do not belong to the test.
_OF_RUN = (*compare.IGNORED_ENTITIES, f"/{ROOT}/**")
# What reading and writing a recording may raise: errors of the system, and those of the SDK's reader.
_FAILURES = (OSError, RuntimeError, ValueError, LookupError, TypeError)
# The largest number of golden recordings that the summary names.
_MOST_LINES = 20


class Golden:
    """Compares the rows of one test with its golden recordings. This object is the value of the fixture `mpr_golden`.

    Parameters
    ----------
    item:
        The test.
    recorder:
        The recorder of this process. If this is None, a comparison fails the test, because the test is not recorded.
    """

    def __init__(self, item: pytest.Item, recorder: Recorder | None) -> None:
        self._item = item
        self._recorder = recorder
        self._names: set[str | None] = set()

    def __call__(
        self,
        *,
        level: Level = "values",
        ignore_timelines: Collection[str] = (),
        ignore_entities: Collection[str] = (),
        tolerance: float = 0.0,
        name: str | None = None,
    ) -> None:
        """Compare the rows that the test has logged until now with its golden recording. If they differ, fail the test.

        If there is no golden recording, write it. With `--mpr-golden-fail-if-missing`, the test fails instead. With
        `--mpr-golden-update`, a golden recording that is missing or differs is written, and the test does not fail. A
        golden recording that cannot be read counts as one that differs.

        The test also fails if it is not recorded, if its recording cannot be read or has got another sink (`rr.save`),
        if there are no rows to write, if the file cannot be written, or if it uses the same `name` twice.

        Parameters
        ----------
        level:
            `"summary"` compares the entities, components and timelines, their types, the numbers of cells with times,
            and the first and last times. A cell has the values of one component of one entity in one row. `"values"`
            also compares the values of all cells.
        ignore_timelines:
            Names of timelines that are not compared, besides `log_time` and `log_tick`.
        ignore_entities:
            Paths of entities that are neither compared nor written. `/camera/**` means `/camera` and all entities below
            `/camera`. Properties of the recording and rows of mpr itself are ignored without being named here.
        tolerance:
            Two floating point numbers may differ by `tolerance` times the absolute expected number. If this absolute
            number is smaller than 1, they may differ by `tolerance` itself.
        name:
            A name for this golden recording. If a test calls this object several times, each call needs a different
            name. One of the calls may have no name.

        Raises
        ------
        ConfigError
            If `level` is neither "values" nor "summary".
        """
        __tracebackhide__ = True
        compare.check_level(level)
        if name in self._names:
            twice = f"the name {name!r}" if name else "no name"
            _fail(f"mpr_golden: this test has compared a recording with {twice} already: give each its own")
        self._names.add(name)
        golden = self._path(name)
        self._note(USED, golden)
        with tempfile.TemporaryDirectory(prefix="golden-") as folder:
            actual = Path(folder, "actual.rrd")
            self._snapshot(actual)
            ignored = (*_OF_RUN, *ignore_entities)
            if not golden.exists():
                self._missing(golden, actual, ignored)
                return
            try:
                _check(golden)
                found = compare.all_differences(
                    golden,
                    actual,
                    level=level,
                    ignore_timelines=(*compare.IGNORED_TIMELINES, *ignore_timelines),
                    ignore_entities=ignored,
                    tolerance=tolerance,
                )
            except RecordingError as error:
                found = [compare.Difference(str(error))]
            if found and self._settings.golden_update:
                self._update(golden, actual, ignored, found)
            elif found:
                self._differs(golden, actual, ignored, found)

    def at_teardown(self) -> None:
        """Compare the rows as `__call__` does without arguments, unless the test has called this object already.

        Does nothing if the call phase has not passed, or if the test is not recorded. If the rows differ, the teardown
        of the test fails.
        """
        __tracebackhide__ = True
        running = self._recorder.current if self._recorder is not None else None
        if not self._names and running is not None and running.outcomes.get(CALL) == "passed":
            self()

    @property
    def _settings(self) -> Any:
        assert self._recorder is not None
        return self._recorder.settings

    def _path(self, name: str | None) -> Path:
        # The node id begins with the path of the test's file. This part is left out, because it depends on the rootdir
        # of pytest.
        test = file_names.without_group(self._item.nodeid).partition("::")[2] or self._item.name
        stem = file_names.stem(test if name is None else f"{test}::{name}")
        return self._item.path.parent / FOLDER / file_names.clean(self._item.path.stem) / f"{stem}.rrd"

    def _snapshot(self, target: Path) -> None:
        __tracebackhide__ = True
        recorder = self._recorder
        if recorder is None or recorder.current is None:
            why = recorder.errors.of_test if recorder is not None else ()
            _fail(f"mpr_golden: this test is not recorded: {'; '.join(why) or 'its recording could not be begun'}")
        if recorder.current.stream.is_taken():
            _fail("mpr_golden: the test has given its recording another sink (rr.save or the like)")
        try:
            recorder.snapshot(target)
        except (RuntimeError, OSError) as error:
            _fail(f"mpr_golden: what this test has logged cannot be read: {error}")

    def _missing(self, golden: Path, actual: Path, ignored: Collection[str]) -> None:
        __tracebackhide__ = True
        if self._settings.golden_fail_if_missing and not self._settings.golden_update:
            _fail(f"there is no golden recording {self._shown(golden)}. To write it: {self._update_command()}")
        self._write(golden, actual, ignored)

    def _update(
        self, golden: Path, actual: Path, ignored: Collection[str], found: Sequence[compare.Difference]
    ) -> None:
        """Replace the rows in `golden` by the rows of `actual`, without the entities in `ignored`.

        Copies of the old and the new file are kept for the report, with the first of the differences `found`. If a copy
        cannot be written, the report does not show the change. Fails the test if there are no rows to write, or if
        `golden` cannot be written.
        """
        __tracebackhide__ = True
        before = _content(golden)
        self._write(golden, actual, ignored)
        # Without the copies, the report does not show what has changed.
        with suppress(OSError):
            kept = self._artifact(golden)
            kept.write_bytes(golden.read_bytes())
            self._note_change(golden, before, kept, found, written=True)

    def _differs(
        self, golden: Path, actual: Path, ignored: Collection[str], found: Sequence[compare.Difference]
    ) -> NoReturn:
        __tracebackhide__ = True
        lines = "\n".join(f"  {each}" for each in compare.sentences(found))
        _fail(
            f"what the test logged differs from its golden recording:\n{lines}\n"
            f"{self._kept(golden, actual, ignored, found)}\n"
            f"Where the new one is right: {self._update_command()}"
        )

    def _kept(self, golden: Path, actual: Path, ignored: Collection[str], found: Sequence[compare.Difference]) -> str:
        """Write the rows of `actual`, without the entities in `ignored`, to a file in `Recorder.artifacts()`.

        Also note the differences `found` for the report. Returns a sentence for the message of the failed test: the
        command that shows `golden` and the new file. If there are no rows, or if a file cannot be written, the sentence
        says this instead.
        """
        try:
            kept = self._artifact(golden)
            if not self._store(kept, actual, ignored):
                return "There is nothing in the new one."
            self._note_change(golden, _content(golden), kept, found, written=False)
        except _FAILURES as error:
            return f"The new one could not be kept: {error}"
        return f"See both: {shlex.join(['rerun', self._shown(golden), self._shown(kept)])}"

    def _artifact(self, golden: Path) -> Path:
        assert self._recorder is not None
        return self._recorder.artifacts() / golden.name

    def _note_change(
        self, golden: Path, before: bytes, kept: Path, found: Sequence[compare.Difference], *, written: bool
    ) -> None:
        """Note for the report that the new rows in the file `kept` differ from the golden recording `golden`.

        `before` is the content of `golden` before any change. It is copied to a file beside `kept`. `found` has at
        least one difference. `written` is true if the new rows have replaced `golden`. Raises `OSError` if the copy
        cannot be written.
        """
        running = self._recorder.current if self._recorder is not None else None
        assert running is not None
        old = kept.with_name(f"{kept.stem}-before.rrd")
        old.write_bytes(before)
        timeline, time = next((each.moment for each in found if each.moment is not None), (None, None))
        running.goldens.append(
            GoldenChange(
                name=self._shown(golden),
                before=os.path.relpath(old, self._settings.folder),
                after=os.path.relpath(kept, self._settings.folder),
                written=written,
                first=found[0].text,
                timeline=timeline,
                time=time,
            )
        )

    def _write(self, golden: Path, actual: Path, ignored: Collection[str]) -> None:
        __tracebackhide__ = True
        try:
            golden.parent.mkdir(parents=True, exist_ok=True)
            with files.temporary_beside(golden, ".tmp", 0o666) as (_, part):
                if not self._store(part, actual, ignored):
                    _fail("mpr_golden: this test has logged nothing that could be compared")
                part.replace(golden)
        except _FAILURES as error:
            _fail(f"mpr_golden: cannot write {self._shown(golden)}: {getattr(error, 'strerror', None) or error}")
        self._note(WRITTEN, golden)

    def _store(self, target: Path, actual: Path, ignored: Collection[str]) -> bool:
        """Write the rows of the recording `actual`, without the entities in `ignored`, to the new recording `target`.

        Returns True if rows were written. Returns False and writes nothing if all rows belong to ignored entities.
        Raises one of `_FAILURES` if the rows cannot be read or written.
        """
        from mpr.pytest_plugin import golden_file
        from mpr.sdk.reader import quiet_reader

        is_ignored = compare.matcher(ignored)
        reader = quiet_reader(actual)
        chunks = (chunk for entry in reader.recordings() for chunk in reader.stream(store=entry))
        counting = [chunk for chunk in chunks if not is_ignored(str(chunk.entity_path))]
        if not counting:
            return False
        # A fixed id, because the id of the test's own recording may be the name of the folder of the checkout.
        stream = _stream("golden", os.getpid())
        golden_file.write(str(target), counting, stream, compare.IGNORED_TIMELINES)
        return True

    def _note(self, kind: str, golden: Path) -> None:
        self._item.user_properties.append((kind, self._shown(golden)))

    def _shown(self, path: Path) -> str:
        return os.path.relpath(path, self._item.config.invocation_params.dir)

    def _update_command(self) -> str:
        return shlex.join(["pytest", "--mpr-golden-update", self._item.nodeid])


# For each golden recording that was checked: its `_stamp` at that time, and the reason if the SDK cannot read it.
_checked: dict[Path, tuple[tuple[int, ...], str | None]] = {}


def _content(golden: Path) -> bytes:
    """Return the content of the file `golden`; empty if it cannot be read.

    The result is also empty if `golden` is no regular file, because reading a pipe may block.
    """
    try:
        return golden.read_bytes() if golden.is_file() else b""
    except OSError:
        return b""


def _check(golden: Path) -> None:
    """Raise `RecordingError` if the file `golden` is damaged, or if the SDK cannot read it or crashes.

    A subprocess reads the file with the SDK, because a crash would end this process. The subprocess also reads the
    other golden recordings in the folder that are not checked yet, because starting a subprocess for each file takes
    more time. A result is kept until the file changes. Also raises `RecordingError` if the subprocess cannot start or
    fails.
    """
    if not _is_checked(golden):
        paths = [golden, *(path for path in golden.parent.glob("*.rrd") if path != golden and not _is_checked(path))]
        stamps = [_stamp(path) for path in paths]
        refused = reading.unreadable(paths)
        _checked.update((path, (stamp, refused.get(path))) for path, stamp in zip(paths, stamps, strict=True))
    reason = _checked[golden][1]
    if reason is not None:
        raise RecordingError(reason)


def _is_checked(path: Path) -> bool:
    return path in _checked and _checked[path][0] == _stamp(path)


def _stamp(path: Path) -> tuple[int, ...]:
    """Return the inode, the size in bytes and the time of the last change in nanoseconds of the file at `path`.

    The tuple is empty if the system reports an error, for example because there is no such file.
    """
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


@functools.cache
def _stream(application_id: str, _pid: int) -> TestStream:
    """Return the `TestStream` with which this process writes golden recordings.

    The stream is made only once for each `application_id`, because each new stream starts threads of the SDK. `_pid`,
    the process id, is an argument so that a forked child does not get its parent's stream from the cache.
    """
    from mpr.pytest_plugin.recording.test_stream import TestStream

    return TestStream(application_id)


def _fail(text: str) -> NoReturn:
    __tracebackhide__ = True
    # Without an error before it: the text says all that the user needs.
    raise pytest.fail.Exception(text, pytrace=False) from None


def write_golden_summary(terminal: Any, page: str | None) -> None:
    """Write a section to pytest's summary: the golden recordings that tests have written, and those that no test uses.

    `terminal` is the terminal reporter of pytest. `page` is the path of the page that shows golden recordings before
    and after their change; None if there is no such page. At most 20 golden recordings are named. If none was written
    and none is unused, the section is left out. Unused ones are searched only with `--mpr-golden-update`.
    """
    lines = [f"written: {path}" for path in sorted(_named(terminal, WRITTEN))]
    lines += [f"unused: {path}" for path in _unused(terminal)]
    if not lines:
        return
    terminal.section("mpr golden recordings")
    for line in lines[:_MOST_LINES]:
        terminal.line(line)
    if len(lines) > _MOST_LINES:
        terminal.line(f"and {len(lines) - _MOST_LINES} more")
    if page is not None:
        terminal.line(f"before and after: {shlex.quote(page)}")


def _unused(terminal: Any) -> list[str]:
    """Return the paths of golden recordings that no test of this run has used.

    The paths are relative to the folder in which pytest was started. Only folders with a used golden recording are
    searched. The list is empty without `--mpr-golden-update`. It is also empty if a test failed, was skipped, failed as
    expected (`xfail`), was deselected, or was selected by its node id. Tests that compared no rows may need the files.
    """
    config: pytest.Config = terminal.config
    is_whole = {"failed", "error", "skipped", "deselected", "xfailed"}.isdisjoint(terminal.stats)
    if not config.getoption("mpr_golden_update") or not is_whole or any("::" in each for each in config.args):
        return []
    start = config.invocation_params.dir
    used = {Path(start, path) for path in _named(terminal, USED)}
    found = {path for folder in {path.parent for path in used} for path in folder.glob("*.rrd")}
    return sorted(os.path.relpath(path, start) for path in found - used)


def _named(terminal: Any, kind: str) -> set[str]:
    """Return the paths of the golden recordings that the tests have used (`kind` is `USED`) or written (`WRITTEN`).

    The paths are relative to the folder in which pytest was started. `terminal` is the terminal reporter of pytest.
    """
    reports: Iterable[Any] = (report for reports in terminal.stats.values() for report in reports)
    properties = (each for report in reports for each in getattr(report, "user_properties", ()))
    return {path for name, path in properties if name == kind}
