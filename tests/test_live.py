"""Live sinks: with any fault of a viewer, results come and files are complete; a viewer that reads shows everything."""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import rerun as rr
import rerun.blueprint as rrb

import mpr
from mpr.live import replay_log
from mpr.rrd import compat, framing, protobuf, store_id, writer
from mpr.rrd.segment import MessageBytes, Segment
from mpr.sdk import encoder
from mpr.transport import connection_info
from tests import support, tasks, viewers
from tests.viewers import listening, live, reading, url_of, wait_for_state

# The promise is 5 s; a test machine may be slow.
_CLOSE_SECS = 15


def test_every_sink_has_the_rows_of_every_worker(start_method: Any, tmp_path: Path) -> None:
    """The sinks are two files, a viewer, and a server with a reader."""
    port = viewers.free_port()
    sinks = [tmp_path / "one.rrd", url_of(port), mpr.GrpcServerSink(port=0), mpr.FileSink(path=tmp_path / "two.rrd")]
    with listening(tmp_path / "viewer.rrd", port) as viewer, contextlib.ExitStack() as stack:
        with mpr.Pool("app", 2, sinks=sinks, start_method=start_method) as pool:
            wait_for_state(pool.recording, "connected", 0)
            wait_for_state(pool.recording, "connected", 1)
            reader = stack.enter_context(reading(tmp_path / "reader.rrd", pool.recording.urls[1]))
            pool.map(tasks.log_everything, range(4), chunksize=1)
            pool.map(tasks.log_number, range(100))
            rows = support.cells_of_growing(tmp_path / "one.rrd")
            support.wait_for(lambda: reader.cells() == rows)
        for path in (tmp_path / "one.rrd", tmp_path / "two.rrd"):
            support.check_file(path)
            assert support.cells(path) == rows
        support.wait_for(lambda: viewer.cells() == rows)
        assert [(found.state, found.missing_chunks) for found in live(pool.recording)] == [("done", 0)] * 2


def test_a_viewer_that_is_late_is_killed_and_comes_back_has_everything(tmp_path: Path) -> None:
    port = viewers.free_port()
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=[path, url_of(port)]) as pool:
        pool.map(tasks.log_number, range(50))
        wait_for_state(pool.recording, "waiting for a viewer")
        with listening(tmp_path / "first.rrd", port) as first:
            support.wait_for(lambda: first.cells() == support.cells_of_growing(path))
            pool.map(tasks.log_number, range(50, 60))
            support.wait_for(lambda: first.cells() == support.cells_of_growing(path))
        # The end of the viewer is noticed even while nothing is logged.
        support.wait_for(lambda: live(pool.recording)[0].state != "connected")
        pool.map(tasks.log_number, range(60, 70))
        with listening(tmp_path / "second.rrd", port) as second:
            support.wait_for(lambda: second.cells() == support.cells_of_growing(path), 60)
            pool.map(tasks.log_number, range(70, 80))
            pool.close()
            pool.join()
            assert live(pool.recording)[0].connections >= 2
            assert live(pool.recording)[0].missing_chunks == 0
            support.wait_for(lambda: second.cells() == support.cells(path))
    support.check_file(path)
    assert support.numbers(path) == Counter(range(80))


def _stopped(stack: contextlib.ExitStack, folder: Path, port: int) -> Callable[[], None]:
    viewer = stack.enter_context(listening(folder / "viewer.rrd", port))
    return viewer.stop


def _absent(_stack: contextlib.ExitStack, _folder: Path, _port: int) -> Callable[[], None]:
    return lambda: None


def _mute(stack: contextlib.ExitStack, _folder: Path, port: int) -> Callable[[], None]:
    """A server that takes connections and sends nothing."""
    taken = stack.enter_context(socket.socket())
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", port))
    taken.listen()
    return lambda: None


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def _no_viewer(stack: contextlib.ExitStack, _folder: Path, port: int) -> Callable[[], None]:
    """A web server that is no viewer."""
    server = stack.enter_context(http.server.HTTPServer(("127.0.0.1", port), _Handler))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stack.callback(server.shutdown)
    return lambda: None


@pytest.mark.parametrize("peer", [_stopped, _absent, _mute, _no_viewer])
def test_a_viewer_cannot_cost_rows_or_time(peer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Rows that it did not get are counted, logged once, and noted in the recording."""
    port = viewers.free_port()
    path = tmp_path / "run.rrd"
    with contextlib.ExitStack() as stack:
        disturb = peer(stack, tmp_path, port)
        with mpr.Pool("app", 2, sinks=[path, url_of(port)]) as pool:
            pool.map(tasks.log_number, range(10))
            if peer is _stopped:
                wait_for_state(pool.recording, "connected")
            disturb()
            # These rows are far more than sockets and the SDK can hold.
            pool.starmap(tasks.log_images, [(0, 100), (1, 100)], chunksize=1)
            assert live(pool.recording)[0].missing_chunks > 0
            started = time.monotonic()
        assert time.monotonic() - started < _CLOSE_SECS
    support.check_file(path)
    rows = {(f"/image/{worker}", step): 1 for worker in range(2) for step in range(100)}
    assert support.row_counts(path) == rows | {("/n", number): 1 for number in range(10)}
    assert live(pool.recording)[0].missing_chunks > 0
    said = [record.getMessage() for record in caplog.records if "lacks" in record.getMessage()]
    assert len(said) == 1
    assert f"127.0.0.1:{port}" in said[0]
    assert sum(str(chunk.entity_path) == "/mpr/sinks" for chunk in support.chunks(path)) == 1


@pytest.mark.parametrize("peer", [_stopped, _absent, _mute, _no_viewer])
def test_a_viewer_that_gets_nothing_is_reported_while_the_run_goes_on(
    peer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpr.live.exporter_handle._PATIENCE_SECS", 0.5)
    port = viewers.free_port()
    with contextlib.ExitStack() as stack:
        disturb = peer(stack, tmp_path, port)
        with mpr.Pool("app", 2, sinks=[tmp_path / "run.rrd", url_of(port)]) as pool:
            if peer is _stopped:
                wait_for_state(pool.recording, "connected")
            disturb()
            pool.starmap(tasks.log_images, [(0, 100), (1, 100)], chunksize=1)
            reported = f"127.0.0.1:{port}/proxy) has got nothing for"
            support.wait_for(lambda: reported in caplog.text)
            pool.map(tasks.log_number, range(20))
            time.sleep(1)
            assert caplog.text.count("has got nothing for") == 1


def test_a_viewer_that_reads_is_not_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = viewers.free_port()
    path = tmp_path / "run.rrd"
    with (
        listening(tmp_path / "viewer.rrd", port) as viewer,
        mpr.Pool("app", 1, sinks=[path, url_of(port)], telemetry=False) as pool,
    ):
        wait_for_state(pool.recording, "connected")
        pool.map(tasks.log_number, range(20))
        support.wait_for(lambda: viewer.cells() == support.cells_of_growing(path))
        # The viewer has everything. A time without new rows is no fault of the viewer.
        monkeypatch.setattr("mpr.live.exporter_handle._PATIENCE_SECS", 3.0)
        time.sleep(3.5)
        pool.apply(tasks.log_number, (20,))
        support.wait_for(lambda: viewer.cells() == support.cells_of_growing(path))
    assert "has got nothing" not in caplog.text


def test_rows_leave_the_sdk_soon_if_somebody_may_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(name: str) -> tuple[rr.RecordingStream, rr.BinaryStream]:
        made = encoder.new_stream("app", name, flush_tick_secs=0.01)
        return made, rr.binary_stream(made)

    # The user's own value wins.
    monkeypatch.setenv("RERUN_FLUSH_TICK_SECS", "1000")
    late, late_bytes = stream("late")
    monkeypatch.delenv("RERUN_FLUSH_TICK_SECS")
    soon, soon_bytes = stream("soon")
    begins = [each.read(flush=True) for each in (late_bytes, soon_bytes)]
    late.log("x", rr.Scalars(1.0))
    soon.log("x", rr.Scalars(1.0))
    support.wait_for(lambda: soon_bytes.read(flush=False))
    assert all(begins)
    assert not late_bytes.read(flush=False)
    for each in (late, soon):
        each.disconnect()


@pytest.mark.parametrize(
    ("sinks", "is_watched"),
    [
        (["run.rrd"], False),
        (["runs/"], False),
        (["run.rrd", url_of(1)], True),
        ([mpr.GrpcServerSink(port=0)], True),
        ([mpr.BinaryStreamSink()], True),
    ],
)
def test_a_sink_that_shows_rows_while_they_come_is_known_to_the_workers(
    sinks: list[Any], is_watched: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with mpr.SharedRecording("app", sinks=sinks) as recording:
        text = recording.environ()[connection_info.VARIABLE]
    assert connection_info.from_text(text).is_watched is is_watched


def test_an_exporter_that_is_killed_is_replaced(tmp_path: Path) -> None:
    port = viewers.free_port()
    path = tmp_path / "run.rrd"
    with listening(tmp_path / "viewer.rrd", port) as viewer:
        with mpr.Pool("app", 2, sinks=[path, url_of(port)]) as pool:
            pool.map(tasks.log_number, range(10))
            wait_for_state(pool.recording, "connected")
            for exporter in viewers.exporters():
                assert exporter.nice() == psutil.Process().nice() + 5
                exporter.kill()
            pool.map(tasks.log_number, range(10, 20))
            support.wait_for(lambda: live(pool.recording)[0].connections == 2)
        assert live(pool.recording)[0].missing_chunks == 0
        # A viewer knows repeated chunks by their ids. The file of the receiver has them twice.
        support.wait_for(lambda: set(viewer.cells()) == set(support.cells(path)))
    support.check_file(path)


_SCRIPT = """
import sys, mpr
from pathlib import Path
from tests import support, tasks, viewers

if __name__ == "__main__":
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    web = mpr.WebViewerSink(web_port=0, grpc_port=0, open_browser=False)
    with mpr.Pool("app", 2, sinks=[folder / "run.rrd", viewers.url_of(port), web]) as pool:
        pool.map(tasks.log_number, range(10))
        viewers.wait_for_state(pool.recording, "connected", 1)
        support.wait_for(lambda: len(viewers.exporters()) == 3)
        (folder / "pids").write_text(" ".join(str(each.pid) for each in viewers.exporters()))
        tasks.wait_for_file(folder / "never")
"""


def test_exporters_and_pages_of_a_killed_parent_end_with_it(tmp_path: Path) -> None:
    port = viewers.free_port()
    with contextlib.ExitStack() as stack:
        _mute(stack, tmp_path, port)
        program = subprocess.Popen([sys.executable, "-c", _SCRIPT, str(tmp_path), str(port)])
        support.wait_for((tmp_path / "pids").exists, 60)
        support.wait_for(lambda: len((tmp_path / "pids").read_text().split()) == 3)
        program.kill()
        program.wait()
        left = {int(pid) for pid in (tmp_path / "pids").read_text().split()}
        support.wait_for(lambda: not any(_lives(pid) for pid in left), _CLOSE_SECS)


def _lives(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def test_without_a_file_a_late_viewer_gets_the_rows_that_are_kept(tmp_path: Path) -> None:
    port = viewers.free_port()
    with mpr.Pool("app", 2, sinks=url_of(port)) as pool:
        assert pool.recording.paths == []
        pool.map(tasks.log_number, range(100))
        wait_for_state(pool.recording, "waiting for a viewer")
        with listening(tmp_path / "viewer.rrd", port) as viewer:
            wait_for_state(pool.recording, "connected")
            pool.map(tasks.log_number, range(100, 110))
            pool.close()
            pool.join()
            support.wait_for(lambda: len(viewer.cells()) == 110)
            with support.whole_frames_of(viewer.path) as copy:
                assert support.numbers(copy) == Counter(range(110))
    assert live(pool.recording)[0].missing_chunks == 0


def test_rows_that_are_kept_without_a_file_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(replay_log, "REPLAY_MAX_BYTES", 20_000_000)
    port = viewers.free_port()
    with mpr.Pool("app", 2, sinks=url_of(port)) as pool:
        pool.starmap(tasks.log_images, [(0, 100), (1, 100)], chunksize=1)
        kept = pool.recording._runtime._opened.live._replay_log.sources[0]  # type: ignore[union-attr]  # there is a live sink
        assert os.fstat(kept.fd).st_blocks * 512 < 60_000_000
        with listening(tmp_path / "viewer.rrd", port) as viewer:
            wait_for_state(pool.recording, "connected")
            pool.map(tasks.log_number, range(10))
            pool.close()
            pool.join()
            missing = live(pool.recording)[0].missing_chunks
            sent = live(pool.recording)[0].sent_chunks
            assert missing > 0
            # The newest rows are there, with the recording's properties.
            support.wait_for(lambda: sum(cell.entity == "/n" for cell in viewer.cells().elements()) == 10)
            with support.whole_frames_of(viewer.path) as copy:
                assert support.numbers(copy) == Counter(range(10))
                entities = Counter(str(chunk.entity_path) for chunk in support.chunks(copy))
            assert entities.pop("/__properties") == 1
            assert sum(entities.values()) == sent
    assert f"lacks {missing} of {missing + sent} chunks" in caplog.text


def test_a_file_that_fails_does_not_end_the_viewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = writer.FileWriter.accept

    def accept(self: writer.FileWriter, segment: Segment, *, published: bool) -> None:
        if (tmp_path / "full").exists():
            raise mpr.SinkError(28, f"cannot write {self.path}: No space left on device")
        original(self, segment, published=published)

    monkeypatch.setattr(writer.FileWriter, "accept", accept)
    port = viewers.free_port()
    with listening(tmp_path / "viewer.rrd", port) as viewer:
        pool = mpr.Pool("app", 2, sinks=[tmp_path / "run.rrd", url_of(port)])
        wait_for_state(pool.recording, "connected")
        pool.map(tasks.log_number, range(10))
        (tmp_path / "full").touch()
        with pytest.raises(mpr.SinkError, match="No space left"):
            pool.map(tasks.log_number, range(10, 20))
        with pytest.raises(mpr.SinkError, match="No space left"):
            pool.map(tasks.log_number, range(20, 30))
        pool.close()
        with pytest.raises(mpr.SinkError, match="No space left"):
            pool.join()
        assert live(pool.recording)[0].missing_chunks == 0
        support.wait_for(lambda: len(viewer.cells()) >= 30)
        with support.whole_frames_of(viewer.path) as copy:
            assert support.numbers(copy) == Counter(range(30))


def test_viewers_have_everything_if_files_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "format_is_known", lambda: "it is from the future")
    port = viewers.free_port()
    with listening(tmp_path / "viewer.rrd", port) as viewer:
        with mpr.Pool("app", 2, sinks=[tmp_path / "run.rrd", url_of(port)]) as pool:
            wait_for_state(pool.recording, "connected")
            pool.map(tasks.log_everything, range(3), chunksize=1)
        support.wait_for(lambda: viewer.cells() == support.cells(tmp_path / "run.rrd"))
        with support.whole_frames_of(viewer.path) as copy:
            (entry,) = rr.chunk.RrdReader(copy).recordings()
        assert entry.recording_id == pool.recording.recording_id


def test_a_port_that_is_taken_is_an_error_at_once(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for sink in (
            mpr.GrpcServerSink(port=port),
            mpr.WebViewerSink(web_port=port, grpc_port=0, open_browser=False),
            mpr.WebViewerSink(web_port=0, grpc_port=port, open_browser=False),
            mpr.SpawnViewerSink(port=port),
        ):
            with pytest.raises(mpr.SinkError, match=f"cannot have port {port}"):
                mpr.Pool("app", 1, sinks=[tmp_path / "run.rrd", sink])
    assert list(tmp_path.iterdir()) == []


def test_a_viewer_is_left_alone_if_recording_is_switched_off(tmp_path: Path) -> None:
    source = f"""
import mpr
from tests import tasks
if __name__ == "__main__":
    with mpr.Pool("app", 1, sinks=["{tmp_path}/run.rrd", mpr.GrpcSink()]) as pool:
        print(pool.map(tasks.log_number, range(3)), pool.recording.stats().live_sinks)
"""
    done = support.run_python(source, env={"RERUN": "off", "PYTHONPATH": os.getcwd()})
    assert done.stdout.strip() == "[0, 1, 2] ()", done.stderr


# --- blueprints ---------------------------------------------------------------------------------------------------


def _frames(data: bytes) -> list[framing.Frame]:
    frames, _ = framing.scan(lambda at, size: data[at : at + size], framing.HEADER_SIZE, len(data))
    return frames


def _activated(path: Path) -> list[str]:
    """Return the recording ids of the blueprints that are made active, in order."""
    data = path.read_bytes()
    found = [data[each.payload : each.end] for each in _frames(data) if each.kind == framing.BLUEPRINT_ACTIVATION]
    return [protobuf.field(protobuf.field(each, 1), 2).decode() for each in found]


def test_a_blueprint_is_in_every_sink_before_data_and_stays_active(tmp_path: Path) -> None:
    port = viewers.free_port()
    blueprint = rrb.Blueprint(rrb.TimeSeriesView(origin="/n"))
    path = tmp_path / "run.rrd"
    with listening(tmp_path / "viewer.rrd", port) as viewer:
        with mpr.Pool("app", 2, sinks=[path, url_of(port)], blueprint=blueprint, telemetry_view=False) as pool:
            wait_for_state(pool.recording, "connected")
            pool.map(tasks.send_blueprint, range(2), chunksize=1)
            pool.map(tasks.log_number, range(10))
        support.check_file(path)
        support.wait_for(lambda: viewer.cells() == support.cells(path))
        for file in (path, viewer.path):
            (active,) = _activated(file)
            data = file.read_bytes()
            chunks = [
                store_id.store_id_of_chunk(data[e.payload : e.end])
                for e in _frames(data)
                if e.kind == framing.ARROW_MSG
            ]
            # The properties come first, then the blueprint, then data, also that of the workers.
            recording, blueprint_of_ours = chunks[:2]
            assert active.encode() in blueprint_of_ours
            rows_from = chunks.index(recording, 1)
            assert set(chunks[1:rows_from]) >= {blueprint_of_ours}
            assert blueprint_of_ours not in chunks[rows_from:]
            assert len(set(chunks)) == 4


def test_without_a_blueprint_of_the_parent_one_of_a_worker_is_active(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path) as pool:
        pool.apply(tasks.send_blueprint, (1,))
    assert len(_activated(path)) == 1


# --- the replay log ---------------------------------------------------------------------------------------------------


def test_a_reader_notices_that_a_memory_ring_has_dropped_bytes_that_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_log, "REPLAY_MAX_BYTES", 100_000)
    memory_ring = replay_log.MemoryRing(tmp_path)
    payload = framing.frame_header(framing.ARROW_MSG, 30_000) + b"x" * 30_000
    segment = Segment(1, MessageBytes(0, payload), [framing.Frame(framing.ARROW_MSG, 0, 30_000)])
    try:
        first = memory_ring.start
        assert replay_log.dropped_until(memory_ring.fd) == first
        for _ in range(10):
            memory_ring.accept(segment)
        assert memory_ring.end - memory_ring.start <= 100_000
        assert replay_log.dropped_until(memory_ring.fd) == memory_ring.start > first
        assert os.pread(memory_ring.fd, len(payload), memory_ring.start) == payload
        assert os.fstat(memory_ring.fd).st_blocks * 512 < 200_000
    finally:
        memory_ring.close()
