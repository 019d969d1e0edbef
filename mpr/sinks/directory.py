"""The writer behind a `DirectorySink`: a file of its own for each task, under ids of its own.

Covers: which rows belong to which task, the files' names and properties, what belongs to no task.
Does not cover: how a file is written (`rrd/writer.py`) and how ids are replaced (`rrd/relabel.py`).

A worker begins a new outbox after each task that has logged, so a task's rows come with a manifest of their own, and
its file is finished before its result is handed over. Rows of no task (the parent's, an initializer's) are in one more
file, `shared.rrd`, under the recording's own id.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpr import errors
from mpr.errors import ConfigError, SinkError
from mpr.rrd import framing, relabel, store_id
from mpr.rrd.relabel import Relabeller
from mpr.rrd.segment import PREAMBLE, MessageBytes, Segment, TaskInfo
from mpr.rrd.writer import FileWriter
from mpr.sdk import encoder
from mpr.sinks.base import OpenContext, Sink
from mpr.sinks.per_recording import PerRecordingWriter

if TYPE_CHECKING:
    import rerun as rr


SHARED = "shared.rrd"

# What a function's name may have, and a file's had better not.
# Stands for the outbox of a store info that is written for a file.
_STORE_INFO = -1
_UNUSUAL = re.compile(r"[^A-Za-z0-9_\-.]")


@dataclass(eq=False)
class _File:
    writer: FileWriter
    store: bytes
    task: TaskInfo | None
    recording_name: str = ""
    outboxes: dict[int, Relabeller] = field(default_factory=dict)


class DirectoryWriter:
    """Writes one `.rrd` file per task into a folder.

    Parameters
    ----------
    folder:
        Where to; made if it is missing.
    name:
        Name of a task's file, with `{task}`, `{name}`, `{index}`, `{attempt}` and `{worker}` to be filled in.
    application_id, recording_id:
        Of the shared recording.

    Raises
    ------
    SinkError
        If the folder cannot be made, or the file for what belongs to no task not be opened.
    """

    def __init__(self, folder: Path, name: str, application_id: str, recording_id: str) -> None:
        self._folder = folder.absolute()
        self._name = name
        self._application_id = application_id
        self._recording_id = recording_id
        self._store = store_id.store_id(application_id, recording_id)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(error.errno, f"cannot make the folder {folder}: {error.strerror}") from error
        self.log = None
        #: Also that of no task: siblings are named after it.
        self.path = self._folder / SHARED
        self._shared = _File(FileWriter(self.path), self._store, None)
        self._header = b""
        # The store info of the shared recording, which every file needs with its own store id.
        self._info = b""
        # What the parent itself has sent, the properties aside: a blueprint is in every file.
        self._layouts: list[tuple[Segment, bytes]] = []
        self._latest: Segment | None = None
        self._files: dict[TaskInfo, _File] = {}
        self._by_outbox: dict[int, list[_File]] = {}
        self._taken: set[str] = {SHARED}

    @property
    def name(self) -> str:
        return str(self._folder)

    @property
    def paths(self) -> Sequence[Path]:
        return [self.path] if self.published else []

    @property
    def published(self) -> bool:
        return self._shared.writer.published

    def open(self, preamble: bytes) -> None:
        self._header = preamble[: framing.HEADER_SIZE]
        frames = framing.frames_of(preamble)
        self._info = next(
            (preamble[each.payload : each.end] for each in frames if each.kind == framing.SET_STORE_INFO), b""
        )
        self._shared.writer.open(preamble)

    def begin(self, header: bytes) -> None:
        self._header = header
        self._shared.writer.begin(header)

    def accept(self, segment: Segment, *, published: bool) -> None:
        if segment.telemetry:
            # A folder of episodes has nothing but episodes in it.
            self._latest = None
            return
        if not self._info:
            infos = (frame for frame in segment.frames if frame.kind == framing.SET_STORE_INFO)
            self._info = next((segment.source.read(info.payload, info.size) for info in infos), b"")
        if segment.outbox == PREAMBLE:
            self._latest = segment
            self._shared.writer.accept(segment, published=published)
            return
        file = self._shared if segment.task is None else self._files.get(segment.task) or self._open(segment.task)
        relabeller = file.outboxes.get(segment.outbox)
        if relabeller is None:
            relabeller = file.outboxes[segment.outbox] = Relabeller(self._store, file.store)
            self._by_outbox.setdefault(segment.outbox, []).append(file)
        file.writer.accept(relabeller.segment(segment), published=published)

    def add_manifests(self, outbox: int, footer: bytes) -> None:
        if outbox == PREAMBLE:
            if self._latest is not None:
                self._layouts.append((self._latest, footer))
                self._shared.writer.add_manifests(outbox, footer)
            return
        for file in self._by_outbox.pop(outbox, ()):
            try:
                file.writer.take_manifests(outbox, file.outboxes.pop(outbox).manifests(footer))
            except (errors.FormatError, KeyError, ValueError):
                # At the end the SDK describes what nobody has described.
                continue
            if file.task is not None and file.task.is_over:
                self._finish(file)

    def rows_of(self, outbox: int, skip: int) -> int | None:
        """They are in many files."""
        return None

    def close(self) -> None:
        failure = None
        for file in list(self._files.values()):
            try:
                self._finish(file)
            except SinkError as error:
                failure = failure or error
        if self.published:
            self._shared.writer.close()
        else:
            # Nothing came that belongs to no task.
            self._shared.writer.abort()
        if failure is not None:
            raise failure

    def abort(self) -> None:
        for file in (*self._files.values(), self._shared):
            file.writer.abort()
        self._files.clear()

    def _open(self, task: TaskInfo) -> _File:
        path = self._folder / self._free_name(task)
        store = store_id.store_id(self._application_id, f"{self._recording_id}-{path.stem}")
        file = self._files[task] = _File(FileWriter(path), store, task, path.stem)
        file.writer.begin(self._header)
        if self._info:
            # A worker's outbox begins with one, but that may be from before the task.
            payload = store_id.info_of(self._info, store)
            data = framing.frame_header(framing.SET_STORE_INFO, len(payload)) + payload
            frames, _ = framing.scan(lambda at, size: data[at : at + size], 0, len(data))
            file.writer.accept(Segment(_STORE_INFO, MessageBytes(0, data), frames), published=False)
        for segment, footer in self._layouts:
            file.writer.accept(segment, published=False)
            file.writer.add_manifests(PREAMBLE, footer)
        return file

    def _free_name(self, task: TaskInfo) -> str:
        """The name for the file of `task`; a second attempt has a number behind it."""
        name = self._name.format(
            task=task.number,
            name=_UNUSUAL.sub("_", task.name),
            index=task.index,
            attempt=task.attempt,
            worker=task.worker,
        )
        stem, suffix = Path(name).stem, Path(name).suffix
        count = 1
        while name in self._taken:
            count += 1
            name = f"{stem}-{count}{suffix}"
        self._taken.add(name)
        return name

    def _finish(self, file: _File) -> None:
        assert file.task is not None
        del self._files[file.task]
        if not file.writer.published:
            # All that it logged went to a recording of its own making.
            file.writer.abort()
            return
        stream = relabel.relabelled(_properties(file.recording_name, file.task), file.store)
        frames = framing.frames_of(stream)
        end = frames.pop()
        file.writer.accept(Segment(PREAMBLE, MessageBytes(0, stream), frames), published=True)
        file.writer.add_manifests(PREAMBLE, stream[end.payload : end.end])
        file.writer.close()


def _properties(recording_name: str, task: TaskInfo) -> bytes:
    """A stream with the properties of the recording of `task`; its store id is not that recording's yet."""
    import rerun as rr

    values: dict[str, Any] = {
        "function": task.name,
        "index": task.index,
        "attempt": task.attempt,
        "worker": task.worker,
        "seconds": task.seconds,
        "outcome": (task.error or "returned") if task.is_over else "not finished",
    }

    def write(stream: rr.RecordingStream) -> None:
        stream.send_recording_name(recording_name)
        stream.send_recording_start_time_nanos(task.started_nanos)
        stream.send_property("task", rr.AnyValues(**values))

    return encoder.encoded_by_sdk(write)


@dataclass(frozen=True, kw_only=True)
class DirectorySink(Sink):
    """A folder with a recording of its own for each task: the usual way to turn a data set into episodes.

    The recording of a task has the rows that the task has logged, an id and a name of its own, and as properties what
    ran where, how long, and how it ended. Its file is finished before the task's result is handed over. A task that
    logs nothing has no file. What belongs to no task (the parent's rows, an initializer's) is in `shared.rrd`.

    Parameters
    ----------
    path:
        The folder, made if it is missing. Files of the same names are replaced, others are left alone.
    name:
        Name of a task's file, with these to be filled in as by `str.format`: `task`, the task's number in the pool from
        0; `name`, the function's name; `index`, its index in its call; `attempt` and `worker`. Of two files that would
        have the same name, the second gets a number.

    Raises
    ------
    ConfigError
        If the path is empty, a file, a URL, or of another type, or if `name` is no such name of a file.
    """

    path: str | os.PathLike[str]
    name: str = "{task:06d}-{name}.rrd"

    keeps_tasks_apart = True

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | os.PathLike) or not os.fspath(self.path):
            raise ConfigError(f"DirectorySink needs the path of a folder such as 'episodes', got {self.path!r}")
        if "://" in os.fspath(self.path):
            raise ConfigError(f"{self.path!r} is a URL, and DirectorySink needs the path of a folder")
        if Path(self.path).exists() and not Path(self.path).is_dir():
            raise ConfigError(f"DirectorySink needs the path of a folder, and {str(self.path)!r} is a file")
        try:
            example = self.name.format(task=0, name="function", index=0, attempt=1, worker=1)
        except (AttributeError, IndexError, KeyError, ValueError) as error:
            raise ConfigError(
                f"{self.name!r} cannot be filled in ({error!r}): "
                "use {task}, {name}, {index}, {attempt} and {worker}"
            ) from None
        if os.sep in example or not example.endswith(".rrd") or example.startswith("."):
            raise ConfigError(f"{self.name!r} is no name of an .rrd file: it would be {example!r}")

    def _places(self) -> tuple[str, ...]:
        return (str(Path(self.path).resolve()),)

    def open(self, context: OpenContext) -> PerRecordingWriter:
        """Open the sink for a recording that begins: mpr itself calls this."""
        context.check_format("a DirectorySink needs")
        folder = DirectoryWriter(Path(self.path), self.name, context.application_id, context.recording_id)
        return PerRecordingWriter(folder, context.store, lambda path, _application_id, _recording_id: FileWriter(path))
