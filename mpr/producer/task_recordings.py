"""Recordings that tasks make themselves and give no sink: their rows travel to the parent, under their own ids.

Covers: `rr.RecordingStream(...)` and `rr.thread_local_stream` in a worker, from their making to their end.
Does not cover: recordings that a task gives a sink (they are the task's), and what the parent makes of the rows.

Such a recording is left alone while its task runs, so that the task may give it a sink as it would without mpr. At the
end of the task, and each time that as much was logged as the SDK may hold, mpr takes what it has. The SDK keeps the
rows of a recording without a sink, so none is lost before that.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mpr.sdk import recordings

# A recording costs two threads until the SDK is told to clean up, which it does for all of them at once.
_CLEAN_UP_AFTER = 32


@dataclass(slots=True)
class _TaskRecording:
    #: The SDK's handle.
    inner: Any
    #: Where the SDK puts its encoded rows, once mpr has asked for them.
    storage: Any = None
    #: Rows that it has, and that were not sent yet.
    rows: int = 0


class TaskRecordings:
    """Those of this process. Any thread may call; a call waits for the SDK only.

    Parameters
    ----------
    send:
        Called with a whole stream, header to footer, of one recording.
    held:
        Called with how many rows of all of them were not sent yet: those that die with this process.
    """

    def __init__(self, send: Callable[[bytes], None], held: Callable[[int], None]) -> None:
        self._send = send
        self._held = held
        #: By their ids.
        self.known: dict[str, _TaskRecording] = {}
        # Reentrant: what collects calls the SDK, whose calls come by here.
        self._lock = threading.RLock()
        self._taking = False
        self._ended = 0
        # Bytes of their rows: sent, and accepted by the sinks.
        self._sent_bytes = self._accepted_bytes = 0

    @property
    def unaccepted_bytes(self) -> int:
        """Bytes that were sent and that the sinks have not accepted."""
        return self._sent_bytes - self._accepted_bytes

    def accept(self, end: int) -> None:
        """Note that the sinks have accepted the first `end` bytes."""
        self._accepted_bytes = end

    def forget_unaccepted(self) -> None:
        """Wait for no bytes any more: the recording is gone."""
        self._accepted_bytes = self._sent_bytes

    def made(self, inner: Any) -> None:
        """The SDK has made a recording that is not the worker's own."""
        recording_id = recordings.recording_id_of(inner)
        if recording_id is not None:
            with self._lock:
                self.known[recording_id] = _TaskRecording(inner)

    def entered(self, inner: Any, rows: int) -> None:
        """So many rows are about to be logged to the recording with this handle (None: the current one)."""
        recording_id = recordings.recording_id_of(inner)
        with self._lock:
            found = self.known.get(recording_id or "")
            if found is not None:
                # Of some calls nobody knows how many it is; one at least.
                found.rows += rows or 1
                self._count()

    def sink_call(self, call: str, recording_id: str | None) -> None:
        """A task is about to call `rr.save` or the like for the recording of that id (`shutdown`: for all)."""
        with self._lock:
            if self._taking:
                return
            if call == "shutdown":
                self.collect()
                return
            found = self.known.get(recording_id or "")
            if found is None:
                return
            if call == "disconnect":
                # The SDK would drop what it has; whatever is logged later is collected later.
                self._take(found)
                found.storage = None
            else:
                del self.known[recording_id or ""]
                self._count()

    def collect(self) -> None:
        """Send what has been logged since the last time, and forget recordings that nobody else holds any more."""
        if not self.known:
            return
        with self._lock:
            for recording_id, found in list(self.known.items()):
                # Ours, and the one that the call needs.
                is_over = sys.getrefcount(found.inner) <= 2
                self._take(found)
                if is_over:
                    del self.known[recording_id]
                    self._ended += 1

    def clean_up(self) -> None:
        """Between two tasks: let the SDK end the threads of recordings that are over. It forgets the current one."""
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
        self._held(sum(found.rows for found in self.known.values()))
