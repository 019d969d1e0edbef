"""Sends the parent the rows of recordings that tasks make themselves and give no sink.

Covers: `rr.RecordingStream(...)` and `rr.thread_local_stream` of user code, from their beginning to their end.
Does not cover: recordings that a task gives a sink, and the files of these rows (`sinks/per_recording.py`).

The SDK keeps the rows of such a recording in memory. mpr sends the rows at the end of the task, and each time that the
process has logged another `UNFLUSHED_MAX_BYTES`.

Several recordings may have the same id, and a recording may have several handles. So mpr tells recordings apart by
their handles. A recording is over if no other code has a handle of it, and no thread logs to it as its current
recording.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mpr.errors import DeliveryError, FormatError
from mpr.rrd import relabel
from mpr.sdk import recordings
from mpr.sdk.recordings import Ids
from mpr.threads import aside

# The number of ended recordings after which the SDK cleans up all of them. Until then, each of them keeps two threads.
_CLEAN_UP_AFTER = 32
# The value of `sys.getrefcount` for a handle that only a list and a loop over the list refer to.
_LIST_REFERENCES = 3
# The longest time for a flush of a recording, and for a flush of the sink that a task has given it (seconds).
_FLUSH_SECS = 60.0
_OTHER_FLUSH_SECS = 2.0


@dataclass(slots=True, eq=False)
class _TaskRecording:
    number: int
    ids: Ids
    #: The SDK's handles of the recording.
    handles: list[Any]
    #: Whether the SDK keeps the rows. It drops rows of a recording that is not enabled.
    is_enabled: bool
    #: The SDK's object from which mpr reads the encoded rows of the recording; None until mpr has asked for the object.
    storage: Any = None
    #: The number of rows that were about to be logged, and how many of these were sent.
    entered: int = 0
    sent: int = 0
    #: The number of rows that the SDK has taken, and that were not sent yet.
    counted: int = 0
    #: The ids of the recording that gets the rows instead; None if the rows stay in a recording of their own.
    shared: Ids | None = None

    @property
    def rows(self) -> int:
        """The number of rows that were about to be logged, and were not sent yet."""
        return self.entered - self.sent

    def is_held(self) -> bool:
        """Return True if other code has a handle of the recording."""
        return any(sys.getrefcount(each) > _LIST_REFERENCES for each in self.handles)


class TaskRecordings:
    """Keeps the recordings that tasks of this process have made. Any thread may call the methods.

    Parameters
    ----------
    send:
        `send(data, number, counted)` sends rows of the recording with this `number`. `data` is a complete Rerun stream
        with its header and footer, or empty. `counted` is the number of rows that were counted since the last call for
        this recording.
    held:
        A function that gets the number of unsent rows, each time that this number changes. These rows are lost if this
        process dies.
    """

    def __init__(self, send: Callable[[bytes, int, int], None], held: Callable[[int], None]) -> None:
        self._send = send
        self._held = held
        #: The recordings, by the ids of the Python objects that are their handles.
        self.known: dict[int, _TaskRecording] = {}
        # What recordings had as `storage` before they were given another sink. It gets rows from before that moment.
        # If it was dropped while the SDK writes rows of the recording elsewhere, the SDK would wait for ever.
        self._left: list[tuple[_TaskRecording, Any]] = []
        # Reentrant, because `collect` calls the SDK, whose calls invoke `sink_call`. A thread that runs code of a user
        # does not hold it, because a handler of a signal could then wait for a thread that needs it.
        self._lock = threading.RLock()
        self._taking = False
        #: Whether mpr takes no rows from a recording before its end, as long as other code still holds the recording.
        #: Under `mpr run`, a script may give such a recording a sink at any time. The sink must then get all rows. Rows
        #: that are shared (see `share`) do not wait.
        self.until_end = False
        self._made = self._ended = 0
        # The number of bytes that were sent, and the number of these bytes that the sinks have accepted.
        self._sent_bytes = self._accepted_bytes = 0
        _all.add(self)

    @property
    def unaccepted_bytes(self) -> int:
        """The number of bytes that were sent, but that the sinks have not accepted."""
        return self._sent_bytes - self._accepted_bytes

    def accept(self, end: int) -> None:
        """Note that the sinks have accepted the first `end` of all bytes that were sent."""
        self._accepted_bytes = end

    def forget_unaccepted(self) -> None:
        """Treat all bytes that were sent as accepted, because the recording is closed and accepts no more bytes."""
        self._accepted_bytes = self._sent_bytes

    def made(self, inner: Any) -> None:
        """Note that a task has made a recording. `inner` is the SDK's handle of the recording."""
        ids = recordings.ids_of(inner)
        if ids is not None:
            recordings.watch_handles(_note_handle)
            aside(lambda: self._keep(inner, ids))

    def _keep(self, inner: Any, ids: Ids) -> None:
        with self._lock:
            self._made += 1
            self.known[id(inner)] = _TaskRecording(self._made, ids, [inner], recordings.is_enabled(inner))

    def note_handle(self, inner: Any) -> None:
        """Note that other code has got another handle, `inner`, of a recording.

        Does nothing if no task has made the recording, or if mpr has this handle already.
        """
        if id(inner) not in self.known and self._find(inner) is not None:
            aside(lambda: self._keep_handle(inner))

    def _keep_handle(self, inner: Any) -> None:
        with self._lock:
            found = self._find(inner)
            if found is not None:
                # Handles that nobody has any more are dropped, but the first one is kept.
                for each in [each for each in found.handles[1:] if sys.getrefcount(each) <= _LIST_REFERENCES + 1]:
                    found.handles.remove(each)
                    del self.known[id(each)]
                found.handles.append(inner)
                self.known[id(inner)] = found

    def _find(self, inner: Any) -> _TaskRecording | None:
        """Return the recording with the handle `inner` (None: the current one), or else the last one with the same ids.

        Returns None if no task has made such a recording.
        """
        found = self.known.get(id(inner))
        if found is None:
            ids = recordings.ids_of(inner)
            same = (each for each in reversed(list(self.known.values())) if each.ids == ids)
            found = next(same, None)
        return found

    def entered(self, inner: Any, rows: int) -> None:
        """Count `rows` rows (0: an unknown number) that are about to be logged to a recording that a task has made.

        `inner` is the SDK's handle of the recording; None for the current one. If no task has made this recording, the
        method does nothing.
        """
        found = self._find(inner)
        if found is not None:
            # A call with an unknown number of rows logs at least one row.
            found.entered += rows or 1
            self._count()

    def logged(self, inner: Any, rows: int) -> None:
        """Count `rows` rows that the SDK has taken, if a task has made the recording with the handle `inner`."""
        found = self.known.get(id(inner))
        if found is not None and found.is_enabled:
            found.counted += rows

    def sink_call(self, call: str, inner: Any) -> None:
        """Prepare the recording with the handle `inner` for the SDK's `call`, such as "save", which changes its sink.

        For "disconnect", mpr first sends the rows to the parent, because the SDK would drop them. For "shutdown", mpr
        does so for all recordings. For any other call, mpr forgets the recording, because the new sink gets its rows.
        If mpr has sent rows of this recording before, it first sends the rows that are left.
        """
        if self.known:
            aside(lambda: self._prepare(call, inner))

    def _prepare(self, call: str, inner: Any) -> None:
        with self._lock:
            if self._taking:
                return
            found = self._find(inner) if call != "shutdown" else None
            keeps = call in ("disconnect", "shutdown")
            for each in set(self.known.values()) if call == "shutdown" else [found] if found is not None else []:
                if keeps or each.storage is not None:
                    self._take(each)
                    self._left.append((each, each.storage))
                    # `collect` takes rows that are logged later from another one.
                    each.storage = None
                if not keeps:
                    self._forget(each)
                    self._count()

    def share(self, inner: Any, shared: Ids) -> None:
        """Send the rows of the recording with the handle `inner` as rows of the recording with the ids `shared`.

        This includes earlier rows that were not sent yet. `inner` is None for the current recording. Does nothing if no
        task has made the recording.
        """
        found = self._find(inner)
        if found is not None:
            found.shared = shared

    def collect(self, *, at_end: bool = False) -> None:
        """Send the rows since the last call, and forget recordings that are over.

        If `until_end` is True, rows of a recording that other code still holds are sent only if `at_end` is True, or if
        the rows are shared (see `share`).
        """
        if self.known or self._left:
            aside(lambda: self._collect(at_end=at_end))

    def _collect(self, *, at_end: bool) -> None:
        with self._lock:
            # The current recording of other threads. A thread's own one is held by the thread (`router`).
            current = recordings.global_ids()
            left, self._left = self._left, []
            for found, storage in left:
                is_over = not found.is_held() and found.ids != current
                self._send_rows(found, storage.read(flush=False) or b"")
                # After a flush of the other sink, no row is on its way any more, and the storage can be dropped.
                if is_over and _flushed(storage):
                    self._ended += 1
                else:
                    (_undroppable if is_over else self._left).append((found, storage))
            used = {each.ids for each in self.known.values() if each.rows}
            for found in dict.fromkeys(self.known.values()):
                is_over = not found.is_held() and found.ids != current
                if self.until_end and not (is_over or at_end or found.shared):
                    continue
                # A script may make a recording and never use it. Then there is no file for it.
                if found.ids in used or not self.until_end:
                    self._take(found, is_last=is_over)
                if is_over:
                    self._forget(found)
                    self._ended += 1

    def _forget(self, found: _TaskRecording) -> None:
        for each in found.handles:
            self.known.pop(id(each), None)

    def clean_up(self, *, is_last: bool = False) -> None:
        """Have the SDK end the threads of ended recordings, and finish the files that tasks have given them.

        Does nothing before `_CLEAN_UP_AFTER` recordings have ended since the last time, unless `is_last` is true. Call
        this only between two tasks, because the SDK then forgets which recording is current.
        """
        if self._ended >= (1 if is_last else _CLEAN_UP_AFTER):
            self._ended = 0
            recordings.clean_up_recordings()

    def _take(self, found: _TaskRecording, *, is_last: bool = False) -> None:
        self._taking = True
        try:
            if found.storage is None:
                found.storage = recordings.encoded_rows_of(found.handles[0])
        finally:
            self._taking = False
        # Read before the rows. Rows that are counted meanwhile come with these rows or with the next ones.
        entered, counted = found.entered, found.counted
        try:
            data = found.storage.read(flush=True, flush_timeout_sec=_FLUSH_SECS)
        except (RuntimeError, TimeoutError) as error:
            text = f"rows of a recording that a task has made ({found.ids[1]}) cannot be read"
            raise DeliveryError(f"{text}: {error}") from error
        self._send_rows(found, data or b"", counted, is_last=is_last)
        found.sent = entered
        self._count()

    def _send_rows(self, found: _TaskRecording, data: bytes, counted: int = 0, *, is_last: bool = False) -> None:
        if found.shared is not None and data:
            # If a release of the SDK has another format, the rows stay in a recording of their own.
            with contextlib.suppress(FormatError):
                data = relabel.joined(data, found.ids, found.shared)
        if data or (is_last and counted):
            self._sent_bytes += len(data)
            self._send(data, found.number, counted)
            found.counted -= counted

    def _count(self) -> None:
        self._held(sum(found.rows for found in dict.fromkeys(self.known.values())))


# What cannot be dropped, because the other sink of its recording takes no rows.
_undroppable: list[tuple[_TaskRecording, Any]] = []


def _flushed(storage: Any) -> bool:
    try:
        storage.flush(timeout_sec=_OTHER_FLUSH_SECS)
    except (RuntimeError, TimeoutError):
        return False
    return True


# The objects of this process, for `_note_handle`.
_all: weakref.WeakSet[TaskRecordings] = weakref.WeakSet()


def _note_handle(inner: Any) -> None:
    for each in list(_all):
        if each.known:
            each.note_handle(inner)
