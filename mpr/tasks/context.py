"""Gives a task its own times, prefix, recording and settings, in a thread that the task shares with other code.

The SDK keeps one set of times for each pair of a thread and a recording. The caller of a task, and other tasks, may use
the same thread and the same recording as the task. So before each step of a task, mpr replaces the times of the caller
by the times of the task. After the step, mpr restores the times of the caller. The same is done for settings of the
SDK, such as its strict mode. A step is the whole function, or a generator or coroutine up to its next pause.

Covers: one task in one thread.
Does not cover: which recording the task has (`execution.py`), logging calls of the whole process
(`producer/process_capture.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mpr.producer import membership, router
from mpr.producer.muted import MutedProducer
from mpr.producer.route_state import thread_state
from mpr.sdk import log_calls, recordings, times
from mpr.sdk.settings import ChangedSettings
from mpr.user_code import around

if TYPE_CHECKING:
    from mpr.producer.producer import Producer
    from mpr.sdk.recordings import Ids
    from mpr.sdk.times import Times


class TaskContext:
    """Holds the times, prefix, recording and settings of one task, and sets them during each step of the task.

    Parameters
    ----------
    producer:
        The producer of the recording that the task logs to, or its stand-in that drops the rows. None for the current
        recording.
    prefix:
        The path that is put before the entity paths of the task; None for none.
    """

    def __init__(self, producer: Producer | MutedProducer | None, prefix: str | None = None) -> None:
        self.producer = producer
        #: True if the rows of the task are dropped.
        self.is_muted: bool = isinstance(producer, MutedProducer)
        self._pid = os.getpid()
        self._native: Any = None
        #: The ids of the recording to which the task logs; None if there is none.
        self.ids: Ids | None = None
        #: The thread's recording during the task; None if plain `rr.log` reaches the task's recording in any case.
        self._thread_recording: Any = None
        #: The handles of two recordings: that of the process before the task has made another one current for the whole
        #: process, and this other one. None if the task has not done this.
        self._globals: tuple[Any, Any] | None = None
        self._times: Times = {}
        # What `ThreadRoute.current` was when the step began.
        self._current_before: Any = None
        #: The settings of the SDK that the task has changed.
        self.settings: ChangedSettings = ChangedSettings()
        router.install_times()
        if producer is None:
            self._native, self.ids = recordings.current_recording()
            self._has_recording = False
        else:
            self._native, self.ids = producer.stream.to_native(), producer.ids
            self._has_recording = True
            # In a process that is no worker, a wrapped function in another thread may change the process's recording.
            if not membership.make_current(producer) or not producer.worker:
                self._thread_recording = self._native
        if prefix is not None or producer is not None:
            router.install_entries()
        if producer is not None:
            router.install_take_over()
        self.prefix: log_calls.Prefix | None = None
        if prefix is not None and self.ids is not None:
            self.prefix = log_calls.Prefix(prefix.strip("/"), self.ids)
        self._entered_before = 0 if producer is None else producer.log_counters.entered

    @property
    def forked(self) -> bool:
        """True in a forked process, which has a copy of this object. The task belongs to the process that made it."""
        return os.getpid() != self._pid

    @property
    def has_logged(self) -> bool:
        """True if `producer` has counted a logging call since the task began. False if `producer` is None."""
        return self.producer is not None and self.producer.log_counters.entered != self._entered_before

    def is_as_new(self) -> bool:
        """Return True if another task can run in the present step, as if the step had just begun.

        This is the case if the task has set no times, changed no setting and made no other recording current. Rows that
        the task has logged do not matter. If mpr cannot watch the current recording, False is returned.
        """
        return (
            not self._times
            and not self.settings.has_changed()
            and self._globals is None
            and thread_state.current is self._current_before
            and router.current_is_watched()
        )

    def note_global(self, handle: Any) -> None:
        """Note that the task makes the recording with this `handle` current in the whole process, until its step ends.

        Call this before the change. `handle` is None if the process is to have no current recording.
        """
        before = recordings.current_handles()[1] if self._globals is None else self._globals[0]
        self._globals = before, handle

    @around
    def step(self) -> Iterator[None]:
        """Set the times, the prefix, the recording and the settings of the task within the `with` block.

        After the block, restore what the caller had. A process that the block has forked restores nothing.
        """
        outer_context = thread_state.context
        outer_recording = recordings.exchange_thread_recording(self._thread_recording) if self._has_recording else None
        outer_times = self._exchange_times(self._times)
        self.settings.redo()
        self._current_before = thread_state.current
        # Set last and put back first, because the other steps may raise. Then the thread must not stay in the task.
        thread_state.context = self
        yield
        if not self.forked:
            thread_state.context = outer_context
            self.settings.undo()
            self._times = self._exchange_times(outer_times)
            if self._has_recording:
                self._thread_recording = recordings.exchange_thread_recording(outer_recording)
                self._restore_global()

    def _restore_global(self) -> None:
        if self._globals is None:
            return
        (before, chosen), self._globals = self._globals, None
        # Other code may have chosen yet another one meanwhile.
        if recordings.global_ids() == (None if chosen is None else recordings.ids_of(chosen)):
            recordings.exchange_global_recording(before)

    def _exchange_times(self, new: Times) -> Times:
        if self.ids is None:
            return {}
        old = thread_state.times.get(self.ids, {})
        times.change_times(self._native, old, new)
        thread_state.times[self.ids] = new
        return old
