"""What a task has of its own while it runs in a thread that is not its own: its times, its prefix, its recording.

The SDK keeps the times of a (thread, recording), so a task that shares both with its caller, or with other generators
and coroutines, has its times put in place before each of its steps and taken away after it. So each has its own, and
the caller finds its times as they were.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mpr.producer import router
from mpr.producer.router import thread_state
from mpr.sdk import log_calls, recordings, times

if TYPE_CHECKING:
    from mpr.producer.producer import Producer
    from mpr.sdk.times import Times


class TaskContext:
    """The context of one task.

    Parameters
    ----------
    producer:
        Whose recording the task logs to; None for whatever is the current recording.
    prefix:
        What comes before the entity paths of the task.
    """

    def __init__(self, producer: Producer | None, prefix: str | None = None) -> None:
        self.producer = producer
        self._pid = os.getpid()
        self._native: Any = None
        self._recording_id: str | None = None
        #: This task's own recording of the thread, where plain `rr.log` would not go to its recording otherwise.
        self._thread_recording: Any = None
        self._times: Times = {}
        router.install_times()
        if producer is None:
            self._native, self._recording_id = recordings.current_recording()
            self._has_recording = False
        else:
            self._native, self._recording_id = producer.stream.inner, producer.config.recording_id
            self._has_recording = True
            if router.producer() is producer:
                recordings.make_current(producer.stream)
            else:
                self._thread_recording = self._native
        if prefix is not None or producer is not None:
            router.install_entries()
        self.prefix = None
        if prefix is not None and self._recording_id is not None:
            self.prefix = log_calls.Prefix(prefix.strip("/"), self._recording_id)
        self._entered_before = 0 if producer is None else producer.log_counters.entered

    @property
    def forked(self) -> bool:
        """Whether this is a copy in a forked process, where the task is somebody else's."""
        return os.getpid() != self._pid

    @property
    def has_logged(self) -> bool:
        """Whether anything was logged to the producer since the task began."""
        return self.producer is not None and self.producer.log_counters.entered != self._entered_before

    @contextmanager
    def step(self) -> Iterator[None]:
        """Within, the task runs."""
        outer_context, thread_state.context = thread_state.context, self
        outer_recording = recordings.exchange_thread_recording(self._thread_recording) if self._has_recording else None
        outer_times = self._exchange_times(self._times)
        try:
            yield
        finally:
            if not self.forked:
                self._times = self._exchange_times(outer_times)
                if self._has_recording:
                    self._thread_recording = recordings.exchange_thread_recording(outer_recording)
                thread_state.context = outer_context

    def _exchange_times(self, new: Times) -> Times:
        if self._recording_id is None:
            return {}
        old = thread_state.times.get(self._recording_id, {})
        times.change_times(self._native, old, new)
        thread_state.times[self._recording_id] = new
        return old
