"""`BinaryStreamSink`: all pieces that a reader gets, joined in their order, are a valid file."""

from __future__ import annotations

import asyncio
import errno
import os
import pickle
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import mpr
from tests import support, tasks


def _written(path: Path, data: list[bytes]) -> Path:
    path.write_bytes(b"".join(data))
    return path


@pytest.mark.parametrize("memory_bytes", [64 * 1024 * 1024, 100_000, 0])
def test_a_file_that_a_reader_of_the_stream_writes_verifies(
    memory_bytes: int, start_method: Any, tmp_path: Path
) -> None:
    """The stream is in memory, in a temporary file, or in memory and then in a file. A late reader gets all of it."""
    sink, other = mpr.BinaryStreamSink(memory_bytes=memory_bytes), tmp_path / "other.rrd"
    with mpr.Pool("app", 2, sinks=[sink, other], start_method=start_method) as pool:
        early: list[bytes] = []
        reader = threading.Thread(target=lambda: early.extend(sink))
        reader.start()
        pool.map(tasks.log_number, range(50), chunksize=1)
        # The rows of a result are in the stream when the result is there.
        support.wait_for(lambda: _has_all(_written(tmp_path / "growing.rrd", early), range(50)))
        pool.starmap(tasks.log_images, [(0, 3), (1, 3)], chunksize=1)
        with pytest.raises(mpr.WorkerDiedError):
            pool.apply(tasks.log_and_die, (50,))
    reader.join(60)
    path = _written(tmp_path / "run.rrd", early)
    support.check_file(path)
    assert support.numbers(path) == Counter(range(51))
    assert support.cells(path) == support.cells(other)
    assert b"".join(sink) == path.read_bytes()


def _has_all(path: Path, expected: range) -> bool:
    return path.stat().st_size > 100 and support.numbers_of_growing(path) == Counter(expected)


def test_readers_in_an_event_loop_get_the_same_and_may_be_cancelled(tmp_path: Path) -> None:
    sink = mpr.BinaryStreamSink()

    async def read() -> list[bytes]:
        return [data async for data in sink]

    async def main() -> list[list[bytes]]:
        with mpr.Pool("app", 1, sinks=sink) as pool:
            readers = [asyncio.create_task(read()) for _ in range(3)]
            await asyncio.to_thread(pool.map, tasks.log_number, range(20), 1)
            await asyncio.sleep(0)
            readers.pop().cancel()
            await asyncio.to_thread(pool.apply, tasks.log_number, (20,))
            pool.close()
            await asyncio.to_thread(pool.join)
        return await asyncio.wait_for(asyncio.gather(*readers), 60)

    first, second = asyncio.run(main())
    assert b"".join(first) == b"".join(second)
    path = _written(tmp_path / "run.rrd", first)
    support.check_file(path)
    assert support.numbers(path) == Counter(range(21))


def test_each_part_can_be_read_alone(tmp_path: Path) -> None:
    sink, other = mpr.BinaryStreamSink(memory_bytes=100_000), tmp_path / "other.rrd"
    early: list[bytes] = []

    async def read() -> list[bytes]:
        return [part async for part in sink.parts()]

    with mpr.Pool("app", 2, sinks=[sink, other]) as pool:
        reader = threading.Thread(target=lambda: early.extend(sink.parts()))
        reader.start()
        pool.map(tasks.log_number, range(50), chunksize=1)
        pool.starmap(tasks.log_images, [(0, 3), (1, 3)], chunksize=1)
        pool.apply(tasks.log_number, (50,))
    reader.join(60)
    for parts in (early, list(sink.parts()), asyncio.run(read())):
        found: Counter[support.Cell] = Counter()
        for part in parts:
            # The part has no footer.
            found += support.cells_of_growing(_written(tmp_path / "part.rrd", [part]))
        assert found == support.cells(other)
    assert len(early) > 1


def test_a_stream_sink_is_refused_for_a_second_recording() -> None:
    sink = mpr.BinaryStreamSink()
    with pytest.raises(mpr.SinkError, match="nothing to read yet"):
        next(iter(sink))
    with mpr.Pool("app", 1, sinks=sink) as pool:
        pool.map(tasks.log_number, range(3))
        with pytest.raises(mpr.SinkError, match="good for one recording"):
            mpr.Pool("app", 1, sinks=sink)
    assert sum(map(len, sink)) > 0
    copy = pickle.loads(pickle.dumps(sink))
    assert copy.memory_bytes == sink.memory_bytes
    with mpr.Pool("app", 1, sinks=copy) as pool:
        pool.map(tasks.log_number, range(3))
    with pytest.raises(mpr.ConfigError, match="two sinks would use"):
        mpr.Pool("app", 1, sinks=[sink, sink])
    for bad in (-1, "1", True, 1.5):
        with pytest.raises(mpr.ConfigError, match="number of bytes"):
            mpr.BinaryStreamSink(memory_bytes=bad)  # type: ignore[arg-type]  # the wrong type is tested


def test_a_stream_that_fails_raises_in_its_readers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink, good = mpr.BinaryStreamSink(), tmp_path / "good.rrd"
    pool = mpr.Pool("app", 1, sinks=[sink, good])
    pool.map(tasks.log_number, range(3))
    file = os.stat(good).st_ino
    sendfile = os.sendfile

    def broken(target: int, *arguments: Any) -> int:
        if os.fstat(target).st_ino != file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return sendfile(target, *arguments)

    monkeypatch.setattr(os, "sendfile", broken)
    with pytest.raises(mpr.SinkError, match="cannot write the binary stream: No space left"):
        pool.apply(tasks.log_number, (3,))
    pool.close()
    with pytest.raises(mpr.SinkError, match="binary stream"):
        pool.join()
    data: list[bytes] = []
    with pytest.raises(mpr.SinkError, match="the stream ends before its recording"):
        data.extend(sink)
    support.check_file(good)
    assert support.numbers(good) == Counter(range(4))


def test_task_recordings_are_in_the_stream_under_their_own_ids(tmp_path: Path) -> None:
    import rerun as rr

    sink = mpr.BinaryStreamSink()
    with mpr.Pool("app", 1, sinks=sink, recording_id="shared") as pool:
        recording_id = pool.apply(tasks.log_episode, (4,))
        pool.apply(tasks.log_number, (5,))
    path = _written(tmp_path / "run.rrd", list(sink))
    verified = support.rerun_cli("rrd", "verify", path)
    assert verified.returncode == 0, verified.stderr
    assert {entry.recording_id for entry in rr.chunk.RrdReader(path).recordings()} == {"shared", recording_id}
    assert support.numbers(path) == Counter([4, 5])
