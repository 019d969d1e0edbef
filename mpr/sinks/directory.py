"""Defines `DirectorySink`, which writes one file per task, each with its own recording id.

A worker begins a new outbox (a file in memory for its rows) after each task that has logged. So the rows of a task have
their own manifest, and the file of the task is finished before the caller gets the result of the task.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mpr.datasets.naming import EpisodeNames
from mpr.datasets.properties import PropertyTypes
from mpr.datasets.template import NameTemplate
from mpr.errors import ConfigError, SinkError
from mpr.rrd import framing, store_id
from mpr.rrd.segment import PREAMBLE, Segment, TaskCall, TaskInfo
from mpr.rrd.writer import FileWriter
from mpr.sinks.base import OpenContext, Sink
from mpr.sinks.file_router import FileRouter
from mpr.sinks.per_recording import PerRecordingWriter
from mpr.sinks.task_file import Place, TaskFile

SHARED = "shared.rrd"

# The number of the task is unique in a pool, so no name is ever changed.
_DEFAULT_NAME = "{task:06d}-{name}.rrd"


class DirectoryWriter:
    """Writes one `.rrd` file per task into a folder. The methods do the same as those of a `Writer` (`base.py`).

    Parameters
    ----------
    folder:
        The folder, which is made if it is missing.
    name:
        The template of the names of the tasks' files.
    application_id, recording_id:
        The ids of the shared recording.

    Raises
    ------
    SinkError
        If the folder or the file `shared.rrd` cannot be made.
    """

    # There is no `ByteLog`, because the recording is in many files.
    log = None

    def __init__(self, folder: Path, name: NameTemplate, application_id: str, recording_id: str) -> None:
        self._folder = folder.absolute()
        self._application_id = application_id
        self._recording_id = recording_id
        self._store = store_id.store_id(application_id, recording_id)
        _make(self._folder)
        #: The file for rows that belong to no task. Recordings that tasks make themselves are in `shared-<id>.rrd`.
        self.path: Path = self._folder / SHARED
        self._shared = FileWriter(self.path)
        self._types = PropertyTypes()
        shared = TaskFile(self._shared, self._store, self._store, self._types)
        self._router = FileRouter(shared, _task_of, self._open_file)
        self._header = b""
        # The store info of the shared recording. Every file gets a copy with the store id of the file.
        self._info = b""
        # Streams of the parent itself, such as a blueprint, as (segment, payload of the `END` frame). The file of each
        # task begins with copies of all these streams.
        self._layouts: list[tuple[Segment, bytes]] = []
        # The last of these streams, until its `END` frame comes.
        self._latest: Segment | None = None
        self._names = EpisodeNames(name, application_id, SHARED)
        # The places of all files of tasks, and those without a digest in their names by the keys of the names.
        self._places: list[Place] = []
        self._alike: dict[str, list[Place]] = {}

    @property
    def name(self) -> str:
        return str(self._folder)

    @property
    def paths(self) -> Sequence[Path]:
        shared = [self.path] if self.published else []
        return [*shared, *(each.path for each in list(self._places) if each.is_written)]

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
        self._names.expect(calls)
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

    def _open_file(self, task: TaskInfo) -> TaskFile:
        name = self._names.name(task)
        path = self._folder / name
        _make(path.parent)
        place = Place(path, self._folder / self._names.contested_name(task))
        self._places.append(place)
        key = self._names.episode(task).key
        if self._names.is_contested(key):
            for each in self._alike.pop(key, []):
                each.leave()
        else:
            self._alike.setdefault(key, []).append(place)
        store = store_id.store_id(self._application_id, self._id_of(task, path))
        file = TaskFile(FileWriter(path), self._store, store, self._types, task, place)
        try:
            file.begin(self._header, self._info, self._layouts)
        except BaseException:
            file.abort()
            raise
        return file

    def _id_of(self, task: TaskInfo, path: Path) -> str:
        """Return the recording id of `task`. Without a digest, the id is new in each run."""
        if task.call is not None and task.call.digest:
            return self._names.recording_id(task)
        return f"{self._recording_id}-{path.stem}"


def _make(folder: Path) -> None:
    """Make `folder` if it is missing. Raises `SinkError` if that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(error.errno, f"cannot make the folder {folder}: {error.strerror}") from error


class _FolderWriter(PerRecordingWriter):
    """The writer of a `DirectorySink`: `folder` for the shared recording, and a file for every other recording."""

    def __init__(self, folder: DirectoryWriter, store: bytes) -> None:
        super().__init__(folder, store, lambda path, _application_id, _recording_id: FileWriter(path))
        self._folder = folder

    def expect(self, calls: Sequence[TaskCall]) -> None:
        self._folder.expect(calls)


def _task_of(segment: Segment) -> TaskInfo | None:
    return None if segment.outbox == PREAMBLE else segment.task


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
        The name of a task's file with fields as in `str.format`, such as `"{name}/lr={lr:.3g}-seed={seed:04d}.rrd"`.
        A field is a parameter of the function, a part of it (`{cfg.lr}` for a dataclass or a dict), or one of these:
        `name` is the name of the function. `task` is the number of the task in the pool, from 0. `index` is the index
        of the task in its `map`, from 0; for an `apply` or `submit`, it is the same as `task`. `attempt` is 1, or more
        after retries. `worker` is the number of the worker. `digest` is a hash of the function's name and the
        arguments. `docs/sinks.md` says what happens to characters that names cannot have, and to two tasks with one
        name.

    Raises
    ------
    ConfigError
        If the path is empty, a file, a URL, or of a wrong type, or if `name` cannot be the name of an `.rrd` file. A
        call of the pool raises it if its function has no parameter for a field of `name`.
    """

    path: str | os.PathLike[str] = field(kw_only=False)
    name: str = _DEFAULT_NAME

    keeps_tasks_apart = True

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | os.PathLike) or not os.fspath(self.path):
            raise ConfigError(f"DirectorySink needs the path of a folder such as 'episodes', got {self.path!r}")
        if "://" in os.fspath(self.path):
            raise ConfigError(f"{self.path!r} is a URL, and DirectorySink needs the path of a folder")
        if Path(self.path).exists() and not Path(self.path).is_dir():
            raise ConfigError(f"DirectorySink needs the path of a folder, and {str(self.path)!r} is a file")
        NameTemplate(self.name)

    @property
    def needs_digests(self) -> bool:
        return self.name != _DEFAULT_NAME

    def _places(self) -> tuple[str, ...]:
        return (str(Path(self.path).resolve()),)

    def open(self, context: OpenContext) -> PerRecordingWriter:
        """Return a new writer for this sink. Only mpr itself calls this.

        Raises `SinkError` if the folder or the file `shared.rrd` cannot be made, or if mpr does not know the file
        format of the SDK.
        """
        context.check_format("a DirectorySink needs")
        folder = DirectoryWriter(Path(self.path), NameTemplate(self.name), context.application_id, context.recording_id)
        return _FolderWriter(folder, context.store)
