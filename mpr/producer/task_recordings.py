"""Sends the parent the rows of recordings that tasks make themselves and give no sink.

Covers: `rr.RecordingStream(...)` and `rr.thread_local_stream` in a worker, from their beginning to their end.
Does not cover: recordings that a task gives a sink, and the files of these rows (`sinks/per_recording.py`).

While the task runs, the task may give such a recording a sink. mpr sends the rows at the end of the task. mpr also
sends them each time that the process has logged another `UNFLUSHED_MAX_BYTES`. Until then, the SDK keeps the rows in
memory, because the recording has no sink. The rows keep the id of the recording that the task has made.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mpr.sdk import recordings
from mpr.sdk.recordings import Ids

# The number of ended recordings after which the SDK cleans up all of them. Until then, each of them keeps two threads.
_CLEAN_UP_AFTER = 32


@dataclass(slots=True, eq=False)
class _TaskRecording:
    #: The SDK's handle of the recording, and the recording's ids.
    inner: Any
    ids: Ids
    #: The SDK's object from which mpr reads the encoded rows of the recording; None until mpr has asked for the object.
    storage: Any = None
    #: The number of rows that were not sent yet.
    rows: int = 0


class TaskRecordings:
    """Keeps the recordings that tasks of this process have made.

    Any thread may call the methods. They wait only for the SDK.

    Parameters
    ----------
    send:
        A function that sends a complete Rerun stream, header to footer, with rows of one recording.
    held:
        A function that is called each time that the number of unsent rows changes, with this number. These rows are
        lost if this process dies.
    """

    def __init__(self, send: Callable[[bytes], None], held: Callable[[int], None]) -> None:
        self._send = send
        self._held = held
        #: The recordings, by their ids. A program may make several recordings with the same ids.
        self.known: dict[Ids, list[_TaskRecording]] = {}
        # Reentrant, because `collect` calls the SDK, whose calls invoke `sink_call`.
        self._lock = threading.RLock()
        self._taking = False
        #: Whether mpr takes no rows from a recording before its end, as long as other code still holds the recording.
        #: Under `mpr run`, a script may give such a recording a sink at any time. The sink must then get all rows.
        self.until_end = False
        self._ended = 0
        # The number of bytes that were sent, and the number of these bytes that the sinks have accepted.
        self._sent_bytes = self._accepted_bytes = 0

    @property
    def unaccepted_bytes(self) -> int:
        """The number of bytes that were sent, but that the sinks have not accepted."""
        return self._sent_bytes - self._accepted_bytes

    def accept(self, end: int) -> None:
        """Remember that the sinks have accepted the first `end` of all bytes that were sent."""
        self._accepted_bytes = end

    def forget_unaccepted(self) -> None:
        """Treat all bytes that were sent as accepted, because the recording is closed and accepts no more bytes."""
        self._accepted_bytes = self._sent_bytes

    def made(self, inner: Any) -> None:
        """Remember that a task has made a recording. `inner` is the SDK's handle of the recording."""
        ids = recordings.ids_of(inner)
        if ids is not None:
            with self._lock:
                self.known.setdefault(ids, []).append(_TaskRecording(inner, ids))

    def _named(self, inner: Any, ids: Ids | None) -> list[_TaskRecording]:
        """Return the recording with the handle `inner`. If there is none, return all recordings with these `ids`.

        The SDK may give several handles of the same recording.
        """
        same = self.known.get(ids, []) if ids is not None else []
        return [found for found in same if found.inner is inner] or same

    def _forget(self, found: _TaskRecording) -> None:
        same = self.known[found.ids]
        same.remove(found)
        if not same:
            del self.known[found.ids]

    def entered(self, inner: Any, rows: int) -> None:
        """Count `rows` rows (0: an unknown number) that are about to be logged to a recording that a task has made.

        `inner` is the SDK's handle of the recording; None for the current one. If no task has made this recording, the
        method does nothing.
        """
        ids = recordings.ids_of(inner)
        with self._lock:
            named = self._named(inner, ids)
            for found in named:
                # A call with an unknown number of rows logs at least one row.
                found.rows += rows or 1
            if named:
                self._count()

    def sink_call(self, call: str, inner: Any, ids: Ids | None) -> None:
        """Prepare the recording with these `ids` for the SDK's `call`, such as "save", which changes its sink.

        `inner` is the SDK's handle of the recording; None for the current one.

        Before "disconnect", this sends the rows to the parent, because the SDK would drop them. Before "shutdown", this
        sends the rows of all recordings. Before any other call, mpr forgets the recording, because the new sink gets
        its rows. Does nothing if no task has made the recording.
        """
        with self._lock:
            if self._taking:
                return
            if call == "shutdown":
                self.collect(at_end=True)
                return
            # If it is not known which one of several recordings is meant, then it is most likely the last one.
            for found in self._named(inner, ids)[-1:]:
                if call == "disconnect":
                    # Take the rows now, because the SDK would drop them. `collect` takes rows that are logged later.
                    self._take(found)
                    found.storage = None
                else:
                    self._forget(found)
                    self._count()

    def collect(self, *, at_end: bool = False) -> None:
        """Send the rows that were logged since the last call.

        Forget each recording that no other code refers to any more. If `until_end` is true, the rows of a recording
        that other code still refers to are sent only if `at_end` is true.
        """
        if not self.known:
            return
        with self._lock:
            for found in self._all():
                # Two references are left then: `found.inner`, and the argument of `getrefcount`.
                is_over = sys.getrefcount(found.inner) <= 2
                if self.until_end and not (is_over or at_end):
                    continue
                # A script may make a recording and never use it. Then there is no file for it.
                if found.rows or not self.until_end:
                    self._take(found)
                if is_over:
                    self._forget(found)
                    self._ended += 1

    def clean_up(self) -> None:
        """Make the SDK end the threads of ended recordings, if at least `_CLEAN_UP_AFTER` recordings have ended.

        Call this only between two tasks, because the SDK then forgets which recording is current.
        """
        if self._ended >= _CLEAN_UP_AFTER:
            self._ended = 0
            recordings.clean_up_recordings()

    def _take(self, found: _TaskRecording) -> None:
        self._taking = True
        try:
            if found.storage is None:
                found.storage = recordings.encoded_rows_of(found.inner)
            data = found.storage.read(flush=True) if found.storage is not None else None
        finally:
            self._taking = False
        if data:
            self._sent_bytes += len(data)
            self._send(data)
        found.rows = 0
        self._count()

    def _count(self) -> None:
        self._held(sum(found.rows for found in self._all()))

    def _all(self) -> list[_TaskRecording]:
        return [found for same in self.known.values() for found in same]
