"""Keeps track of the recordings that user code of this process has made itself, beside the shared recording.

Under `mpr run`, a process joins at the latest at its first logging call. A script may make recordings before that.

Covers: recordings with the ids of the shared one, and recordings that were made before this process has joined.
Does not cover: the rows of such recordings (`task_recordings.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from mpr.sdk import recordings
from mpr.sdk.recordings import Ids
from mpr.user_code import around

# The value of `sys.getrefcount` for a handle that only a list and a loop over the list refer to.
_LIST_REFERENCES = 3


class MadeRecordings:
    def __init__(self) -> None:
        # Recordings that have the ids of a shared recording. Such a stream has its own sinks.
        self._twins: list[Any] = []
        # Recordings that were made before this process has joined: those without a sink, and the ids of all.
        self._waiting: list[Any] = []
        self._ids: set[Ids | None] = set()

    def add_twin(self, inner: Any) -> None:
        """Note the recording with the handle `inner`, which has the ids of a shared recording."""
        # Three references are left if no other code holds a handle: list, loop, and argument of `getrefcount`.
        self._twins[:] = [each for each in self._twins if sys.getrefcount(each) > _LIST_REFERENCES]
        self._twins.append(inner)

    def is_twin(self, inner: Any) -> bool:
        """Return True if `inner` is the handle of a recording that was given to `add_twin`."""
        return any(inner is each for each in self._twins)

    def add_waiting(self, inner: Any) -> None:
        """Note the recording with the handle `inner`, which was made before this process has joined."""
        self._waiting.append(inner)
        self._ids.add(recordings.ids_of(inner))

    def got_sink(self, inner: Any, ids: Ids | None) -> None:
        """Note that user code gives the recording with these `ids` a sink before this process has joined.

        `inner` is the handle of the recording; None if mpr does not know it. `take_waiting` does not return the handle
        of a recording with a sink.
        """
        # If it is not known which one of several recordings is meant, then it is most likely the last one.
        for each in recordings.handles_of(ids, self._waiting, inner)[-1:]:
            self._waiting.remove(each)

    def take_waiting(self) -> list[Any]:
        """Return the handles of the recordings without a sink that were made before joining, and forget them."""
        waiting, self._waiting = self._waiting, []
        self._ids.clear()
        return waiting

    @around
    def kept_current(self) -> Iterator[None]:
        """Return a context manager for a block in which the process joins.

        If a recording that `add_waiting` has noted was current before the block, for the thread or for the process, it
        is current again after the block.
        """
        handles = recordings.current_handles()
        of_thread, of_all = (each is not None and recordings.ids_of(each) in self._ids for each in handles)
        yield
        if of_all:
            recordings.make_global(handles[1])
        if of_thread:
            recordings.exchange_thread_recording(handles[0])
