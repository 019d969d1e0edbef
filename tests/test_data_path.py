"""The way from `rr.log` to the file, in its parts that no user sees: credit, changes of the outbox, inline bytes."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mpr
from mpr import limits
from mpr.producer import log_counters, outbox_writer
from mpr.recording.statistics import RecordingStatistics
from mpr.rrd import compat, manifest_store, writer
from mpr.rrd.manifest import Manifest
from mpr.rrd.segment import Segment
from mpr.sdk import reader
from mpr.transport import outbox
from tests import support, tasks

MB = 1_000_000


def test_memory_stays_bounded_while_the_sink_is_slower_than_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sink takes 100 MB/s here. Rows that wait must not pile up in any process."""
    original = writer.FileWriter.accept
    held_bytes: list[int] = []

    def slow(self: writer.FileWriter, segment: Segment, *, published: bool) -> None:
        original(self, segment, published=published)
        size = segment.frames[-1].end - segment.frames[0].start
        time.sleep(size / (100 * MB))
        if isinstance(segment.source, outbox.OutboxReader):
            held_bytes.append(segment.source.held_bytes())

    monkeypatch.setattr(writer.FileWriter, "accept", slow)
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path) as pool:
        # The first call loads what logging needs, so that only the growth of the second one is measured.
        pool.starmap(tasks.log_images_and_measure, [(0, 1), (1, 1)], chunksize=1)
        grown = pool.starmap(tasks.log_images_and_measure, [(0, 160), (1, 160)], chunksize=1)
    support.check_file(path)
    # Both calls have logged step 0 of each entity.
    assert support.row_counts(path) == {
        (f"/image/{worker}", step): 2 if step == 0 else 1 for worker in range(2) for step in range(160)
    }
    assert path.stat().st_size > 290 * MB
    assert max(grown) < 200 * MB
    # The outbox limit, the rows logged between two checks, the rows that the SDK holds, and one segment being read.
    assert max(held_bytes) < limits.OUTBOX_MAX_BYTES + limits.UNFLUSHED_MAX_BYTES + 8 * MB


def test_an_outbox_that_is_full_is_closed_for_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forked workers have the low limit too: each task gets its own outbox, faster than the parent reads them."""
    monkeypatch.setattr(outbox_writer, "OUTBOX_ROLL_BYTES", 1)
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method="fork") as pool:
        pool.map(tasks.log_number, range(200), chunksize=1)
        pool.starmap(tasks.log_images, [(0, 5), (1, 5)], chunksize=1)
    support.check_file(path)
    assert support.numbers(path) == Counter(range(200))


def test_many_small_chunks_keep_their_manifests_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_writer, "OUTBOX_ROLL_ROWS", 20)
    monkeypatch.setattr(log_counters, "CHECK_EVERY_BYTES", 1)
    monkeypatch.setattr(manifest_store, "MANIFEST_STORE_MAX_BYTES", 10_000)
    # The SDK reads the end of the file in another process.
    monkeypatch.setattr(writer, "_MANY_CHUNKS", 10)
    monkeypatch.setattr(reader, "refusal", lambda path: pytest.fail(f"{path} is read in this process"))
    stored: list[int] = []
    store = manifest_store._on_disk

    def on_disk(manifests: list[Manifest], folder: Path) -> list[Manifest]:
        stored.append(len(manifests))
        return store(manifests, folder)

    monkeypatch.setattr(manifest_store, "_on_disk", on_disk)
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method="fork") as pool:
        pool.map(tasks.log_number, range(400), chunksize=1)
        assert len(stored) > 2
    support.check_file(path)
    assert support.numbers(path) == Counter(range(400))
    assert [path] == list(tmp_path.iterdir())


def test_bytes_travel_in_messages_if_an_outbox_cannot_be_opened(
    start_method: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("another container")

    monkeypatch.setattr(outbox.OutboxReader, "__init__", refuse)
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method=start_method) as pool:
        pool.map(tasks.log_number, range(100), chunksize=1)
        # These rows are more than an outbox may hold, so its space must be freed.
        pool.starmap(tasks.log_images, [(0, 80), (1, 80)], chunksize=1)
    support.check_file(path)
    rows = {("/n", step): 1 for step in range(100)}
    rows |= {(f"/image/{worker}", step): 1 for worker in range(2) for step in range(80)}
    assert support.row_counts(path) == rows


def test_a_format_that_is_not_known_is_decoded(
    start_method: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compat, "format_is_known", lambda: "it is from the future")
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, start_method=start_method) as pool:
        pool.map(tasks.log_everything, range(4), chunksize=1)
        pool.apply(tasks.log_number, (5,))
        assert set(support.numbers_of_growing(path)) == {5}
    assert "it is from the future" in caplog.text
    support.check_file(path)
    decoded = support.cells(path, properties=True)
    monkeypatch.undo()
    with mpr.Pool("app", 2, sinks=tmp_path / "reframed.rrd") as pool:
        pool.map(tasks.log_everything, range(4), chunksize=1)
        pool.apply(tasks.log_number, (5,))
    reframed = support.cells(tmp_path / "reframed.rrd", properties=True)
    start_time = "RecordingInfo:start_time"
    assert [c for c in decoded.elements() if c.component != start_time and c not in reframed] == []
    assert [c for c in reframed.elements() if c.component != start_time and c not in decoded] == []


def test_the_first_file_of_a_process_is_closed_without_loading_slow_modules(tmp_path: Path) -> None:
    script = """
import sys
# Where it is installed, pyarrow loads it for any array, and it loads everything.
sys.modules["pandas"] = None
import mpr
from tests import tasks

if __name__ == "__main__":
    with mpr.Pool("app", 2, sinks=sys.argv[1]) as pool:
        pool.map(tasks.log_everything, range(4), chunksize=1)
    assert "pyarrow.compute" not in sys.modules
"""
    ran = support.run_python(script, tmp_path / "run.rrd")
    assert ran.returncode == 0, ran.stderr
    support.check_file(tmp_path / "run.rrd")


def test_a_manifest_that_the_sdk_refuses_makes_the_sdk_write_the_file_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = reader.refusal
    answers = iter(["it is not to its liking"])
    monkeypatch.setattr(reader, "refusal", lambda path: next(answers, None) or refusal(path))
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path) as pool:
        pool.map(tasks.log_everything, range(4), chunksize=1)
    assert "not to its liking" in caplog.text
    support.check_file(path)


def test_a_sink_that_fails_fails_every_task_and_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full after 200 kB: RLIMIT_FSIZE stands in for it, and for the kernel it is the same to write."""
    script = """
import resource, signal, sys, mpr
from tests import tasks

if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    pool = mpr.Pool("app", 2, sinks=sys.argv[1])
    pool.map(tasks.log_number, range(20))
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    for number in range(2):
        try:
            pool.starmap(tasks.log_images, [(0, 100), (1, 100)])
        except mpr.SinkError as error:
            print("error:", error.errno, error)
    pool.close()
    try:
        pool.join()
    except mpr.SinkError as error:
        print("error at the end")
"""
    path = tmp_path / "run.rrd"
    ran = support.run_python(script, path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("error: 27 ") == 2
    assert "error at the end" in ran.stdout
    assert set(support.numbers_of_growing(path)) == set(range(20))


def test_rows_that_no_python_call_logs_one_by_one_keep_the_promise_too(start_method: Any, tmp_path: Path) -> None:
    """`rr.send_chunks` with a stream, `rr.log_file_from_path`: rows that no Python entry sees one by one."""
    other = tmp_path / "other.rrd"
    with mpr.Pool("other", 1, sinks=other) as pool:
        pool.map(tasks.log_number, range(10))
    note = tmp_path / "note.txt"
    note.write_text("a file that is logged")
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, start_method=start_method) as pool:
        pool.apply(tasks.send_chunks_of, (other,))
        assert set(support.numbers_of_growing(path)) == set(range(10))
        pool.apply(tasks.log_file, (note,))
        assert any("a file that is logged" in cell.value for cell in support.cells_of_growing(path))
    support.check_file(path)


def test_servers_that_would_hang_in_a_preloaded_worker_raise(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        with pytest.raises(RuntimeError, match="preload=False"):
            pool.apply(tasks.make_catalog_client)
        with pytest.raises(RuntimeError, match="preload=False"):
            pool.apply(tasks.make_server)


def test_workers_without_the_preload_log_as_well(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path, preload=False) as pool:
        pool.map(tasks.log_number, range(10))
        pool.apply(tasks.make_server)
    support.check_file(path)
    assert support.numbers(path) == Counter(range(10))


def test_workers_see_the_environment_of_the_pool_not_of_the_fork_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPR_TEST_COLOUR", "red")
    with mpr.Pool("app", 1, sinks=tmp_path / "one.rrd") as pool:
        assert pool.apply(os.getenv, ("MPR_TEST_COLOUR",)) == "red"
    monkeypatch.setenv("MPR_TEST_COLOUR", "blue")
    with mpr.Pool("app", 1, sinks=tmp_path / "two.rrd") as pool:
        assert pool.apply(os.getenv, ("MPR_TEST_COLOUR",)) == "blue"


def test_the_default_sink_is_a_new_file_whose_path_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    with mpr.Pool("my app", 1) as pool:
        pool.map(tasks.log_number, range(3))
        (path,) = pool.recording.paths
    assert caplog.text.count(str(path)) == 1
    assert [path] == list(tmp_path.iterdir())
    support.check_file(path)


def test_several_files_at_once_have_the_same_rows(tmp_path: Path) -> None:
    paths = [tmp_path / "one.rrd", tmp_path / "two.rrd"]
    with mpr.Pool("app", 2, sinks=paths) as pool:
        pool.map(tasks.log_number, range(20))
        statistics = pool.recording.stats()
    assert isinstance(statistics, RecordingStatistics)
    assert statistics.accepted_chunks >= 1
    for path in paths:
        support.check_file(path)
        assert support.numbers(path) == Counter(range(20))


@pytest.mark.parametrize("size", [10, 100_000])
def test_arrays_in_arguments_and_results_are_writable(size: int, tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        result = pool.apply(tasks.add_in_place, (np.zeros(size),))
    result += 1
    assert set(result) == {2.0}


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_taken_away_is_an_error_and_no_other_file_is_touched(replaced: bool, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    pool = mpr.Pool("app", 1, sinks=path)
    pool.map(tasks.log_number, range(3))
    path.unlink()
    if replaced:
        path.write_bytes(b"precious")
    with pytest.raises(mpr.SinkError, match="removed or replaced"):
        pool.map(tasks.log_number, range(3))
    pool.close()
    with pytest.raises(mpr.SinkError, match="removed or replaced"):
        pool.join()
    assert [each.read_bytes() for each in tmp_path.iterdir()] == ([b"precious"] if replaced else [])


def test_a_process_that_a_task_forks_cannot_harm_the_recording(start_method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, start_method=start_method) as pool:
        assert [pool.apply_async(tasks.fork_and_log, (number,)).get(60) for number in range(3)] == [7, 7, 7]
    support.check_file(path)
    assert support.numbers(path) == Counter(range(3))


def test_a_file_without_a_footer_has_the_same_rows(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=mpr.FileSink(path=path, write_footer=False)) as pool:
        pool.map(tasks.log_number, range(20), chunksize=1)
    assert support.rerun_cli("rrd", "verify", path).returncode != 0
    assert support.numbers_of_growing(path) == Counter(range(20))
    with pytest.raises(mpr.ConfigError, match="compact file has a footer"):
        mpr.FileSink(path=path, write_footer=False, compact=True)


def test_a_compact_file_has_the_same_rows_in_fewer_chunks(tmp_path: Path) -> None:
    small, large = tmp_path / "small.rrd", tmp_path / "large.rrd"
    with mpr.Pool("app", 2, sinks=[mpr.FileSink(path=small, compact=True), large]) as pool:
        pool.map(tasks.log_number, range(50), chunksize=1)
    for path in (small, large):
        support.check_file(path)
    assert support.cells(small) == support.cells(large)
    assert len(support.chunk_ids(small)) < len(support.chunk_ids(large))
