"""Drops the rows of a task that an engine runs again after all its rows have reached the recording.

The task runs as usual and returns its result, but its rows go to another stream, which writes them to `/dev/null`.

Covers: the stand-in for the producer, which the context of such a task has (`tasks/context.py`).
Does not cover: which tasks these are (`tasks/engine_task.py`), and children of the task (`process_capture.py`).
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Final

from mpr.errors import DeliveryError
from mpr.producer import router
from mpr.producer.log_counters import LogCounters
from mpr.producer.notices import Notices
from mpr.producer.route_state import thread_state
from mpr.producer.row_account import RowAccount
from mpr.producer.sink_changes import SinkChanges
from mpr.producer.task_recordings import TaskRecordings
from mpr.sdk import encoder
from mpr.sdk.settings import ChangedSettings
from mpr.transport.status_page import PAGE_BYTES

if TYPE_CHECKING:
    import rerun as rr

    from mpr.producer.producer import Producer
    from mpr.sdk.recordings import Ids


class MutedProducer:
    """Stands in for `producer` while a task runs whose rows are dropped. It has what `router.py` needs of a producer.

    The stream has the ids of the recording, so the task sees the same ids as in its first run. The rows of recordings
    that the task makes itself and gives no sink are dropped, too.
    """

    worker: Final = 0
    settings: Final[ChangedSettings | None] = None

    def __init__(self, producer: Producer) -> None:
        config = producer.config
        counters = memoryview(bytearray(PAGE_BYTES)).cast("Q")
        self.ids: Ids = producer.ids
        self.stream: rr.RecordingStream = encoder.new_stream(config.application_id, config.recording_id)
        self.task_recordings: TaskRecordings = TaskRecordings(lambda *_: None, lambda _: None)
        self.log_counters: LogCounters = LogCounters(counters, lambda: None, self.task_recordings)
        self.row_account: RowAccount = RowAccount(counters, self.stream, is_on=False)
        self.notices: Notices = Notices(config, 0)
        self._sinks = SinkChanges()
        weakref.finalize(self, self._sinks.close)
        router.mute(self.stream.to_native())

    def drop_rows(self) -> None:
        """Let the stream write to `/dev/null` from now on, because an earlier task may have given it another sink."""
        failure = self._sinks.failure_of(lambda: self.stream.save(os.devnull))
        if failure:
            raise DeliveryError(f"the rows of a task that runs again cannot be dropped: {failure}")

    def sink_changed(self, call: str) -> None:
        """Do nothing, because the next task calls `drop_rows`."""

    def write_out(self) -> int:
        """Do nothing, because the rows are dropped. Returns 0."""
        return 0


# One for each producer, because each stream of the SDK costs two threads.
_muted: weakref.WeakKeyDictionary[Producer, MutedProducer] = weakref.WeakKeyDictionary()


def stand_in(producer: Producer) -> MutedProducer:
    """Return the `MutedProducer` that stands in for `producer`, and make its stream drop rows from now on.

    Raises `DeliveryError` if the SDK takes too long for that.
    """
    found = _muted.get(producer)
    if found is None:
        found = _muted.setdefault(producer, MutedProducer(producer))
    found.drop_rows()
    return found


def stream_of(producer: Producer) -> rr.RecordingStream:
    """Return the stream by which the code in this thread logs to the recording of `producer`.

    While a task runs in this thread whose rows are dropped, this is the stream that drops them.
    """
    context = thread_state.context
    if context is not None and context.producer is _muted.get(producer) is not None:
        return _muted[producer].stream
    return producer.stream
