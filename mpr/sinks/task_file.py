"""Writes the file of one task in the folder of a `DirectorySink`.

Covers: the beginning and the end of the file, the new recording id of the rows, and renaming the file.
Does not cover: which file a row goes to (`directory.py`), the values of the properties (`task_properties.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpr import errors
from mpr.datasets.data_set import DataSet
from mpr.errors import SinkError
from mpr.rrd import framing, manifest, relabel, store_id
from mpr.rrd.relabel import Relabeller
from mpr.rrd.segment import PREAMBLE, MessageBytes, Segment, TaskInfo
from mpr.rrd.writer import FileWriter
from mpr.sinks import task_properties

# The outbox number of a store info that this module makes for a file. No outbox has this number.
_STORE_INFO = -1


class Place:
    """The path of the file of a task. If the path changes (see `leave`), `moved(old, new)` is called.

    Attributes
    ----------
    path:
        The path now.
    other:
        The path that the file gets if it must leave `path`.
    is_written:
        True if this run has written the file, and the file has its final name.
    """

    def __init__(self, path: Path, other: Path, moved: Callable[[Path, Path], None]) -> None:
        self.path: Path = path
        self.other: Path = other
        self.is_written: bool = False
        self._moved = moved
        self._is_finished = False
        self._leaves = False

    def written(self) -> None:
        """Note that the file has got its final name."""
        self.is_written = True

    def finished(self) -> None:
        """Note that the file is complete. If `leave` was called before, rename the file now.

        Raises `SinkError` if the file cannot be renamed.
        """
        self._is_finished = True
        if self._leaves:
            self._move()

    def leave(self) -> None:
        """Rename the file to `other`, because another task wants the name. A second call does nothing.

        If the file is not complete yet, `finished` renames it later. Raises `SinkError` if the file cannot be renamed.
        """
        if not self._leaves:
            self._leaves = True
            if self._is_finished:
                self._move()

    def _move(self) -> None:
        if self.path == self.other:
            return
        try:
            os.rename(self.path, self.other)
        except FileNotFoundError:
            # The file of an earlier run, which the user has removed.
            return
        except OSError as error:
            raise SinkError(error.errno, f"cannot rename {self.path} to {self.other.name}: {error.strerror}") from error
        old, self.path = self.path, self.other
        self._moved(old, self.other)


@dataclass(frozen=True)
class EpisodeFile:
    """One attempt at a task (an episode of the data set), and the file of this attempt.

    Attributes
    ----------
    task:
        The task.
    place:
        The place of the file in the folder.
    recording_id:
        The id of the task's recording.
    data:
        The data set.
    on_close:
        Called when the file is closed.
    """

    task: TaskInfo
    place: Place
    recording_id: str
    data: DataSet
    on_close: Callable[[], object]

    def properties(self, said: Callable[[str], set[str]]) -> bytes:
        """Return the encoded properties of the recording. `said` is as in `task_properties.encoded`."""
        name = self.place.path.stem
        return task_properties.encoded(name, self.task, self.data.types, said, self.data.texts(self.task))

    def finished(self) -> None:
        """Append a line to the manifest, because the file is complete. Then rename the file if it must leave its name.

        Raises `SinkError` if the manifest cannot be written, or if the file cannot be renamed.
        """
        import rerun as rr

        outcome = task_properties.outcome(self.task)
        place = self.place
        self.data.complete(self.task, place.path, self.recording_id, outcome, place.other, rr.__version__)
        place.finished()


class TaskFile:
    """Writes a file of a `DirectorySink`: the file of one task, with its own recording id, or `shared.rrd`.

    `shared.rrd` has the rows that belong to no task.

    Parameters
    ----------
    writer:
        The writer of the file.
    old, new:
        The encoded store ids of the shared recording and of the recording in this file. They are the same for
        `shared.rrd`.
    episode:
        The task and its file; None for `shared.rrd`.
    """

    def __init__(self, writer: FileWriter, old: bytes, new: bytes, episode: EpisodeFile | None = None) -> None:
        self._writer = writer
        self._old = old
        self._new = new
        self._episode = episode
        self._is_closed = False
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
        if published and self._episode is not None:
            self._episode.place.written()

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
        return self._episode is not None and self._episode.task.is_over

    def close(self) -> None:
        """Finish the file; if it has no rows, remove it. A second call does nothing. Raises `SinkError` on failure."""
        if self._is_closed:
            return
        self._is_closed = True
        episode = self._episode
        if episode is not None:
            episode.on_close()
        if not self._writer.published:
            # There is no row, because the task has logged nothing, or has logged to a recording that it made itself.
            self._writer.abort()
            return
        if episode is not None:
            try:
                self._write_properties(episode)
            except BaseException:
                self._writer.abort()
                raise
        self._writer.close()
        if episode is not None:
            episode.finished()

    def _write_properties(self, episode: EpisodeFile) -> None:
        stream = relabel.relabelled(episode.properties(self._said_at), self._new)
        frames = framing.frames_of(stream)
        end = frames.pop()
        self._writer.accept(Segment(PREAMBLE, MessageBytes(0, stream), frames), published=True)
        self._writer.add_manifests(PREAMBLE, stream[end.payload : end.end])

    def abort(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._writer.abort()

    def _said_at(self, entity: str) -> set[str]:
        return self._said.setdefault(entity, set())
