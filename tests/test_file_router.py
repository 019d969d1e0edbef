"""Which file a segment goes to, and that all files are finished, even if one of them fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import mpr
from mpr.rrd.segment import MessageBytes, Segment
from mpr.sinks.file_router import FileRouter
from mpr.sinks.per_recording import PerRecordingWriter
from tests import producers


class _File:
    """Keeps what it gets."""

    def __init__(self, name: str, log: list[str], *, error: str = "", completes: bool = False) -> None:
        self.name, self._log, self._error, self._completes = name, log, error, completes

    def accept(self, segment: Segment, *, published: bool) -> None:
        self._log.append(f"{self.name} {segment.outbox}")

    def add_manifests(self, outbox: int, footer: bytes) -> bool:
        self._log.append(f"{self.name} manifests {outbox}")
        return self._completes

    def close(self) -> None:
        self._log.append(f"{self.name} closed")
        if self._error:
            raise mpr.SinkError(self._error)

    def abort(self) -> None:
        self._log.append(f"{self.name} aborted")


def _segment(outbox: int, key: str) -> Segment:
    return Segment(outbox, MessageBytes(0, b""), [], key.encode() or None)


def _router(log: list[str], *, errors: Any = (), completes: bool = False, **options: Any) -> FileRouter[bytes]:
    def new_file(key: bytes) -> _File:
        name = key.decode()
        log.append(f"{name} opened")
        return _File(name, log, error=name if name in errors else "", completes=completes)

    return FileRouter(_File("main", log), lambda segment: segment.store, new_file, **options)


def test_all_files_are_closed_and_the_first_error_is_raised() -> None:
    log: list[str] = []
    router = _router(log, errors=("a", "b"))
    for number, key in enumerate(("a", "b", "c", "")):
        router.accept(_segment(number, key), published=True)
    with pytest.raises(mpr.SinkError, match=r"^a$"):
        router.close()
    assert log[-4:] == ["a closed", "b closed", "c closed", "main closed"]


def test_a_complete_file_is_closed_once() -> None:
    log: list[str] = []
    router = _router(log, completes=True)
    router.accept(_segment(1, "a"), published=True)
    router.add_manifests(1, b"")
    router.close()
    assert log == ["a opened", "a 1", "a manifests 1", "a closed", "main closed"]


def test_the_file_that_has_got_nothing_for_the_longest_time_makes_room() -> None:
    log: list[str] = []
    router = _router(log, open_max=2)
    for key in ("a", "b", "a", "c", "a", "b"):
        router.accept(_segment(1, key), published=True)
    closed = [each for each in log if each.endswith(("closed", "opened"))]
    assert closed == ["a opened", "b opened", "b closed", "c opened", "c closed", "b opened"]


def test_a_closed_file_gets_no_manifests(tmp_path: Path) -> None:
    """They describe the chunks of the file that was opened for the same key later, too."""
    log: list[str] = []
    router = _router(log, open_max=1, completes=True)
    for key in ("a", "b", "a"):
        router.accept(_segment(1, key), published=True)
    router.accept(_segment(2, "a"), published=True)
    router.add_manifests(1, b"")
    assert not [each for each in log if "manifests" in each]
    router.add_manifests(2, b"")
    assert log[-2:] == ["a manifests 2", "a closed"]


def test_recordings_whose_names_look_alike_have_a_file_each(tmp_path: Path) -> None:
    main = producers.new_file(tmp_path / "run.rrd")
    writer = PerRecordingWriter(main, producers.STORE, lambda *_: pytest.fail("no file is opened here"))
    names = [writer._path(name).name for name in ("a/b", "a_b", "a b", "other")]
    assert names == ["run-a_b.rrd", "run-a_b-2.rrd", "run-a_b-3.rrd", "run-other.rrd"]
    main.abort()
