"""Read recordings with Rerun's own reader, and take the census after a test. Most tests use this."""

from __future__ import annotations

import contextlib
import gc
import logging
import mmap
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pyarrow as pa
import rerun as rr

from mpr.aggregator.complete_tasks import CompleteTasks
from mpr.aggregator.fanout import Fanout
from mpr.aggregator.intake import IntakeContext, ProducerIntake
from mpr.aggregator.numbers import RecordingNumbers
from mpr.aggregator.row_balance import RowTotals
from mpr.processes import forkserver
from mpr.rrd import framing
from mpr.rrd.segment import Segment
from mpr.sinks.binary_stream import StreamFile
from mpr.transport.messages import Hello

START_METHODS = ("forkserver", "spawn", "fork")

# Timelines that differ from run to run, in every recording.
_VARYING_TIMELINES = {"log_time", "log_tick"}


class Cell(NamedTuple):
    """One component batch of one row."""

    entity: str
    component: str
    times: tuple[tuple[str, Any], ...]
    value: str


def chunks(path: Path) -> Iterator[Any]:
    """Yield every chunk of every recording in the file, which may still be growing."""
    reader = rr.chunk.RrdReader(path)
    for entry in reader.recordings():
        yield from reader.stream(store=entry)


def cells(path: Path, *, properties: bool = False) -> Counter[Cell]:
    """Count all cells of a file, without `mpr/` and by default without the properties."""
    found: Counter[Cell] = Counter()
    for chunk in chunks(path):
        entity = str(chunk.entity_path)
        if entity.startswith("/mpr/") or (entity.startswith("/__properties") and not properties):
            continue
        found.update(cells_of(entity, chunk.to_record_batch()))
    return found


def cells_of(entity: str, batch: pa.RecordBatch) -> Iterator[Cell]:
    times: dict[str, list[Any]] = {}
    data: dict[str, list[Any]] = {}
    for field, column in zip(batch.schema, batch.columns, strict=True):
        kind = field.metadata[b"rerun:kind"]
        if kind == b"index" and field.name not in _VARYING_TIMELINES:
            times[field.name] = column.to_pylist()
        elif kind == b"data":
            data[field.name] = column.to_pylist()
    for row in range(batch.num_rows):
        stamps = tuple(sorted((name, values[row]) for name, values in times.items()))
        for component, values in data.items():
            if values[row] is not None:
                yield Cell(entity, component, stamps, repr(values[row]))


def numbers(path: Path, entity: str = "/n") -> Counter[int]:
    """Count the values of the scalars at `entity`."""
    found = (cell for cell in cells(path).elements() if cell.entity == entity)
    return Counter(int(float(cell.value.strip("[]"))) for cell in found if cell.component == "Scalars:scalars")


class Text(NamedTuple):
    """One row of a `rr.TextLog`."""

    entity: str
    text: str
    level: str


def texts(path: Path) -> list[Text]:
    """Return all text logs of a file, in the order of the file."""
    found = []
    for chunk in chunks(path):
        batch = chunk.to_record_batch()
        if "TextLog:text" in batch.schema.names:
            said = batch.column("TextLog:text").to_pylist()
            has_level = "TextLog:level" in batch.schema.names
            levels = batch.column("TextLog:level").to_pylist() if has_level else [[""]] * len(said)
            found += [Text(str(chunk.entity_path), text[0], level[0]) for text, level in zip(said, levels, strict=True)]
    return found


@contextlib.contextmanager
def whole_frames_of(path: Path) -> Iterator[Path]:
    """Copy the whole frames of a file that may be growing at this moment.

    Rerun's reader reads the size of a file once, and refuses a file that grows while it reads.
    """
    data = path.read_bytes()
    _, end = framing.scan(lambda at, size: data[at : at + size], framing.HEADER_SIZE, len(data))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # There is no footer yet, and the reader warns of that.
        warnings.simplefilter("ignore")
        copy = Path(folder) / "copy.rrd"
        copy.write_bytes(data[:end])
        yield copy


def cells_of_growing(path: Path) -> Counter[Cell]:
    """Return `cells` of a file that is still written."""
    with whole_frames_of(path) as copy:
        return cells(copy)


def numbers_of_growing(path: Path) -> Counter[int]:
    """Return `numbers` of a file that is still written."""
    with whole_frames_of(path) as copy:
        return numbers(copy)


def folders_of(pid: int) -> list[Path]:
    """Return the socket folders that the process `pid` has made."""
    found = []
    for path in Path(tempfile.gettempdir()).glob("mpr-*/owner"):
        # Folders of other processes may disappear at this moment.
        with contextlib.suppress(FileNotFoundError):
            if path.read_text(errors="replace") == str(pid):
                found.append(path.parent)
    return found


def row_counts(path: Path, timeline: str = "step") -> dict[tuple[str, int], int]:
    """Count the rows of each entity at each value of a timeline, without reading their values."""
    found: Counter[tuple[str, int]] = Counter()
    for chunk in chunks(path):
        batch = chunk.to_record_batch()
        if timeline in batch.schema.names:
            found.update((str(chunk.entity_path), time) for time in batch.column(timeline).to_pylist())
    return dict(found)


def chunk_ids(path: Path) -> list[str]:
    return [str(chunk.id) for chunk in chunks(path)]


def rerun_cli(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = shutil.which("rerun", path=Path(sys.executable).parent)
    assert command is not None
    return subprocess.run([command, *arguments], capture_output=True, text=True, timeout=60, check=False)


def check_file(path: Path) -> None:
    """Fail unless `path` is a whole file: it verifies, has a manifest, every chunk once, and no `.part` beside it."""
    verified = rerun_cli("rrd", "verify", path)
    assert verified.returncode == 0, verified.stderr
    reader = rr.chunk.RrdReader(path)
    (entry,) = reader.recordings()
    listed = sorted(str(chunk.id) for chunk in reader.store(store=entry).stream())
    ids = chunk_ids(path)
    assert sorted(set(ids)) == sorted(ids)
    assert sorted(ids) == listed
    assert not list(path.parent.glob(f".{path.name}.*"))


@contextlib.contextmanager
def records_of_mpr() -> Iterator[list[logging.LogRecord]]:
    """Collect what mpr logs in this process within the block, also in a worker."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]  # the shortest handler
    logger = logging.getLogger("mpr")
    logger.addHandler(handler)
    try:
        yield records
    finally:
        logger.removeHandler(handler)


def run_python(source: str, *arguments: str | Path, env: dict[str, str] | None = None, timeout: float = 60) -> Any:
    """Run `source` as a script in a file, as a user would."""
    with tempfile.TemporaryDirectory(prefix="script-") as folder:
        script = Path(folder) / "script.py"
        script.write_text(source)
        return subprocess.run(
            [sys.executable, str(script), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, **(env or {})},
        )


# --- census -------------------------------------------------------------------------------------------------------


class _NoObserver:
    """An observer of rows that looks at nothing."""

    def peek(self, segment: Segment) -> None: ...

    def note(self, footer: bytes) -> None: ...


def intake_of(hello: Hello, folder: Path) -> ProducerIntake:
    """Return the parent's side of a producer, without sinks and without a receiver of its results."""
    fanout = Fanout([], None, lambda _: b"", _NoObserver(), b"")
    context = IntakeContext(
        folder=folder,
        fanout=fanout,
        answer=lambda *_: None,
        totals=RowTotals(),
        numbers=RecordingNumbers(),
        complete_tasks=CompleteTasks(folder),
        on_accepted=lambda: None,
    )
    return ProducerIntake(hello, context, None)


class Census(NamedTuple):
    """The children, threads, socket folders and open files of this process. Files are counted by their kind."""

    children: frozenset[int]
    threads: frozenset[str]
    folders: frozenset[str]
    files: Counter[str]


def census() -> Census:
    exempt = forkserver.servers.pids()
    me = psutil.Process()
    children = set()
    for child in me.children(recursive=True):
        try:
            if child.pid in exempt or child.status() == psutil.STATUS_ZOMBIE or _is_tracker(child):
                continue
        except psutil.NoSuchProcess:
            continue
        children.add(child.pid)
    threads = {thread.name for thread in threading.enumerate()}
    folders = {path.name for path in folders_of(os.getpid())}
    return Census(frozenset(children), frozenset(threads), frozenset(folders), open_files())


# The numbers and random names in the targets of descriptors.
_VARYING = re.compile(r"(?<=:)\[\d+\]|-[0-9a-f]{32}| \(deleted\)")


# What a process opens once and keeps, by kind: nothing of it is a leak of the test in which it is opened first.
_once = Counter(
    {
        "pipe:": 4,  # those of mpr's and multiprocessing's fork servers, and of the resource tracker
        "socket:": 2,  # ZeroMQ's global context, which the client of a notebook makes
        # The same, and the context with which pyzmq frees memory of messages that were sent without a copy.
        "anon_inode:[eventpoll]": 4,
        "anon_inode:[eventfd]": 8,
        "anon_inode:[timerfd]": 1,  # that of Ray's driver
    }
)


# If a test ends a fork server, the next test starts another one, which has pipes and sockets of its own.
_AGAIN = Counter({"pipe:": 4, "socket:": 4})


def _held_by_objects() -> Counter[str]:
    """Count the descriptors of objects that live: of maps of memory, and of streams."""
    maps: set[int] = set()
    streams = 0
    for each in gc.get_objects():
        if type(each) is memoryview:
            # `ValueError`: it was released.
            with contextlib.suppress(ValueError):
                if type(each.obj) is mmap.mmap:
                    maps.add(id(each.obj))
        streams += type(each) is StreamFile
    return Counter({"/memfd:mpr-outbox": len(maps), "/memfd:mpr-stream": streams})


def open_files() -> Counter[str]:
    """Count the open files of this process by their kind: the path of a file, `pipe:`, `socket:` and the like."""
    found: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd") if sys.platform == "linux" else ():
        # The descriptor of the folder itself is closed by now.
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(f"/proc/self/fd/{name}")
            # Ray keeps the log of its driver open after `ray.shutdown()`.
            if not target.startswith("/tmp/ray/session"):
                found[_VARYING.sub("", target)] += 1
    return found


def _is_tracker(process: psutil.Process) -> bool:
    """Return whether a process is a resource tracker or fork server that `multiprocessing` or loky has started."""
    line = " ".join(process.cmdline())
    return any(f"{name} import main" in line for name in ("resource_tracker", "multiprocessing.forkserver"))


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def left_over(before: Census, wait_secs: float = 10.0) -> list[str]:
    """Return the things that exist now and did not exist before. Things that are just ending get some time."""
    deadline = time.monotonic() + wait_secs
    while True:
        now = census()
        left = [f"process {pid}" for pid in sorted(now.children - before.children)]
        left += [f"thread {name}" for name in sorted(now.threads - before.threads) if name.startswith("mpr")]
        left += [f"socket folder {name}" for name in sorted(now.folders - before.folders)]
        opened = now.files - before.files - _once - _AGAIN
        if opened:
            # These are closed when nothing refers to them. Hypothesis and captured errors keep them for a while.
            opened -= _held_by_objects()
        left += [f"{count} more of {kind}" for kind, count in sorted(opened.items())]
        if not left:
            _once.subtract((now.files - before.files) & _once)
            return left
        if time.monotonic() > deadline:
            return left
        # A map of memory has a descriptor of its own, which is closed with the last reference to the map.
        gc.collect()
        time.sleep(0.02)


def wait_for(condition: Any, timeout_secs: float = 30.0) -> None:
    """Wait until `condition()` is true; fail if that takes too long."""
    deadline = time.monotonic() + timeout_secs
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for does not happen"
        time.sleep(0.005)


def lives(pid: int) -> bool:
    """Return whether a process `pid` exists and is no zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
