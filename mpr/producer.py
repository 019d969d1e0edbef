"""A process's way into a shared recording: the SDK writes into an outbox, and the parent is told how far.

Covers: the one recording stream of the process, its outbox, credit at the SDK's entries, announcing, flushing.
Does not cover: which task runs (`worker.py`) and what the parent does with the bytes (`aggregator.py`).

```
rr.log ─► entry (waits here while the outbox is full) ─► SDK's batcher ─► SDK's file sink ─► outbox
                                                     SegmentReady(outbox, end) ─► upstream socket ─► aggregator
```

Nothing of mpr runs inside the SDK: an entry waits in Python, before the SDK, with no lock held and signals handled. The
credit is what the outbox may still hold: the parent frees what the sinks have accepted, and both sides see that in the
size of the file.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, ClassVar

from mpr import failpoints, sdk
from mpr.config import (
    ANNOUNCE_EVERY_SECS,
    CHECK_EVERY_BYTES,
    OUTBOX_ROLL_BYTES,
    UNFLUSHED_MAX_BYTES,
    RecordingConfig,
)
from mpr.messages import (
    OWN_ROWS,
    Accepted,
    Goodbye,
    Hello,
    NewOutbox,
    OwnRows,
    SegmentReady,
    TaskBegan,
    TaskEnded,
    Welcome,
)
from mpr.messages import Downstream as DownstreamMessage
from mpr.outbox import Outbox
from mpr.own_recordings import OwnRecordings
from mpr.slate import Slate
from mpr.transport import Connection

if TYPE_CHECKING:
    import rerun as rr

_log = logging.getLogger("mpr")

# How long a full outbox is left alone before the next look (seconds); at 1 GB/s the parent frees 1 MB meanwhile.
_CREDIT_POLL_SECS = 0.001
_WELCOME_TIMEOUT_SECS = 30.0


class Producer:
    """The producer of this process; there is one.

    Parameters
    ----------
    config:
        Which recording to join.
    worker:
        Number of this worker in its pool; 0 for the parent itself.
    """

    #: The process in which every row has its way, or was said to be lost. Where a task makes a pool of forked workers,
    #: the calls of a worker pass the entries of both producers.
    _settled_pid: ClassVar[int] = 0

    def __init__(self, config: RecordingConfig, worker: int) -> None:
        self._config = config
        self._worker = worker
        self._connection = Connection(config.upstream, config.downstream)
        self._outbox = Outbox(config.folder)
        self.slate = Slate(config.folder)
        self._number = 0
        self._announced = 0
        # Guards the outbox and what was announced of it; held for a system call or a message, never while waiting.
        self._lock = threading.Lock()
        self._rolling = threading.Lock()
        #: The parent has the next outbox open.
        self._opened = threading.Event()
        self._receiving = threading.Lock()
        self._received: list[DownstreamMessage] = []
        self._retired: Outbox | None = None
        self._attaching = False
        self._forked = False
        #: Whether a task has given the stream another sink.
        self._detached = False
        self._logged = False
        self._unflushed = 0
        self._unchecked = 0
        self._own = OwnRecordings(self._send_own)
        # Bytes of the recordings that tasks have made: sent, and taken by the sinks.
        self._own_sent = 0
        self._own_accepted = 0
        self._stop = threading.Event()
        addresses = (self._outbox.address, self.slate.address)
        self._connection.send(Hello(config.token, worker, os.getpid(), self._connection.route, *addresses))
        # While the parent answers.
        self.stream: rr.RecordingStream = sdk.new_stream(
            config.application_id, config.recording_id, send_properties=False
        )
        self._attach(self._outbox)
        #: Whether the parent can read nothing of this process but its messages.
        self.inline = self._wait_for_welcome()
        # Only in a worker does every logging call of the process pass `_enter`.
        self._always_flush = True
        self._noted: set[tuple[str | None, str | None]] = set()
        self._noted_calls: set[str] = set()
        self._announcer = threading.Thread(target=self._announce_often, name="mpr-announcer", daemon=True)
        self._announcer.start()

    def take_over_process(self) -> None:
        """Make this the producer for every logging call in the process: in a worker, never in the user's own."""
        Producer._settled_pid = os.getpid()
        self._always_flush = bool(sdk.install_entries(self._enter))
        sdk.divert_new_recordings(self.stream, self._note_init, self._own.made)
        sdk.watch_sinks(self.stream, self._note_sink, self._own.sink_call)
        sdk.divert_recording_info(self.stream, f"worker_{self._worker}", self._note_recording_info)
        os.register_at_fork(after_in_child=self._disown)

    def _wait_for_welcome(self) -> bool:
        message = self._connection.receive(_WELCOME_TIMEOUT_SECS)
        if not isinstance(message, Welcome):
            raise ConnectionError(f"the parent did not answer within {_WELCOME_TIMEOUT_SECS:.0f} s")
        return message.inline

    # --- entries of the SDK ------------------------------------------------------------------------------------

    def _enter(self, size: int) -> None:
        """Called before `size` bytes are handed to the SDK, in whatever thread logs."""
        if self._forked:
            self._note_fork()
            return
        self._logged = True
        self._unflushed += size
        self._unchecked += size
        if self._unchecked >= CHECK_EVERY_BYTES:
            self._unchecked = 0
            self._throttle()

    def _throttle(self) -> None:
        """Bound what waits in the SDK, then wait until the outbox has room. Signal handlers run meanwhile."""
        if self._unflushed >= UNFLUSHED_MAX_BYTES:
            self._unflushed = 0
            self.stream.flush()
            self._own.collect()
        self._announce()
        self._roll_if_long()
        while self._is_full():
            time.sleep(_CREDIT_POLL_SECS)
            self._announce()
            if self.inline or self._own_sent > self._own_accepted:
                self._take_what_came()

    def _is_full(self) -> bool:
        limit = self._config.outbox_bytes
        return self._outbox.held() > limit or self._own_sent - self._own_accepted > limit

    def _disown(self) -> None:
        """In a process that a task has forked: sockets, locks and the SDK's threads are the worker's."""
        self._forked = True
        self._stop.set()

    def _note_fork(self) -> None:
        if Producer._settled_pid != os.getpid():
            Producer._settled_pid = os.getpid()
            _log.warning(
                "A process (pid %d) that a task of mpr has forked logs to Rerun: its rows are lost. Log in the task.",
                os.getpid(),
            )

    def _note_init(self, application_id: str | None, recording_id: str | None) -> None:
        """`rr.init` was called by a task: its rows go to the shared recording, under the shared ids."""
        ids = (application_id, recording_id)
        own = (self._config.application_id, self._config.recording_id)
        if ids in self._noted or (ids[0] == own[0] and ids[1] in (None, own[1])):
            return
        self._noted.add(ids)
        # Not a warning: where warnings are errors, it would change what the user's task does.
        _log.warning(
            "rr.init(%r) in a worker of mpr: its rows go to the shared recording %r (%s). For a recording of its own, "
            "make an rr.RecordingStream.",
            application_id,
            *own,
        )

    def _note_sink(self, call: str) -> None:
        """A task has called `rr.save` or the like: what it wants is done, and ends with the task (see `flush`)."""
        if self._attaching:
            return
        self._detached = self._logged = True
        if call in ("disconnect", "shutdown") or call in self._noted_calls:
            return
        self._noted_calls.add(call)
        _log.warning(
            "rr.%s() in a worker of mpr: until the end of this task its rows go there, and not to the shared recording "
            "%r. Give mpr.Pool the sink, and they go to both.",
            call,
            self._config.application_id,
        )

    def _note_recording_info(self, call: str) -> None:
        if call in self._noted_calls:
            return
        self._noted_calls.add(call)
        _log.warning(
            "rr.%s() in a worker of mpr: the recording is that of all workers, so this becomes the property worker_%d. "
            "In the parent, recording.stream.%s() is for all.",
            call,
            self._worker,
            call,
        )

    # --- the way to the parent ---------------------------------------------------------------------------------

    def _announce(self) -> None:
        """Tell the parent how far the outbox was written, where it does not know yet."""
        with self._lock:
            end = self._outbox.size()
            if end <= self._announced:
                return
            data = self._outbox.read(self._announced, end - self._announced) if self.inline else None
            self._connection.send(SegmentReady(self._number, self._announced, end, data))
            self._announced = end

    def _announce_often(self) -> None:
        """What a running task logs goes out without the task's help. Idle, this looks once per period."""
        while not self._stop.wait(ANNOUNCE_EVERY_SECS):
            self._announce()

    def _roll_if_long(self) -> None:
        if self._announced > OUTBOX_ROLL_BYTES and self._rolling.acquire(blocking=False):
            try:
                self._roll()
            finally:
                self._rolling.release()

    def _roll(self) -> None:
        """Close the outbox, so that the SDK writes its manifest, and go on in a new one.

        The parent opens the new one before anything is written to it: what it has open, nobody's death can take.
        """
        fresh = Outbox(self._config.folder)
        self._opened.clear()
        self._connection.send(NewOutbox(fresh.address))
        while not self._opened.wait(_CREDIT_POLL_SECS):
            self._take_what_came()
        # The SDK finishes the old file, with its footer, before this returns.
        self._attach(fresh)
        failpoints.reach("worker.rolled")
        self._announce()
        with self._lock:
            old, self._outbox = self._outbox, fresh
            self._number += 1
            self._announced = 0
            self._connection.send(SegmentReady(self._number, 0, 0, b"" if self.inline else None))
            # The parent has its own descriptor, or the bytes. Ours is closed at the next turn: another thread may be
            # looking at it at this moment.
            if self._retired is not None:
                self._retired.close()
            self._retired = old
            if self.inline:
                old.release(0, old.size())

    def _attach(self, outbox: Outbox) -> None:
        self._attaching = True
        try:
            self.stream.save(outbox.path)
        finally:
            self._attaching = False

    def flush(self) -> None:
        """Announce every row that this process has logged; returns at once where it has logged nothing."""
        if not self._logged and not self._always_flush:
            return
        self._logged = False
        self._unflushed = 0
        # Not while another thread changes the outbox: the result would overtake it.
        with self._rolling:
            if self._detached:
                self._detached = False
                # What was logged without any sink since then comes with it.
                self._roll()
            self.stream.flush()
            self._announce()
            self._own.collect()
        self._roll_if_long()

    def _send_own(self, data: bytes) -> None:
        """A task's own recording has these rows."""
        self._own_sent += len(data)
        self._connection.send(OwnRows(data))

    def position(self) -> tuple[str, int, int]:
        """Which producer this is, the number of its outbox, and how far it has announced that."""
        with self._lock:
            return self._connection.route, self._number, self._announced

    def begin_task(self) -> None:
        """Make the shared recording current and forget the times that the last task has set."""
        self._own.clean_up()
        sdk.make_current(self.stream)
        self.stream.reset_time()

    @property
    def marks_tasks(self) -> bool:
        """Whether the parent wants to know where the rows of each task begin and end."""
        return self._config.marks_tasks

    def mark_begin(self, parcel: int, task: int, attempt: int) -> None:
        """From here on rows are of that task; those before, of no task, get an outbox of their own."""
        self.complete_outbox()
        self._connection.send(TaskBegan(parcel, task, attempt, time.time_ns()))

    def mark_end(self, seconds: float, error: str | None) -> None:
        """The task has ended: its rows are complete."""
        self._connection.send(TaskEnded(seconds, error))
        self.complete_outbox()

    def complete_outbox(self) -> None:
        """Have the SDK write the manifest of what was logged since the last time, if anything was."""
        if self._logged or self._always_flush:
            self.flush()
            with self._rolling:
                self._roll()

    def send(self, message: object) -> None:
        """Send `message` upstream, behind all segments announced so far."""
        self._connection.send(message)  # type: ignore[arg-type]  # results and such; typed where they are made

    def receive(self) -> DownstreamMessage:
        """The next message for this process; waits as long as it takes. The main thread's."""
        while True:
            with self._receiving:
                if self._received:
                    return self._received.pop(0)
                message = self._connection.receive()
            if isinstance(message, Accepted):
                self._free(message)
            elif message is not None:
                return message

    def _take_what_came(self) -> None:
        """Look for credit in the middle of a task; tasks that come along are kept for later."""
        if not self._receiving.acquire(blocking=False):
            # The main thread waits for the next task, and frees what is accepted meanwhile.
            return
        try:
            while (message := self._connection.receive(0)) is not None:
                if isinstance(message, Accepted):
                    self._free(message)
                else:
                    self._received.append(message)
        finally:
            self._receiving.release()

    def _free(self, accepted: Accepted) -> None:
        with self._lock:
            if accepted.outbox == self._number + 1:
                self._opened.set()
            elif accepted.outbox == OWN_ROWS:
                self._own_accepted = accepted.end
            elif accepted.outbox == self._number:
                self._outbox.release(0, accepted.end)

    def close(self) -> None:
        """Flush, let the SDK write the last manifest, say goodbye, and hand all of it over."""
        self._stop.set()
        self._announcer.join()
        self._attaching = True
        self.stream.disconnect()
        self._announce()
        self._connection.send(Goodbye())
        self._connection.close()
        self._outbox.close()
        if self._retired is not None:
            self._retired.close()
        self.slate.close()
