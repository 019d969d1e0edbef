"""Defines `DirectorySink`, which writes one file per task, each with its own recording id.

A worker begins a new outbox (a file in memory for its rows) after each task that has logged. So the rows of a task have
a manifest of their own (a table of chunks), and the file of the task is finished before the caller gets the result.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpr.datasets.data_set import DataSet, DataSetOptions
from mpr.datasets.template import NameTemplate
from mpr.errors import ConfigError, SinkError
from mpr.rrd import framing, store_id
from mpr.rrd.segment import PREAMBLE, Segment, TaskCall, TaskInfo
from mpr.rrd.writer import FileWriter
from mpr.sinks.base import OpenContext, Sink
from mpr.sinks.file_router import FileRouter
from mpr.sinks.per_recording import PerRecordingWriter
from mpr.sinks.task_file import EpisodeFile, Place, TaskFile

SHARED = "shared.rrd"

# The number of the task is unique in a pool, so no name is ever changed.
_DEFAULT_NAME = "{task:06d}-{name}.rrd"
_RESUMED_NAME = "{name}-{digest:.8}.rrd"


class DirectoryWriter:
    """Writes one `.rrd` file per task into a folder. The methods do the same as those of a `Writer` (`base.py`).

    Parameters
    ----------
    options:
        The settings of the data set.
    recording_id:
        The id of the shared recording.

    Raises
    ------
    SinkError
        If the folder, `manifest.jsonl` or `shared.rrd` cannot be made or opened, or if another recording writes there.
    """

    # There is no `ByteLog`, because the recording is in many files.
    log = None

    def __init__(self, options: DataSetOptions, recording_id: str) -> None:
        self._folder = options.folder
        self._application_id = options.application_id
        self._recording_id = recording_id
        self._store = store_id.store_id(options.application_id, recording_id)
        _make(self._folder)
        #: The file for rows that belong to no task. Recordings that tasks make themselves are in `shared-<id>.rrd`.
        self.path: Path = self._folder / SHARED
        self._shared = FileWriter(self.path)
        try:
            self._data = DataSet(options, SHARED)
        except BaseException:
            self._shared.abort()
            raise
        shared = TaskFile(self._shared, self._store, self._store)
        self._router = FileRouter(shared, _task_of, self._open_file)
        self._header = b""
        # The store info of the shared recording. Every file gets a copy with the store id of the file.
        self._info = b""
        # Streams of the parent itself, such as a blueprint, as (segment, payload of the `END` frame). The file of each
        # task begins with copies of all these streams.
        self._layouts: list[tuple[Segment, bytes]] = []
        # The last of these streams, until its `END` frame comes.
        self._latest: Segment | None = None
        # The places of all files of tasks, and those without a digest in their names by the keys of the names.
        self._places: list[Place] = []
        self._alike: dict[str, list[Place]] = {}
        for line in self._data.earlier:
            self._add_earlier(line)
        # The open files of tasks by their paths.
        self._open: dict[Path, TaskFile] = {}

    @property
    def name(self) -> str:
        return str(self._folder)

    @property
    def paths(self) -> Sequence[Path]:
        shared = [self.path] if self.published else []
        # With `resume`, the attempts of a task have one path.
        return list(dict.fromkeys([*shared, *(each.path for each in list(self._places) if each.is_written)]))

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

    def expect(self, calls: Sequence[TaskCall]) -> Sequence[bool]:
        return self._data.expect(calls)

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
        try:
            self._router.close()
        finally:
            self._data.close()

    def abort(self) -> None:
        self._router.abort()
        self._data.close()

    def _add_earlier(self, line: dict[str, Any]) -> None:
        """Note the file of an earlier run. If a new task wants the name of this file, the file must leave its name."""
        key, other = line.get("key"), line.get("other")
        if isinstance(key, str) and isinstance(other, str) and other != line["path"]:
            place = Place(self._folder / line["path"], self._folder / other, self._data.moved)
            place.finished()
            self._alike.setdefault(key, []).append(place)

    def _open_file(self, task: TaskInfo) -> TaskFile:
        names = self._data.names
        path = self._folder / names.name(task)
        if path in self._open:
            # An earlier attempt at the same task, whose worker has died. This attempt replaces its file.
            self._open[path].close()
        _make(path.parent)
        place = Place(path, self._folder / names.contested_name(task), self._data.moved)
        self._places.append(place)
        key = names.episode(task).key
        if names.is_contested(key):
            for each in self._alike.pop(key, []):
                each.leave()
        else:
            self._alike.setdefault(key, []).append(place)
        recording_id = self._id_of(task, path)
        store = store_id.store_id(self._application_id, recording_id)
        episode = EpisodeFile(task, place, recording_id, self._data, functools.partial(self._open.pop, path, None))
        file = self._open[path] = TaskFile(FileWriter(path), self._store, store, episode)
        try:
            file.begin(self._header, self._info, self._layouts)
        except BaseException:
            file.abort()
            raise
        return file

    def _id_of(self, task: TaskInfo, path: Path) -> str:
        """Return the id of the recording of `task` in the file `path`.

        If the call of `task` has a digest, the id is that of `EpisodeNames.recording_id`, the same in each run. Else it
        is made of the id of the shared recording and the name of the file.
        """
        if task.call is not None and task.call.digest:
            return self._data.names.recording_id(task)
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

    def expect(self, calls: Sequence[TaskCall]) -> Sequence[bool]:
        return self._folder.expect(calls)


def _task_of(segment: Segment) -> TaskInfo | None:
    return None if segment.outbox == PREAMBLE else segment.task


@dataclass(frozen=True, kw_only=True)
class DirectorySink(Sink):
    """A folder with one recording per task, for example one recording per episode of a data set.

    The recording of a task has the rows that the task has logged, its own id and its own name. The task may set the
    name and the start time by the SDK's calls. The properties of the recording have the arguments of the task. They
    also say which function ran, in which worker, for how many seconds, and how it ended. The file is finished before
    the caller gets the result of the task. If the worker has died, the file is finished at the latest when the
    recording is closed. A task that logs nothing has no file. If a task is retried, each attempt that logs has a file
    of its own, unless `resume` is True.

    `shared.rrd` has the rows that belong to no task of a worker of mpr: rows of the parent, of an initializer, or of
    tasks that an `engine` runs. Recordings that tasks make themselves are in `shared-<recording id>.rrd`. Telemetry of
    pools is in no file. If `name` or `resume` is given, `manifest.jsonl` lists the recordings for `mpr ls` and
    `mpr.read_runs`.

    Parameters
    ----------
    path:
        The folder, which is made if it is missing. Files with the same names are replaced, and all other files stay. If
        another recording writes into the folder, opening the recording raises `SinkError`.
    name:
        The name of a task's file with fields as in `str.format`, such as `"{name}/lr={lr:.3g}-seed={seed:04d}.rrd"`.
        A field is a parameter of the function, a part of an argument (`{cfg.lr}` for a dataclass or a dict), or one of
        these: `name` is the name of the function. `task` is the number of the task in the pool, from 0. `index` is the
        index of the task in its `map`, from 0; for an `apply` or `submit`, it is the same as `task`. `attempt` is 1, or
        more after retries. `worker` is the number of the worker. `digest` is a hash of the function's name and the
        arguments. `docs/sinks.md` says what happens to characters that names cannot have, and to two tasks with one
        name.
    resume:
        If True, a task does not run if an earlier run of the same task has returned, and its recording in the folder is
        complete. The result of this task is `mpr.SKIPPED`. Tasks are the same if their digests are equal, so an
        argument that has no digest, such as a lock, is refused. All attempts of a task have one file, and the default
        `name` is `"{name}-{digest:.8}.rrd"`.
    version:
        A part of the digest of each task. Change it if the function has changed, so that all tasks run again.

    Raises
    ------
    ConfigError
        If `path` is empty, a file, a URL, or of a wrong type, if `name` cannot be the name of an `.rrd` file, if
        `version` is no str, or if `name` has `{attempt}` and `resume` is True. A call of the pool raises this if the
        function has no parameter for a field of `name`. If `resume` is True or `name` has `{digest}`, a call also
        raises this if an argument has no digest.
    """

    path: str | os.PathLike[str] = field(kw_only=False)
    name: str = _DEFAULT_NAME
    resume: bool = False
    version: str = ""

    keeps_tasks_apart = True

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | os.PathLike) or not os.fspath(self.path):
            raise ConfigError(f"DirectorySink needs the path of a folder such as 'episodes', got {self.path!r}")
        if "://" in os.fspath(self.path):
            raise ConfigError(f"{self.path!r} is a URL, and DirectorySink needs the path of a folder")
        if Path(self.path).exists() and not Path(self.path).is_dir():
            raise ConfigError(f"DirectorySink needs the path of a folder, and {str(self.path)!r} is a file")
        if not isinstance(self.version, str):
            raise ConfigError(f"the version of a DirectorySink is a str such as '2', got {self.version!r}")
        if "attempt" in self._template().fields and self.resume:
            raise ConfigError("with resume=True, all attempts of a task have one file: take {attempt} out of the name")

    @property
    def needs_digests(self) -> bool:
        """True if the sink has a `name` or `resume=True`."""
        return self.resume or self.name != _DEFAULT_NAME

    def _template(self) -> NameTemplate:
        # The numbers of the tasks change if some are skipped.
        is_default = self.resume and self.name == _DEFAULT_NAME
        return NameTemplate(_RESUMED_NAME if is_default else self.name)

    def _places(self) -> tuple[str, ...]:
        return (str(Path(self.path).resolve()),)

    def open(self, context: OpenContext) -> PerRecordingWriter:
        """Return a new writer for this sink. Only mpr itself calls this.

        Raises `SinkError` if the folder, `manifest.jsonl` or `shared.rrd` cannot be made or opened, if another
        recording writes there, or if mpr does not know the file format of the SDK.
        """
        context.check_format("a DirectorySink needs")
        options = DataSetOptions(
            folder=Path(self.path).absolute(),
            template=self._template(),
            application_id=context.application_id,
            has_manifest=self.needs_digests,
            resume=self.resume,
            version=self.version,
        )
        folder = DirectoryWriter(options, context.recording_id)
        return _FolderWriter(folder, context.store)
