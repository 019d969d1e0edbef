"""Which way out of a worker is the cheapest? Without mpr's pool.

Two worker processes log rows, and the SDK encodes them. The encoded bytes can leave a worker in five ways. With three
of them, the parent writes the bytes of both workers into one file. With "file" and "gRPC", the parent gets no bytes.

| way | how the bytes leave a worker |
|---|---|
| file | the SDK writes them to a file of the worker; this is the floor, because these files are not joined |
| memory file | the SDK writes them to a file in memory (outbox); the parent copies them by `sendfile` |
| binary stream | the worker reads them by `BinaryStream.read` every 5 ms, and sends them over a socket |
| callback | the SDK passes them to a callback (a private sink of the SDK), which sends them over a socket |
| gRPC | the SDK sends them by gRPC to one `rerun --serve-grpc`, which keeps them in memory; there is no file |
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import re
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import common, report, servers, works
from mpr.rrd import framing
from mpr.transport.outbox import Outbox, OutboxReader

if TYPE_CHECKING:
    import rerun as rr

FILE, MEMORY, BINARY, CALLBACK, GRPC = "file", "memory file", "binary stream", "callback", "gRPC"
WORKERS = 2

_NUMBER = struct.Struct("<Q")
# A worker sends this number instead of a size when it has sent everything.
_DONE = 2**63
# The intervals at which a worker tells the parent the size of its outbox, and at which it reads its binary stream.
# Here, an outbox has no limit, unlike that of mpr's workers. So a longer interval would need more memory.
_ANNOUNCE_SECS = 0.005
_READ_SECS = 0.005


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The figures of one run. Figures of workers are those of the worker with the largest value.

    Attributes
    ----------
    wall_secs, parent_cpu_secs:
        The seconds until everything was written, and the CPU time of the parent in these seconds.
    log_median_us, log_p99_us:
        The median and the 99th percentile of the time of one `rr.log` in a worker, in microseconds.
    worker_peak_mb:
        The largest resident memory of a worker in MB, above that before the run.
    """

    wall_secs: float
    parent_cpu_secs: float
    log_median_us: float
    log_p99_us: float
    worker_peak_mb: float


# --- the worker ---------------------------------------------------------------------------------------------------


class _Link:
    """Sends numbers and bytes from a worker to the parent, over a socket. Any thread may call its methods."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lock = threading.Lock()

    def number(self, value: int) -> None:
        with self._lock:
            self._end.sendall(_NUMBER.pack(value))

    def data(self, data: bytes | None) -> None:
        if data:
            with self._lock:
                self._end.sendall(_NUMBER.pack(len(data)))
                self._end.sendall(data)

    def text(self, text: str) -> None:
        self.data(text.encode())


def _attach(way: str, stream: rr.RecordingStream, target: str, link: _Link) -> Callable[[], object]:
    """Let the rows of `stream` leave this worker by `way`.

    `target` is the path of the worker's file, or the URL of the server. Returns a function that writes or sends all
    bytes that are left.
    """
    import rerun as rr

    if way == FILE:
        stream.save(target)
        return stream.disconnect
    if way == GRPC:
        stream.connect_grpc(target)

        def send_rest() -> None:
            stream.flush()
            stream.disconnect()

        return send_rest
    if way == MEMORY:
        outbox = Outbox(Path(target).parent)
        link.text(outbox.address)
        stream.save(outbox.path)
        announcer = _Every(_ANNOUNCE_SECS, lambda: link.number(outbox.size()))

        def close() -> None:
            announcer.end()
            stream.disconnect()
            link.number(outbox.size())

        return close
    if way == BINARY:
        storage = rr.binary_stream(stream)
        reader = _Every(_READ_SECS, lambda: link.data(storage.read(flush=False)))

        def read_rest() -> None:
            reader.end()
            link.data(storage.read(flush=True))

        return read_rest
    import rerun_bindings

    rerun_bindings.set_callback_sink(link.data, recording=stream.inner)
    return stream.flush


class _Every:
    """Calls `action` every `pause_secs` seconds in a thread of its own, until `end` is called."""

    def __init__(self, pause_secs: float, action: Callable[[], object]) -> None:
        self._pause_secs = pause_secs
        self._action = action
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(self._pause_secs):
            self._action()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


def peak_mb() -> float:
    """Return the largest resident memory of this process in MB since the last call of `forget_peak`."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _worker(way: str, work: str, rows: int, worker: int, target: str, end: socket.socket) -> None:
    import rerun as rr

    stream = rr.RecordingStream("benchmark", recording_id="benchmark", send_properties=False)
    rr.set_global_data_recording(stream)
    link = _Link(end)
    finish = _attach(way, stream, target, link)
    log = works.prepare(work, worker)
    forget_peak()
    before = peak_mb()
    link.number(_DONE)
    end.recv(1)
    took = sorted(log(rows))
    finish()
    link.number(_DONE)
    # Wait until the parent has read the outbox. It must stay open until then.
    end.recv(1)
    link.text(json.dumps([took[len(took) // 2] * 1e6, took[len(took) * 99 // 100] * 1e6, peak_mb() - before]))


# --- the parent ---------------------------------------------------------------------------------------------------


class _Feed:
    """Receives the bytes of one worker in the parent. Appends them to a file, and notes their places in this file."""

    def __init__(self, way: str, end: socket.socket, folder: Path) -> None:
        self._way = way
        self.end = end
        self._outbox = OutboxReader(self._data().decode(), folder) if way == MEMORY else None
        self._taken = 0
        #: The places of the worker's bytes in the file, in the order in which they came: (offset, size) in bytes.
        self.places: list[tuple[int, int]] = []
        # The worker sends some bytes before it logs any row. They begin its stream, so they are kept.
        self._early: list[int | bytearray] = []
        while (first := self._next()) is not None:
            self._early.append(first)

    def _number(self) -> int:
        return int(_NUMBER.unpack(self._exactly(_NUMBER.size))[0])

    def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            got = self.end.recv_into(view)
            if not got:
                raise EOFError("a worker ended early")
            view = view[got:]
        return data

    def _data(self) -> bytearray:
        return self._exactly(self._number())

    def _next(self) -> int | bytearray | None:
        number = self._number()
        if number == _DONE:
            return None
        return number if self._way == MEMORY else self._exactly(number)

    def take(self, target: int, end: int) -> int | None:
        """Append the worker's next bytes to the file with the descriptor `target`, which ends at offset `end`.

        Returns the new end of the file, or None if the worker has sent everything.
        """
        came = self._next()
        return None if came is None else self._append(target, end, came)

    def _append(self, target: int, end: int, came: int | bytearray) -> int:
        if isinstance(came, int):
            assert self._outbox is not None
            size = came - self._taken
            if not size:
                return end
            self._outbox.copy(target, self._taken, size)
            self._outbox.release(self._taken, came)
            self._taken = came
        else:
            size = len(came)
            view = memoryview(came)
            while view:
                view = view[os.write(target, view) :]
        self.places.append((end, size))
        return end + size

    def take_early(self, target: int, end: int) -> int:
        """Append the bytes that came before the worker logged its first row. Returns the new end of the file."""
        while self._early:
            end = self._append(target, end, self._early.pop(0))
        return end

    def report(self) -> list[float]:
        found: list[float] = json.loads(self._data())
        return found

    def close(self) -> None:
        self.end.close()
        if self._outbox is not None:
            self._outbox.close()


def _take_all(feeds: list[_Feed], target: int) -> None:
    """Append the bytes of all workers to the file with the descriptor `target`, until all have sent everything."""
    end = 0
    with selectors.DefaultSelector() as selector:
        for feed in feeds:
            end = feed.take_early(target, end)
            selector.register(feed.end, selectors.EVENT_READ, feed)
        while selector.get_map():
            for key, _ in selector.select():
                feed = key.data
                after = feed.take(target, end)
                if after is None:
                    selector.unregister(feed.end)
                else:
                    end = after


def run(way: str, work: str, rows: int, folder: Path, workers: int = WORKERS) -> Reading:
    """Let `workers` processes log `rows` rows of `work` each, check the rows, and return the figures.

    With the way `FILE`, the files of the workers stay in `folder` as `<worker>.rrd`. The workers have started before
    the time begins.
    """
    if way != GRPC:
        return _run(way, work, rows, folder, [str(folder / f"{worker}.rrd") for worker in range(workers)])
    url = servers.url_of(port := servers.free_port())
    with servers.server(port, memory="8GB"):
        reading = _run(way, work, rows, folder, [url] * workers)
        servers.check_rows(url, rows * workers, folder)
    return reading


def _run(way: str, work: str, rows: int, folder: Path, targets: list[str]) -> Reading:
    context = multiprocessing.get_context("forkserver")
    processes, feeds = [], []
    ends: list[socket.socket] = []
    for worker, goal in enumerate(targets):
        ours, theirs = socket.socketpair()
        process = context.Process(target=_worker, args=(way, work, rows, worker, goal, theirs))
        process.start()
        theirs.close()
        processes.append(process)
        ends.append(ours)
    feeds = [_Feed(way, end, folder) for end in ends]
    target = os.open(folder / "all.rrd", os.O_RDWR | os.O_CREAT)
    cpu, begin = time.process_time(), time.perf_counter()
    for feed in feeds:
        feed.end.send(b"x")
    _take_all(feeds, target)
    wall_secs, cpu_secs = time.perf_counter() - begin, time.process_time() - cpu
    for feed in feeds:
        feed.end.send(b"x")
    reports = [feed.report() for feed in feeds]
    for process, feed in zip(processes, feeds, strict=True):
        process.join()
        feed.close()
    if way == FILE:
        for path in targets:
            common.check_file(Path(path), rows)
    elif way != GRPC:
        for feed in feeds:
            _check(way, target, feed.places, rows, folder / "check.rrd")
    os.close(target)
    log_median, log_p99, peak = (max(values) for values in zip(*reports, strict=True))
    return Reading(
        wall_secs=wall_secs,
        parent_cpu_secs=cpu_secs,
        log_median_us=log_median,
        log_p99_us=log_p99,
        worker_peak_mb=peak,
    )


def _check(way: str, file: int, places: list[tuple[int, int]], rows: int, scratch: Path) -> None:
    """Raise an error unless the bytes at `places` of `file` are whole streams, which have `rows` rows together."""
    data = [os.pread(file, size, offset) for offset, size in places]
    # An outbox is one stream. With a binary stream or a callback, each message is a whole stream.
    streams = [b"".join(data)] if way == MEMORY else data
    chunks = ends = 0
    with scratch.open("wb") as out:
        for number, stream in enumerate(streams):
            framing.check_header(stream)
            read = functools.partial(_slice, memoryview(stream))
            frames, _ = framing.scan(read, framing.HEADER_SIZE, len(stream))
            if number == 0:
                out.write(stream[: framing.HEADER_SIZE])
            # The end of each stream is left out, because `RrdReader` reads only one stream in a file.
            for frame in frames:
                if frame.kind == framing.END:
                    ends += 1
                else:
                    chunks += frame.kind == framing.ARROW_MSG
                    out.write(stream[frame.start : frame.end])
    common.expect(ends, len(streams), "streams that end")
    common.expect(common.count_rows(scratch), rows, f"rows in {chunks} chunks")
    scratch.unlink()


def _slice(stream: memoryview, offset: int, size: int) -> bytes:
    return bytes(stream[offset : offset + size])


def prepare_fork_server() -> None:
    """Let the fork server of `multiprocessing` import the SDK, so that workers start as quickly as those of mpr."""
    multiprocessing.set_forkserver_preload(["rerun", "numpy", "pyarrow"])


def _measure(way: str, work: str, rows: int) -> Reading:
    with common.scratch() as folder:
        return run(way, work, rows, folder)


def main() -> None:
    bench = report.begin(__doc__)
    prepare_fork_server()
    for work, rows in works.WORKS.items():
        ways: dict[str, Any] = {
            way: functools.partial(_measure, way, work, rows) for way in (FILE, MEMORY, BINARY, CALLBACK, GRPC)
        }
        readings = common.interleaved(ways, bench.rounds(3))
        floor = [each.wall_secs for each in readings[FILE]]
        table = []
        for way, runs in readings.items():
            walls = [each.wall_secs for each in runs]
            figures = [
                f"{common.median(walls):.2f}",
                common.ratio(walls, floor),
                f"{common.median([each.log_median_us for each in runs]):.0f}",
                f"{common.median([each.log_p99_us for each in runs]):.0f}",
                f"{common.median([each.worker_peak_mb for each in runs]):.0f}",
                f"{common.median([each.parent_cpu_secs for each in runs]):.2f}",
            ]
            table.append([way, *figures])
        bench.table(
            f"{WORKERS} workers x {rows} {work}",
            ["way", "s", "ratio to file", "log median us", "log p99 us", "worker peak + MB", "parent CPU s"],
            table,
        )
    bench.end()


if __name__ == "__main__":
    main()
