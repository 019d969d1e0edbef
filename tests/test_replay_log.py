"""What viewers get that come late: all bytes that are kept, none of a hole, and a reason if something is missing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import rerun as rr

import mpr
from mpr.live import exporter, replay_log
from mpr.live.exporter_handle import ExporterHandle
from mpr.live.messages import Connected, Done, Lost, SliceSent
from mpr.live.replay_log import MemoryRing, ReplayLog, dropped_until
from mpr.rrd import framing, store_id
from mpr.rrd.segment import MessageBytes, Segment
from tests import producers


def _segment(outbox: int, *numbers: int) -> Segment:
    stream = producers.whole(*numbers)
    frames = [each for each in framing.frames_of(stream) if each.kind != framing.END]
    return Segment(outbox, MessageBytes(0, stream), frames)


class _Exporter(exporter._Exporter):
    """An exporter that keeps what it sends."""

    def __init__(self, fd: int) -> None:
        self._sources = {0: (fd, True)}
        self._header = producers.whole(1)[: framing.HEADER_SIZE]
        self._pipe: Any = self
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        """Stand for the pipe to the parent."""
        self.sent.append(message)

    def _send(self, stream: bytes) -> None:
        # A loop without end would be ended by the limit of the test alone.
        assert len(self.sent) < 100
        self.sent.append(stream)


def test_a_ring_is_read_from_its_first_byte(tmp_path: Path) -> None:
    ring = MemoryRing(tmp_path)
    ring.accept(_segment(1, 1))
    reads = _Exporter(ring.fd)
    reads._send_slice(0, ring.start, ring.end)
    data = os.pread(ring.fd, ring.end - ring.start, ring.start)
    assert reads.sent == [reads._header + data, SliceSent(0, ring.end, 1)]
    ring.close()


def test_a_ring_says_what_it_has_dropped_before_the_bytes_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_log, "REPLAY_MAX_BYTES", 5000)
    ring = MemoryRing(tmp_path)
    first = ring.start
    marks: list[int] = []
    release = ring._file.release

    def note(start: int, end: int) -> None:
        marks.append(dropped_until(ring.fd))
        assert marks[-1] >= end
        release(start, end)

    monkeypatch.setattr(ring._file, "release", note)
    for number in range(20):
        ring.accept(_segment(number, number))
    assert marks
    assert first < ring.start == dropped_until(ring.fd)
    reads = _Exporter(ring.fd)
    reads._send_slice(0, first, ring.end)
    chunks = sum(each.chunks for each in reads.sent if isinstance(each, SliceSent))
    assert chunks == len(ring._segments)
    ring.close()


def test_a_late_viewer_knows_all_stores(tmp_path: Path) -> None:
    stream = rr.RecordingStream("other_app", recording_id="other", send_properties=False)
    storage = stream.binary_stream()
    stream.log("n", rr.Scalars(1.0))
    data = storage.read(flush=True)
    assert data is not None
    frames = [each for each in framing.frames_of(data) if each.kind != framing.END]
    log = ReplayLog(b"", None, tmp_path)
    for outbox in (1, 2):
        log.accepted(Segment(outbox, MessageBytes(0, data), frames))
    # Each of them once.
    assert sorted(_stores(data[: framing.HEADER_SIZE] + log.head)) == sorted(set(_stores(data)))
    log.close()


def _stores(stream: bytes) -> list[bytes]:
    """Return the store of each store info of a stream."""
    infos = (each for each in framing.frames_of(stream) if each.kind == framing.SET_STORE_INFO)
    return [store_id.store_id_of_info(stream[each.payload : each.end]) for each in infos]


def test_why_a_viewer_lacks_rows_is_said(tmp_path: Path) -> None:
    log = ReplayLog(b"", None, tmp_path)
    handle = ExporterHandle(1, mpr.GrpcSink(url="rerun+http://127.0.0.1:1/proxy"), log)
    assert handle.missed() is None
    log.accepted(_segment(1, 1))
    handle._read(Lost("the viewer has gone home"))
    missed = handle.missed()
    assert missed is not None
    assert missed.endswith("lacks 1 of 1 chunks: the viewer has gone home")
    # The supervisor fails while a viewer is connected.
    handle._read(Connected())
    handle.give_up("OSError: no descriptor is left")
    assert str(handle.missed()).endswith("lacks 1 of 1 chunks: OSError: no descriptor is left")
    handle._read(Done())
    handle._read(SliceSent(0, 1, 1))
    handle.give_up("too late")
    assert handle.missed() is None
    log.close()
