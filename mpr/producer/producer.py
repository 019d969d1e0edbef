"""A process's way into a shared recording: the SDK writes into an outbox, and the parent is told how far.

Covers: the one recording stream of the process, its outbox, credit at the SDK's entries, announcing, flushing.
Does not cover: which task runs (`worker/loop.py`) and what the parent does with the bytes (`aggregator/aggregator.py`).

```
rr.log ─► entry (waits here while the outbox is full) ─► SDK's batcher ─► SDK's file sink ─► outbox
                                                     SegmentReady(outbox, end) ─► upstream socket ─► aggregator
```

Nothing of mpr runs inside the SDK: an entry waits in Python, with no lock held and signals handled. The credit is what
the outbox may still hold: the parent frees what the sinks have accepted, and both sides see the file's size.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mpr import failpoints, limits
from mpr.errors import DeliveryError, JoinError, RecordingClosedError, RecordingError
from mpr.limits import ANNOUNCE_EVERY_SECS, OUTBOX_ROLL_BYTES, OUTBOX_ROLL_ROWS, SINK_TIMEOUT_SECS, UNFLUSHED_MAX_BYTES
from mpr.producer import router
from mpr.producer.inbox import Inbox
from mpr.producer.log_counters import LogCounters
from mpr.producer.notices import Notices
from mpr.producer.task_recordings import TaskRecordings
from mpr.sdk import encoder, recordings
from mpr.sdk.internal import internal
from mpr.transport import ipc_folder
from mpr.transport.connection_info import ConnectionInfo
from mpr.transport.messages import (
    TASK_RECORDING_ROWS,
    Accepted,
    Goodbye,
    Hello,
    NewOutbox,
    Result,
    SegmentReady,
    Sync,
    Synced,
    TaskBegan,
    TaskEnded,
    TaskRecordingRows,
    Undelivered,
    Welcome,
)
from mpr.transport.messages import Downstream as DownstreamMessage
from mpr.transport.outbox import Outbox
from mpr.transport.sockets import Connection
from mpr.transport.status_page import StatusPage

if TYPE_CHECKING:
    import rerun as rr


_log = logging.getLogger("mpr")

# How long a full outbox is left alone before the next look (seconds); at 1 GB/s the parent frees 1 MB meanwhile.
_CREDIT_POLL_SECS = 0.001
WELCOME_TIMEOUT_SECS = 30.0
# How often who waits looks whether the recording is still there.
_LOOK_SECS = 0.5
# A message wakes two threads of ZeroMQ and the parent's, so results of short tasks go together: so many, or what there
# is within so long (microseconds). One row each: 350 us of CPU per task without, 280 with it.
_TOGETHER = limits.WORK_ITEMS_MAX // 2
TOGETHER_MICROS = 1_000


class Producer:
    """A process's producer for one recording.

    Parameters
    ----------
    config:
        Which recording to join.
    worker:
        Number of this worker in its pool; 0 for the parent itself, and for a process that joined by itself.
    timeout_secs:
        How long to wait for the parent's answer.

    Raises
    ------
    RecordingClosedError
        If the recording is closed, or its process has ended.
    JoinError
        If the parent does not answer.
    """

    def __init__(self, config: ConnectionInfo, worker: int, timeout_secs: float = WELCOME_TIMEOUT_SECS) -> None:
        if not ipc_folder.is_owned(config.folder):
            raise RecordingClosedError(
                f"the recording {config.application_id!r} ({config.recording_id}) is closed, or its process has ended"
            )
        self.config = config
        self.worker = worker
        self._connection = Connection(config.upstream, config.downstream)
        self._inbox = Inbox(self._connection, self._take_answer)
        self._outbox = Outbox(config.folder)
        self.status_page = StatusPage(config.folder)
        # How far it was written at the last `write_out`, how far it was announced, and the bytes of all that was.
        self._number = self._written = self._announced = self._told_bytes = self._rolled = 0
        #: Results that wait for the next ones, and how far the outbox was written when the last of them was there.
        self._results: list[Result] = []
        self._results_end = 0
        #: So many messages must have arrived before the results after them may be read from the status page, and how
        #: many it were at the last result.
        self._needed = self._needed_before = 0
        # Guards the outbox and what was announced of it; held for a system call or a message, never while waiting.
        self._lock = threading.Lock()
        self._rolling = threading.Lock()
        #: The parent has the next outbox open.
        self._opened = threading.Event()
        self._retired: Outbox | None = None
        #: Whether a task has given the stream another sink, and whether no more rows can come from this process.
        self._detached = self.spent = False
        #: What the meter said before the last flush, and so on.
        self._flushed = self._completed = self._delivered = self._unflushed = 0
        #: The recordings that tasks make themselves.
        self.task_recordings = TaskRecordings(self._send_task_recording, self.status_page.set_unsent_rows)
        self.log_counters = LogCounters(self.status_page.counters, self.wait_for_credit, self.task_recordings)
        # Bytes of them: sent, and taken by the sinks.
        self._task_recording_sent = self._task_recording_accepted = 0
        self._syncs = itertools.count(1)
        self._synced, self._sync_failure = 0, ""
        #: Why rows are lost from now on.
        self._lost: RecordingError | None = None
        self._told, self._next_look = False, 0.0
        self._stop = threading.Event()
        addresses = (self._outbox.address, self.status_page.address)
        self._connection.send(Hello(config.secret, worker, os.getpid(), self._connection.route, *addresses))
        # While the parent answers.
        with internal():
            self.stream: rr.RecordingStream = encoder.new_stream(
                config.application_id, config.recording_id, send_properties=False
            )
        self._attach(self._outbox)
        try:
            #: Whether the parent can read nothing of this process but its messages.
            self.inline = self._wait_for_welcome(timeout_secs)
        except BaseException:
            self._detach()
            self._release(hand_over=False)
            raise
        #: False where every logging call of the process passes `enter`.
        self.always_flush = True
        self.notices = Notices(config, worker)
        self._announcer = threading.Thread(target=self._announce_often, name="mpr-announcer", daemon=True)
        self._announcer.start()

    def _wait_for_welcome(self, timeout_secs: float) -> bool:
        deadline = time.monotonic() + timeout_secs
        while (left := deadline - time.monotonic()) > 0:
            message = self._connection.receive(min(left, _LOOK_SECS))
            if isinstance(message, Welcome):
                return message.inline
            if not ipc_folder.is_owned(self.config.folder):
                raise RecordingClosedError(f"the recording {self.config.application_id!r} was closed meanwhile")
        raise JoinError(
            f"the process of the recording {self.config.application_id!r} did not answer within {timeout_secs:.0f} s: "
            "it is stopped or very busy, or does not know the secret that this process has"
        )

    # --- entries of the SDK ------------------------------------------------------------------------------------

    def wait_for_credit(self) -> None:
        """Bound what waits in the SDK, then wait until the outbox has room. Signal handlers run meanwhile."""
        self._unflushed += self.log_counters.unchecked
        self.log_counters.unchecked = 0
        if self._unflushed >= UNFLUSHED_MAX_BYTES:
            self._unflushed = 0
            self._push()
            self.task_recordings.collect()
        self._announce()
        self._roll_if_long()
        if self._is_full():
            with self.status_page.back_pressure():
                self._wait_for_room()

    def _wait_for_room(self) -> None:
        while self._is_full():
            time.sleep(_CREDIT_POLL_SECS)
            self._announce()
            if self.inline or self._task_recording_sent > self._task_recording_accepted:
                self._inbox.take_answers()
            if self._is_lost():
                # Nobody else will make room.
                self._outbox.release(0, self._outbox.size())
                self._task_recording_accepted = self._task_recording_sent

    def _is_full(self) -> bool:
        limit = self.config.outbox_bytes
        return self._outbox.held_bytes() > limit or self._task_recording_sent - self._task_recording_accepted > limit

    def sink_changed(self, call: str) -> None:
        """A task has called `rr.save` or the like: what it wants is done, and ends with the task (see `flush`)."""
        self._detached = True
        self.log_counters.entered += 1
        self.notices.sink_changed(call)

    @property
    def recording_id(self) -> str:
        """Of the shared recording."""
        return self.config.recording_id

    # --- the way to the parent ---------------------------------------------------------------------------------

    def _announce(self) -> None:
        """Tell the parent how far the outbox was written, where it does not know yet."""
        with self._lock:
            self._announce_all()

    def _announce_all(self) -> None:
        if self._results:
            # Rows of the task that runs come behind the results of those before it.
            self._announce_up_to(self._results_end)
            for result in self._results:
                self._connection.send(result)
            self._results.clear()
        self._announce_up_to(self._outbox.size())

    def _announce_up_to(self, end: int) -> None:
        if end <= self._announced:
            return
        self._told_bytes += end - self._announced
        if self._is_lost():
            if self.log_counters.entered != self._delivered and not self._told:
                self._told = True
                _log.error("%s. Nothing that it logs from now on is kept.", self._lost)
            self._outbox.release(0, end)
            self._announced = end
            return
        data = self._outbox.read(self._announced, end - self._announced) if self.inline else None
        self._connection.send(SegmentReady(self._number, self._announced, end, data))
        self._announced = end

    def hand_over(self, result: Result, *, may_wait: bool) -> bool:
        """Send `result` behind the rows that were written out; with `may_wait` perhaps later, with the next ones.

        Returns whether it waits: for `send_results`, or anything else that announces rows. What waits is on the status
        page,
        so nobody's death takes it.
        """
        with self._lock:
            end = max(self._written, self._announced)
            behind = SegmentReady(self._number, 0, end)
            # Rows that only a message carries, since the last result.
            latest = self._needed
            needed = latest if latest != self._needed_before else 0
            self._needed_before = latest
            sent, journaled = self.status_page.write(
                result, behind, self._connection.sent_count, needed=needed, parent_reads=not self.inline
            )
            failpoints.reach("worker.noted")
            self._results.append(sent)
            self._results_end = end
            waited_ns = result.ended_nanos - self._results[0].ended_nanos
            enough = len(self._results) >= _TOGETHER or waited_ns >= 1000 * TOGETHER_MICROS
            waits = may_wait and journaled and not sent.in_memory and not self.inline and not enough
            if not waits:
                self._announce_all()
        return waits

    def send_results(self) -> None:
        """Send those that wait."""
        if self._results:
            self._announce()

    def _announce_often(self) -> None:
        """What a running task logs goes out without the task's help. Idle, this looks once per period."""
        while not self._stop.wait(ANNOUNCE_EVERY_SECS):
            self._announce()

    def _roll_if_long(self) -> None:
        end = max(self._written, self._announced)
        rows = self.log_counters.entered - self._rolled if end else 0
        if (end > OUTBOX_ROLL_BYTES or rows > OUTBOX_ROLL_ROWS) and self._rolling.acquire(blocking=False):
            try:
                self._roll()
            finally:
                self._rolling.release()

    def _roll(self) -> None:
        """Close the outbox, so that the SDK writes its manifest, and go on in a new one.

        The parent opens the new one before anything is written to it: what it has open, nobody's death can take.
        """
        fresh = Outbox(self.config.folder)
        self._opened.clear()
        self._connection.send(NewOutbox(fresh.address))
        while not self._opened.wait(_CREDIT_POLL_SECS) and not self._is_lost():
            self._inbox.take_answers()
        # The SDK finishes the old file, with its footer, before this returns.
        self._attach(fresh)
        failpoints.reach("worker.rolled")
        with self._lock:
            self._announce_all()
            old, self._outbox = self._outbox, fresh
            self._number, self._written, self._announced = self._number + 1, 0, 0
            self._rolled = self.log_counters.entered
            self._connection.send(SegmentReady(self._number, 0, 0, b"" if self.inline else None))
            # The parent has its own descriptor, or the bytes. Ours is closed at the next turn: another thread may be
            # looking at it at this moment.
            if self._retired is not None:
                self._retired.close()
            self._retired = old
            if self.inline:
                old.release(0, old.size())

    def _attach(self, outbox: Outbox) -> None:
        with internal():
            self.stream.save(outbox.path)

    def _detach(self) -> None:
        with internal():
            self.stream.disconnect()

    def flush(self) -> None:
        """Announce every row that this process has logged; returns at once where it has logged nothing."""
        self.write_out()
        self._announce()

    def write_out(self, *, in_any_case: bool = False) -> int:
        """Have the SDK write every row into the outbox. Returns how many bytes it has written until now."""
        entered = self.log_counters.entered
        if entered != self._flushed or self.always_flush or in_any_case:
            self._flushed = entered
            self._unflushed = 0
            rows = self.status_page.logged()
            # Not while another thread changes the outbox: the result would overtake it.
            with self._rolling:
                if self._detached:
                    self._detached = False
                    # What was logged without any sink since then comes with it.
                    self._roll()
                self._push()
                self.task_recordings.collect()
            self.status_page.flushed(rows)
            with self._lock:
                self._written = self._outbox.size()
            self._roll_if_long()
        with self._lock:
            return self._told_bytes + max(self._written - self._announced, 0)

    def _push(self) -> None:
        self.stream.flush()

    def _send_task_recording(self, data: bytes) -> None:
        """A task's own recording has these rows."""
        self._task_recording_sent += len(data)
        self._send_needed(TaskRecordingRows(data))

    def _send_needed(self, message: TaskRecordingRows | Undelivered) -> None:
        """Send a message without which the parent must not take the next result, should this process die."""
        self._connection.send(message)
        self._needed = self._connection.sent_count

    def deliver(self) -> None:
        """Flush, and wait until every durable sink has all rows that this process has logged.

        Raises `RecordingClosedError` where the recording is closed or its process ends meanwhile, and `DeliveryError`
        where a sink has failed, or nothing moves for `SINK_TIMEOUT_SECS`.
        """
        entered = self.log_counters.entered
        # Another thread may have begun to flush this one's rows, and not be done with it.
        self.write_out(in_any_case=True)
        with self._lock:
            self._announce_all()
            # In the order of their numbers, so that an answer is one to all before it.
            number = next(self._syncs)
            self._connection.send(Sync(number))
        self._wait(lambda: self._synced >= number)
        if self._sync_failure:
            raise DeliveryError(f"rows of this process (pid {os.getpid()}) are not in a sink: {self._sync_failure}")
        self._delivered = entered

    def _wait(self, done: Callable[[], bool]) -> None:
        """Read what the parent sends until `done()`; as long as the recording is there and something moves."""
        held_bytes = -1
        deadline = 0.0
        while True:
            if self._inbox.wait_until(done, _LOOK_SECS):
                return
            if self._is_lost():
                assert self._lost is not None
                raise self._lost
            if (now_held := self._outbox.held_bytes()) != held_bytes:
                held_bytes, deadline = now_held, time.monotonic() + SINK_TIMEOUT_SECS
            elif time.monotonic() > deadline:
                raise DeliveryError(
                    f"the recording {self.config.application_id!r} has taken nothing for {SINK_TIMEOUT_SECS:.0f} s"
                )

    def _is_lost(self) -> bool:
        """Whether the recording is gone; looks at most twice a second."""
        now = time.monotonic()
        if self._lost is None and now >= self._next_look:
            self._next_look = now + _LOOK_SECS
            if not ipc_folder.is_owned(self.config.folder):
                self._lost = RecordingClosedError(
                    f"the recording {self.config.application_id!r} was closed, or its process has ended, before this "
                    f"process (pid {os.getpid()}) was told that all its rows are there"
                )
        return self._lost is not None

    @property
    def lost(self) -> bool:
        """Whether the recording is gone, as far as this process has noticed."""
        return self._lost is not None

    def position(self) -> tuple[str, int, int]:
        """Which producer this is, the number of its outbox, and how far it has announced that."""
        with self._lock:
            return self._connection.route, self._number, self._announced

    def begin_task(self) -> None:
        """Make the shared recording current and forget the times that the last task has set.

        Needed where `meter.sdk_used`: where anything was done with the SDK since the last time.
        """
        self.task_recordings.clean_up()
        recordings.make_current(self.stream)
        self.stream.reset_time()
        # What was just done counts, too.
        self.log_counters.sdk_used = not router.current_is_watched()

    def mark_begin(self, work_item: int, task: int, attempt: int) -> None:
        """From here on rows are of that task; those before, of no task, get an outbox of their own."""
        self.complete_outbox()
        self._connection.send(TaskBegan(work_item, task, attempt, time.time_ns()))

    def mark_end(self, seconds: float, error: str | None) -> None:
        """The task has ended: its rows are complete."""
        self._connection.send(TaskEnded(seconds, error))
        self.complete_outbox()

    def complete_outbox(self) -> None:
        """Have the SDK write the manifest of what was logged since the last time, if anything was."""
        entered = self.log_counters.entered
        if entered != self._completed or self.always_flush:
            self._completed = entered
            self.flush()
            with self._rolling:
                self._roll()

    def send(self, message: object) -> None:
        """Send `message` upstream, behind all segments announced so far."""
        self._connection.send(message)  # type: ignore[arg-type]  # results and such; typed where they are made

    def receive(self) -> DownstreamMessage:
        """The next message for this process; waits as long as it takes. The main thread's."""
        return self._inbox.next_message(self.send_results)

    def _take_answer(self, message: DownstreamMessage) -> bool:
        """Take `message` where it is an answer, and no task."""
        if isinstance(message, Accepted):
            with self._lock:
                if message.outbox == self._number + 1:
                    self._opened.set()
                elif message.outbox == TASK_RECORDING_ROWS:
                    self._task_recording_accepted = message.end
                elif message.outbox == self._number:
                    self._outbox.release(0, message.end)
        elif isinstance(message, Synced):
            self._sync_failure = message.failure
            self._synced = message.number
        else:
            return False
        return True

    def close(self) -> None:
        """Flush, let the SDK write the last manifest, say goodbye, and hand all of it over."""
        self._finish()
        self._end()

    def leave(self) -> None:
        """As `close`, and wait until every durable sink has all of it. What goes wrong is told, not raised."""
        if not ipc_folder.is_owned(self.config.folder) and self.log_counters.entered == self._delivered:
            # All was delivered; what is missing is a footer that nobody needs any more.
            self._told = True
        try:
            self._finish()
            self.deliver()
        except RecordingError as error:
            if not self._told:
                _log.error("%s", error)
        finally:
            self._end()

    def _finish(self) -> None:
        self._stop.set()
        self._announcer.join()
        if self._detached:
            with self._rolling:
                self._detached = False
                self._roll()
        self._detach()
        self._announce()

    def _end(self) -> None:
        self._connection.send(Goodbye())
        self._release(hand_over=self._lost is None)

    def _release(self, *, hand_over: bool) -> None:
        self._connection.close(hand_over=hand_over)
        self._outbox.close()
        if self._retired is not None:
            self._retired.close()
        self.status_page.close()
