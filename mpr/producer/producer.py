"""Connects a process to one recording, delivers the rows of the process, and leaves the recording.

Covers: the SDK's stream of the recording, the answers of the parent, waiting until the durable sinks have all rows.
Does not cover: the outbox (`outbox_writer.py`), which task runs (`worker/loop.py`), and what the parent does with the
bytes (`aggregator/aggregator.py`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from mpr.errors import DeliveryError, JoinError, RecordingClosedError, RecordingError
from mpr.limits import SINK_TIMEOUT_SECS
from mpr.producer import farewell, outbox_writer, router
from mpr.producer.direct import DirectWriter
from mpr.producer.inbox import Inbox
from mpr.producer.key_questions import KeyQuestions
from mpr.producer.log_counters import LogCounters
from mpr.producer.notices import Notices
from mpr.producer.outbox_writer import InlineOutboxWriter, OutboxWriter, SharedOutboxWriter, WriterParts
from mpr.producer.recording_watch import LOOK_SECS, RecordingWatch
from mpr.producer.result_sender import ResultSender
from mpr.producer.row_account import RowAccount
from mpr.producer.task_indices import TaskIndices
from mpr.producer.task_recordings import TaskRecordings
from mpr.sdk import encoder, recordings, settings
from mpr.sdk.internal import internal
from mpr.sdk.settings import ChangedSettings
from mpr.transport import ipc_folder
from mpr.transport.connection_info import ConnectionInfo
from mpr.transport.messages import (
    TASK_RECORDING_ROWS,
    Accepted,
    Flush,
    Goodbye,
    Hello,
    Indices,
    IndicesWanted,
    KeyAnswer,
    KeyWanted,
    Result,
    Synced,
    TaskBegan,
    TaskEnded,
    TaskRecordingRows,
    Welcome,
)
from mpr.transport.messages import Downstream as DownstreamMessage
from mpr.transport.outbox import Outbox
from mpr.transport.result_journal import ResultJournal
from mpr.transport.sockets import Connection
from mpr.transport.status_page import StatusPage
from mpr.transport.task_mark import TaskMarker
from mpr.user_code import log as _log

if TYPE_CHECKING:
    import rerun as rr

WELCOME_TIMEOUT_SECS = 30.0


def _check_reachable(config: ConnectionInfo) -> None:
    """Raise an error if this process cannot join the recording of `config`.

    Raises `RecordingClosedError` if the recording is closed or the parent has ended. Raises `JoinError` if the
    recording belongs to another machine, container or user, or this process may not enter the folder of its sockets.
    """
    if ipc_folder.is_owned(config.folder):
        return
    reason = ipc_folder.why_unreachable(config.folder, config.place, config.machine)
    if reason is not None:
        error = JoinError(f"the recording {config.application_id!r} ({config.recording_id}) {reason}")
        error.machine = config.machine if config.machine != ipc_folder.machine() else None
        raise error
    raise RecordingClosedError(
        f"the recording {config.application_id!r} ({config.recording_id}) is closed, or its process has ended, "
        f"or another program has removed or moved the folder {config.folder}"
    )


class Producer:
    """Connects this process to one recording, and sends the rows and results of this process.

    Raises `RecordingClosedError` if the recording is gone. Raises `JoinError` if the parent does not answer in time, or
    if this process cannot reach the recording (see `_check_reachable`).

    Parameters
    ----------
    config:
        The values that are needed to join the recording.
    worker:
        The number of this worker in its pool; 0 if this process is no worker.
    timeout_secs:
        The longest wait for the parent's answer, in seconds.
    own_next_index:
        Returns the next index for a task, in the parent; None in any other process. If it is given, the rows go through
        the parent's aggregator, even with `route="direct"`.

    Attributes
    ----------
    number:
        The number of this process, which no other process of the recording has; 0 in the parent, `worker` in a worker.
    """

    def __init__(
        self,
        config: ConnectionInfo,
        worker: int,
        timeout_secs: float = WELCOME_TIMEOUT_SECS,
        *,
        own_next_index: Callable[[], int] | None = None,
    ) -> None:
        _check_reachable(config)
        ipc_folder.watch(config.folder)
        is_owner = own_next_index is not None
        self.config = config
        #: The application id and the recording id of the shared recording.
        self.ids: Final = (config.application_id, config.recording_id)
        self.worker = worker
        self._connection = Connection(config.upstream, config.downstream, copies=not worker)
        self.status_page: StatusPage = StatusPage(config.folder)
        self.inbox: Final = Inbox(self._connection, self._take_answer, self.status_page.is_in_task)
        self._marker = TaskMarker(self.status_page)
        #: The recordings that tasks make themselves.
        self.task_recordings: TaskRecordings = TaskRecordings(
            lambda *sent: self._connection.send_needed(TaskRecordingRows(*sent)),
            self.status_page.set_unsent_rows,
        )
        self.log_counters: Final = LogCounters(self.status_page.counters, self.wait_for_credit, self.task_recordings)
        #: The settings of the SDK that the present task of a worker has changed; None if this process is no worker.
        self.settings: Final = ChangedSettings() if worker else None
        self._watch = RecordingWatch(config, self.log_counters)
        self._has_ended = False
        interrupted = self.inbox.is_interrupted
        self.indices: Final = TaskIndices(self._ask, interrupted, lambda: self.number, own_next_index)
        self.notices: Notices = Notices(config, worker)
        outbox = Outbox(config.folder)
        route, addresses = self._connection.route, (outbox.address, self.status_page.address)
        self._connection.send(Hello(config.secret, worker, os.getpid(), route, *addresses, is_owner=is_owner))
        # Start the SDK here, because the parent answers meanwhile.
        with internal():
            self.stream: rr.RecordingStream = encoder.new_stream(
                config.application_id, config.recording_id, config.flush_tick_secs
            )
        is_direct = config.direct is not None and not is_owner
        #: Counts the rows of this process. The parent compares this number with the rows that come to it.
        self.row_account: RowAccount = RowAccount(self.status_page.counters, self.stream, is_on=not is_direct)
        if not is_direct:
            outbox_writer.attach(self.stream, outbox)
        try:
            welcome = self._wait_for_welcome(timeout_secs)
            self.number: int = welcome.number
            self.key_questions: Final = KeyQuestions(self._ask, welcome.key_filter)
            self._writer = self._new_writer(outbox, inline=welcome.inline, is_direct=is_direct)
            self.deliveries: Final = self._writer.announcer.deliveries
        except BaseException:
            with internal():
                self.stream.disconnect()
            outbox.close()
            self._release(hand_over=False)
            raise

    def _wait_for_welcome(self, timeout_secs: float) -> Welcome:
        """Return the parent's answer. Raises `JoinError` if none comes in time, or `RecordingClosedError`."""
        deadline = time.monotonic() + timeout_secs
        warn_at = time.monotonic() + WELCOME_TIMEOUT_SECS
        while (left := deadline - time.monotonic()) > 0:
            message = self._connection.receive(min(left, LOOK_SECS))
            if isinstance(message, Welcome):
                return message
            if not ipc_folder.is_owned(self.config.folder):
                raise RecordingClosedError(f"the recording {self.config.application_id!r} was closed meanwhile")
            if warn_at < time.monotonic() < deadline:
                warn_at = deadline
                _log.warning(
                    "the process of the recording %r has not answered for %.0f s; this process (pid %d) waits on",
                    self.config.application_id,
                    WELCOME_TIMEOUT_SECS,
                    os.getpid(),
                )
        raise JoinError(
            f"the process of the recording {self.config.application_id!r} did not answer within {timeout_secs:.0f} s: "
            "it is stopped or very busy, or does not know the secret that this process has"
        )

    def _new_writer(self, outbox: Outbox, *, inline: bool, is_direct: bool) -> OutboxWriter:
        parts = WriterParts(
            config=self.config,
            worker=self.worker,
            stream=self.stream,
            connection=self._connection,
            inbox=self.inbox,
            watch=self._watch,
            status_page=self.status_page,
            log_counters=self.log_counters,
            row_account=self.row_account,
            task_recordings=self.task_recordings,
            results=ResultSender(self._connection, ResultJournal(self.status_page), parent_reads=not inline),
        )
        if is_direct:
            assert self.config.direct is not None
            return DirectWriter(parts, outbox, self.config.direct)
        return InlineOutboxWriter(parts, outbox) if inline else SharedOutboxWriter(parts, outbox)

    @property
    def spent(self) -> bool:
        """True if this process can send no more rows to the recording, for example because a flush has failed."""
        return self._writer.spent

    @property
    def lost(self) -> bool:
        """True if this process has noticed that the recording is gone."""
        return self._watch.lost is not None

    # --- rows ----------------------------------------------------------------------------------------------------

    def wait_for_credit(self) -> None:
        """Wait until there is credit, as `OutboxWriter.wait_for_credit` does. Raises `DeliveryError` if `spent`."""
        self._writer.wait_for_credit()

    def sink_changed(self, call: str) -> None:
        """Note that user code has changed the stream's sink by the SDK's function `call`. Warn if rows go there."""
        self._writer.sink_changed()
        self.log_counters.count_call()
        self.notices.sink_changed(call)

    def write_out(self) -> int:
        """Make the SDK write all its rows into the outbox. Return the size of all outboxes of this process (bytes)."""
        return self._writer.write_out()

    def flush(self) -> tuple[str, int, int]:
        """Announce every row of this process.

        Returns (name of the process in ZeroMQ messages, number of its current outbox, announced bytes of this outbox).
        """
        self._writer.write_out()
        self._writer.announcer.announce()
        return self._connection.route, *self._writer.announcer.position()

    def deliver(self, keys: bytes = b"", *, is_last: bool = False) -> None:
        """Deliver all rows of this process. If rows are lost, only `deliveries.check` raises an error.

        `keys` has the keys of engine tasks that have ended, one behind the other. If no rows are lost, the parent notes
        that these tasks are complete. `is_last` is True only in `leave`, which has finished the outbox before. Raises
        `RecordingClosedError` if the recording is closed, and `DeliveryError` if the sinks accept no bytes for 60 s.
        """
        calls = self.log_counters.logging_calls
        with _closed_is_said(self):
            if self.deliveries.has_lost and not is_last:
                self._writer.complete()
            # Flush in any case, because another thread may have begun to flush the rows of this thread, but not ended.
            self._writer.write_out(in_any_case=True)
            number = self._writer.announcer.request_sync(keys)
            self._wait(lambda: self.deliveries.is_answered(number))
        if self.deliveries.is_whole(number):
            self._watch.note_delivered(calls)

    def _wait(self, done: Callable[[], bool]) -> None:
        """Receive messages until `done()` returns True. Raises the errors of `deliver`."""
        held_bytes, deadline = -1, 0.0
        while True:
            if self.inbox.wait_until(done, LOOK_SECS):
                return
            self._watch.check()
            if (now_held := self._writer.held_bytes()) != held_bytes:
                held_bytes, deadline = now_held, time.monotonic() + SINK_TIMEOUT_SECS
            elif time.monotonic() > deadline:
                raise DeliveryError(
                    f"the recording {self.config.application_id!r} has taken nothing for {SINK_TIMEOUT_SECS:.0f} s"
                )

    # --- tasks and results ---------------------------------------------------------------------------------------

    def begin_task(self) -> None:
        """Make the shared recording current, and undo the sink, times and settings that the last task has set.

        Not needed if `log_counters.sdk_used` is false.
        """
        self.task_recordings.clean_up()
        self._writer.attach_again()
        recordings.make_current(self.stream)
        router.note_current(self.stream.to_native())
        self.stream.reset_time()
        settings.reset_thread()
        if self.settings is not None:
            self.settings.undo()
            self.settings.keep()
        # Set after these calls, because they count as uses of the SDK, too.
        self.log_counters.sdk_used = not router.current_is_watched()

    def mark_begin(self, work_item: int, task: int, attempt: int) -> None:
        """Tell the parent that a task begins, for the `attempt`-th time.

        The task gets an outbox without rows of other tasks. `work_item` is the number of the work item, and `task` the
        number of the task in it.
        """
        self._writer.complete()
        began = TaskBegan(work_item, task, attempt, time.time_ns())
        self._marker.begin(self._writer.announcer.current.number, began)
        self._connection.send(began)

    def mark_end(self, seconds: float, error: str | None) -> None:
        """Tell the parent the duration of the task and the text of its `error` (None: no error). Finish its outbox."""
        ended = TaskEnded(seconds, error)
        self._marker.end(ended)
        self._connection.send(ended)
        self._writer.complete()

    def _ask(self, question: IndicesWanted | KeyWanted, has_answer: Callable[[], bool]) -> None:
        with _closed_is_said(self):
            self._connection.send(question)
            self._wait(has_answer)

    def hand_over(self, result: Result, *, may_wait: bool) -> bool:
        """Send `result` after its rows, or keep it for later (only if `may_wait`). Return True if it is kept."""
        return self._writer.announcer.hand_over(result, may_wait=may_wait)

    def send_results(self) -> None:
        """Send the results that wait in this process, after their rows. Does nothing if no result waits."""
        self._writer.announcer.send_results()

    def send(self, message: object) -> None:
        """Send `message` to the parent. The parent receives the messages of this process in the order of sending."""
        self._connection.send(message)  # type: ignore[arg-type]  # results and such; typed where they are made

    def _take_answer(self, message: DownstreamMessage) -> bool:
        if isinstance(message, Accepted):
            if message.outbox == TASK_RECORDING_ROWS:
                self.task_recordings.accept(message.end)
            else:
                self._writer.announcer.accept(message)
        elif isinstance(message, Synced):
            self._writer.announcer.deliveries.take(message)
        elif isinstance(message, Indices):
            self.indices.take(message)
        elif isinstance(message, KeyAnswer):
            self.key_questions.take(message)
        elif isinstance(message, Flush):
            farewell.flush_aside(self._writer, self._connection, self._watch, self.log_counters)
        else:
            return False
        return True

    # --- the end -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Send all rows and `Goodbye`, and release everything. If this is a worker and is `spent`, its process ends."""
        self.task_recordings.collect(at_end=True)
        self._writer.close()
        if not self.spent:
            self.task_recordings.clean_up(is_last=True)
        self._end()

    def leave(self) -> None:
        """Do what `close` does, and wait until every durable sink has all rows. A `RecordingError` is only logged."""
        self._watch.note_leaving()
        try:
            self.task_recordings.collect(at_end=True)
            self._writer.close()
            self.deliver(is_last=True)
            self.deliveries.check()
        except RecordingError as error:
            self._watch.report(error)
        finally:
            self._end()

    def _end(self) -> None:
        self._has_ended = True
        self._connection.send(Goodbye())
        self._release(hand_over=not self.lost)
        self._writer.release()
        if not self._writer.spent:
            encoder.drop_rows(self.stream)

    def _release(self, *, hand_over: bool) -> None:
        self._connection.close(hand_over=hand_over)
        self.status_page.close()
        ipc_folder.unwatch(self.config.folder)


@contextmanager
def _closed_is_said(producer: Producer) -> Iterator[None]:
    """Raise `RecordingClosedError` in place of an `Exception` of the `with` block if `producer` has ended meanwhile.

    A `RecordingError` of the block, and an exception before the end of `producer`, is raised unchanged.
    """
    try:
        yield
    except Exception as error:
        if producer._has_ended and not isinstance(error, RecordingError):
            raise RecordingClosedError(
                f"the recording {producer.config.application_id!r} was closed before it had all rows of this process"
            ) from error
        raise
