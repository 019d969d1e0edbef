"""Defines `DirectorySink`, which writes one file per task, each with its own recording id.

A worker begins a new outbox (a file in memory for its rows) after each task that has logged. So the rows of a task have
their own manifest, and the file of the task is finished before the caller gets the result of the task.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mpr import errors
from mpr.datasets.properties import PropertyTypes
from mpr.errors import ConfigError, SinkError
from mpr.rrd import framing, manifest, relabel, store_id
from mpr.rrd.relabel import Relabeller
from mpr.rrd.segment import PREAMBLE, MessageBytes, Segment, TaskCall, TaskInfo
from mpr.rrd.writer import FileWriter
from mpr.sinks import task_properties
from mpr.sinks.base import OpenContext, Sink
from mpr.sinks.file_router import FileRouter
from mpr.sinks.per_recording import PerRecordingWriter

SHARED = "shared.rrd"

# The outbox number of a store info that this module makes for a file. No outbox has this number.
_STORE_INFO = -1
# The characters of a function's name that are replaced in a file name.
_UNUSUAL = re.compile(r"[^A-Za-z0-9_\-.]")


class DirectoryWriter:
    """Writes one `.rrd` file per task into a folder. The methods do the same as those of a `Writer` (`base.py`).

    Parameters
    ----------
    folder:
        The folder, which is made if it is missing.
    name:
        The name of a task's file, with the fields `{task}`, `{name}`, `{index}`, `{attempt}` and `{worker}`.
    application_id, recording_id:
        The ids of the shared recording.

    Raises
    ------
    SinkError
        If the folder or the file `shared.rrd` cannot be made.
    """

    # There is no `ByteLog`, because the recording is in many files.
    log = None

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
        #: The file for rows that belong to no task. Recordings that tasks make themselves are in `shared-<id>.rrd`.
        self.path: Path = self._folder / SHARED
        self._shared = FileWriter(self.path)
        self._types = PropertyTypes()
        shared = _TaskFile(self._shared, self._store, self._store, self._types)
        self._router = FileRouter(shared, _task_of, self._open_file)
        self._header = b""
        # The store info of the shared recording. Every file gets a copy with the store id of the file.
        self._info = b""
        # Streams of the parent itself, such as a blueprint, as (segment, payload of the `END` frame). The file of each
        # task begins with copies of all these streams.
        self._layouts: list[tuple[Segment, bytes]] = []
        # The last of these streams, until its `END` frame comes.
        self._latest: Segment | None = None
        # The names of all files.
        self._taken: set[str] = {SHARED}

    @property
    def name(self) -> str:
        return str(self._folder)

    @property
    def paths(self) -> Sequence[Path]:
        return [self.path] if self.published else []

    @property
    def published(self) -> bool:
        return self._shared.published

    def open(self, preamble: bytes) -> None:
        self._header = preamble[: framing.HEADER_SIZE]
        frames = framing.frames_of(preamble)
        self._info = next(
            (preamble[each.payload : each.end] for each in frames if each.kind == framing.SET_STORE_INFO), b""
        )
        self._shared.open(preamble)

    def expect(self, calls: Sequence[TaskCall]) -> None:
        self._types.learn(calls)

    def accept(self, segment: Segment, *, published: bool) -> None:
        if segment.telemetry:
            # Telemetry is left out, because the folder is only for the data of the user.
            self._latest = None
            return
        if not self._info:
            infos = (frame for frame in segment.frames if frame.kind == framing.SET_STORE_INFO)
            self._info = next((segment.source.read(info.payload, info.size) for info in infos), b"")
        if segment.outbox == PREAMBLE:
            self._latest = segment
        self._router.accept(segment, published=published)

    def add_manifests(self, outbox: int, footer: bytes) -> None:
        if outbox == PREAMBLE and self._latest is not None:
            self._layouts.append((self._latest, footer))
        self._router.add_manifests(outbox, footer)

    def distrust(self) -> None:
        self._shared.distrust()

    def rows_of(self, outbox: int, skip: int, *, users_only: bool = True) -> int | None:
        """Return None, because the rows of the recording are in many files, which are not counted together."""
        return None

    def timed_rows(self) -> int | None:
        """Return None, because the rows of the recording are in many files, which are not counted together."""
        return None

    def close(self) -> None:
        self._router.close()

    def abort(self) -> None:
        self._router.abort()

    def _open_file(self, task: TaskInfo) -> _TaskFile:
        path = self._folder / self._free_name(task)
        store = store_id.store_id(self._application_id, f"{self._recording_id}-{path.stem}")
        file = _TaskFile(FileWriter(path), self._store, store, self._types, task)
        try:
            file.begin(self._header, self._info, self._layouts)
        except BaseException:
            file.abort()
            raise
        return file

    def _free_name(self, task: TaskInfo) -> str:
        """Return a name for the file of `task`. If the file of an earlier task has the name, a number is added."""
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


class _FolderWriter(PerRecordingWriter):
    """The writer of a `DirectorySink`: `folder` for the shared recording, and a file for every other recording."""

    def __init__(self, folder: DirectoryWriter, store: bytes) -> None:
        super().__init__(folder, store, lambda path, _application_id, _recording_id: FileWriter(path))
        self._folder = folder

    def expect(self, calls: Sequence[TaskCall]) -> None:
        self._folder.expect(calls)


def _task_of(segment: Segment) -> TaskInfo | None:
    return None if segment.outbox == PREAMBLE else segment.task


class _TaskFile:
    """Writes the rows of one task into a file with its own recording id, or the rows of no task into `shared.rrd`.

    Parameters
    ----------
    writer:
        The writer of the file.
    old, new:
        The encoded store ids of the shared recording and of the recording in this file. They are the same for
        `shared.rrd`.
    task:
        The task, or None for rows that belong to no task.
    types:
        The types of the properties of all tasks.
    """

    def __init__(
        self, writer: FileWriter, old: bytes, new: bytes, types: PropertyTypes, task: TaskInfo | None = None
    ) -> None:
        self._types = types
        self._writer = writer
        self._old = old
        self._new = new
        self._task = task
        self._outboxes: dict[int, Relabeller] = {}
        # The components of the recording's properties that the task has set, such as its name, by their entities.
        self._said: dict[str, set[str]] = {}

    def begin(self, header: bytes, info: bytes, layouts: Sequence[tuple[Segment, bytes]]) -> None:
        """Write the beginning of the file: `header` (of a stream), the store info `info`, and `layouts` (blueprints).

        Each layout is a pair: the segment, and the payload of the `END` frame. If `info` is empty, no store info is
        written.
        """
        self._writer.begin(header)
        if info:
            # The outbox with the rows of the task has a store info, too. But the store info may have come before the
            # task began, and it is in another file then.
            payload = store_id.info_of(info, self._new)
            data = framing.frame_header(framing.SET_STORE_INFO, len(payload)) + payload
            frames, _ = framing.scan(lambda at, size: data[at : at + size], 0, len(data))
            self._writer.accept(Segment(_STORE_INFO, MessageBytes(0, data), frames), published=False)
        for segment, footer in layouts:
            self._writer.accept(segment, published=False)
            self._writer.add_manifests(PREAMBLE, footer)

    def accept(self, segment: Segment, *, published: bool) -> None:
        if segment.outbox != PREAMBLE:
            relabeller = self._outboxes.get(segment.outbox)
            if relabeller is None:
                relabeller = self._outboxes[segment.outbox] = Relabeller(self._old, self._new)
            segment = relabeller.segment(segment)
        self._writer.accept(segment, published=published)

    def add_manifests(self, outbox: int, footer: bytes) -> bool:
        if outbox == PREAMBLE:
            self._writer.add_manifests(outbox, footer)
            return False
        try:
            self._writer.take_manifests(outbox, self._outboxes.pop(outbox).manifests(footer))
            for entity in task_properties.ENTITIES:
                self._said_at(entity).update(manifest.components_of(footer, self._old, entity))
        except (errors.FormatError, LookupError, ValueError, TypeError, ArithmeticError):
            # This manifest cannot be used. When the file is closed, the SDK makes a manifest for all chunks that have
            # none.
            return False
        return self._task is not None and self._task.is_over

    def close(self) -> None:
        if not self._writer.published:
            # There is no row, because the task has logged nothing, or has logged to a recording that it made itself.
            self._writer.abort()
            return
        if self._task is not None:
            properties = task_properties.encoded(self._writer.path.stem, self._task, self._types, self._said_at)
            stream = relabel.relabelled(properties, self._new)
            frames = framing.frames_of(stream)
            end = frames.pop()
            self._writer.accept(Segment(PREAMBLE, MessageBytes(0, stream), frames), published=True)
            self._writer.add_manifests(PREAMBLE, stream[end.payload : end.end])
        self._writer.close()

    def abort(self) -> None:
        self._writer.abort()

    def _said_at(self, entity: str) -> set[str]:
        return self._said.setdefault(entity, set())


@dataclass(frozen=True, kw_only=True)
class DirectorySink(Sink):
    """A folder with one recording per task, for example one recording per episode of a data set.

    The recording of a task has the rows that the task has logged, its own id and its own name. The task may set the
    name and the start time by the SDK's calls. The properties of the recording say which function ran, in which worker,
    for how many seconds, and how the function ended. The file is finished before the caller gets the result of the
    task, or when the recording is closed if the worker has died. A task that logs nothing has no file. If a task is
    retried, each attempt that logs has a file of its own. Rows that belong to no task (from the parent or an
    initializer) are in `shared.rrd`. Recordings that tasks make themselves are in `shared-<recording id>.rrd`.
    Telemetry of pools is in no file.

    Parameters
    ----------
    path:
        The folder, which is made if it is missing. Files with the same names are replaced, and all other files stay.
    name:
        The name of a task's file, with fields as in `str.format`. `task` is the number of the task in the pool, from 0.
        `name` is the name of the function. `index` is the index of the task in its `map`, from 0. For an `apply` or
        `submit`, it is the same as `task`. `attempt` is 1, or more after retries. `worker` is the number of the worker.
        If two files would have the same name, a number is added to the name of the second file.

    Raises
    ------
    ConfigError
        If the path is empty, a file, a URL, or of a wrong type, or if `name` has another field or does not give the
        name of an `.rrd` file.
    """

    path: str | os.PathLike[str] = field(kw_only=False)
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
        """Return a new writer for this sink. Only mpr itself calls this.

        Raises `SinkError` if the folder or the file `shared.rrd` cannot be made, or if mpr does not know the file
        format of the SDK.
        """
        context.check_format("a DirectorySink needs")
        folder = DirectoryWriter(Path(self.path), self.name, context.application_id, context.recording_id)
        return _FolderWriter(folder, context.store)
