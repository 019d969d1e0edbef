"""Keeps what a `DirectorySink` knows of its data set: names, types, the manifest, and which tasks are complete.

Covers: `resume=True`, and the lines of the manifest.
Does not cover: the files of the recordings (`sinks/directory.py`).
"""

from __future__ import annotations

import datetime
import itertools
import json
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpr.datasets import manifest
from mpr.datasets.naming import EpisodeNames, check_digest
from mpr.datasets.properties import PropertyTypes
from mpr.datasets.template import NameTemplate
from mpr.errors import SinkError
from mpr.rrd import framing
from mpr.rrd.segment import TaskCall, TaskInfo
from mpr.user_code import log as _log


@dataclass(frozen=True, kw_only=True)
class DataSetOptions:
    """The settings of a data set.

    Attributes
    ----------
    folder:
        The folder of the data set, as an absolute path.
    template:
        The template of the names.
    application_id:
        The application id of the recordings.
    has_manifest:
        True if the recordings are listed in the manifest of the folder (see `manifest.py`).
    resume:
        True if a task with a complete recording is skipped. All attempts of a task then have one file.
    version:
        A part of each digest; "" for none.
    """

    folder: Path
    template: NameTemplate
    application_id: str
    has_manifest: bool = False
    resume: bool = False
    version: str = ""


class DataSet:
    """Names the recordings of a data set, and writes its manifest.

    Any thread and any signal handler may call `expect`. Only the thread that writes the files calls the other methods.
    `taken` is a name that no task gets. Raises `SinkError` if the manifest cannot be opened.

    Attributes
    ----------
    names, types:
        The names of the tasks, and the types of their properties.
    earlier:
        The lines of the manifest that earlier runs have written for their recordings; empty without `resume`.
    """

    def __init__(self, options: DataSetOptions, taken: str) -> None:
        self._options = options
        found = manifest.read(options.folder) if options.has_manifest else manifest.EpisodeIndex()
        self.types: PropertyTypes = PropertyTypes(found.fields)
        self.earlier: list[dict[str, Any]] = list(found.episodes.values()) if options.resume else []
        self.names: EpisodeNames = EpisodeNames(
            options.template,
            options.application_id,
            taken,
            version=options.version,
            one_file=options.resume,
            earlier=self.earlier,
        )
        self._complete = {
            (line.get("digest"), line.get("repetition")): line
            for line in self.earlier
            if line.get("outcome") == "returned"
        }
        self._file = manifest.ManifestFile(options.folder) if options.has_manifest else None
        self._written_fields = len(found.fields)
        # Counted by `next`, which is atomic.
        self._skipped: Iterator[int] = itertools.count()
        self._host = socket.gethostname()

    def expect(self, calls: Sequence[TaskCall]) -> list[bool]:
        """Note that a call will submit the tasks `calls`. Returns one bool for each task: True if it is skipped.

        Without `resume`, no task is skipped. With `resume`, a task is skipped if it has returned in an earlier run, and
        its recording is still complete. Raises `ConfigError` if a task cannot have a name, or if it has no digest and
        `resume` is True.
        """
        if self._options.resume:
            for call in calls:
                check_digest(call, "resume=True finds finished tasks by their digests")
        self.names.expect(calls)
        self.types.learn(calls)
        done = [self._options.resume and self._is_complete(call) for call in calls]
        for _ in filter(None, done):
            next(self._skipped)
        return done

    def _is_complete(self, call: TaskCall) -> bool:
        episode = self.names.episode_of(call)
        line = self._complete.get((episode.digest, episode.repetition))
        if line is None:
            return False
        path = self._options.folder / line["path"]
        try:
            found = path.stat()
        except OSError:
            return False
        is_same = (found.st_size, found.st_mtime_ns) == (line.get("size"), line.get("mtime_ns"))
        if is_same or framing.is_finished(path):
            return True
        _log.warning("%s was complete, and is not any more: its task runs again", path)
        return False

    def texts(self, task: TaskInfo) -> dict[str, tuple[str, Any]]:
        """Return additional properties of `task`, as pairs (type, value), for the command `mpr index`.

        From these properties, `mpr index` makes the manifest again. Returns an empty dict if no manifest is written.
        """
        if self._file is None or task.call is None:
            return {}
        episode = self.names.episode(task)
        arguments = {
            field: [self.types.name(field), manifest.as_json(value)] for field, value in task.call.arguments.items()
        }
        return {
            "digest": ("str", episode.digest if task.call.digest else None),
            "repetition": ("int64", episode.repetition),
            "arguments": ("str", json.dumps(arguments)),
        }

    def complete(self, task: TaskInfo, path: Path, recording_id: str, outcome: str, other: Path, sdk: str) -> None:
        """Append a line for `task` to the manifest, because the file `path` of `task` is complete.

        `other` is the path that the file gets if another task wants its name. `sdk` is the version of the SDK. Does
        nothing if the folder has no manifest. Raises `SinkError` if the manifest cannot be written.
        """
        if self._file is None:
            return
        try:
            found = os.stat(path)
        except OSError as error:
            raise SinkError(error.errno, f"{path} is complete, but cannot be found: {error.strerror}") from error
        episode = self.names.episode(task)
        started = datetime.datetime.fromtimestamp(task.started_nanos / 1e9, datetime.UTC)
        self._append(
            {
                "path": self._relative(path),
                "name": path.stem,
                "digest": episode.digest if episode.call.digest else None,
                "repetition": episode.repetition,
                "recording_id": recording_id,
                "function": task.name,
                "index": task.index,
                "attempt": task.attempt,
                "args": {field: manifest.as_json(value) for field, value in episode.call.arguments.items()},
                "outcome": outcome,
                "error": task.error,
                "started": started.isoformat(),
                "seconds": task.seconds if task.is_over else None,
                "host": self._host,
                "worker": task.worker,
                "size": found.st_size,
                "mtime_ns": found.st_mtime_ns,
                "sdk": sdk,
                "key": episode.key,
                "other": self._relative(other),
            }
        )

    def moved(self, old: Path, new: Path) -> None:
        """Append a line to the manifest: the file `old` is now the file `new`. Does nothing without a manifest.

        Raises `SinkError` if the manifest cannot be written.
        """
        if self._file is not None:
            self._append({"path": self._relative(old), "moved_to": self._relative(new)})

    def _append(self, line: dict[str, Any]) -> None:
        assert self._file is not None
        fields = list(self.types.fields())
        new = fields[self._written_fields :]
        self._written_fields = len(fields)
        self._file.append([*(manifest.field_line(*field) for field in new), line])

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._options.folder).as_posix()

    def close(self) -> None:
        """Close the manifest, and log how many tasks were skipped."""
        if self._file is not None:
            self._file.close()
        skipped = next(self._skipped)
        if skipped:
            self._skipped = itertools.count()
            _log.warning(
                "%d tasks were skipped, because %s has their complete recordings (resume=True)",
                skipped,
                self._options.folder,
            )
