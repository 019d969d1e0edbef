"""Watches the times that a thread sets for a recording, and removes or restores these times.

A handle is the SDK's object that stands for one recording.

Covers: the functions of the SDK that set or remove a time of a thread.
Does not cover: the choice of the times of a task (`tasks/context.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

from mpr.sdk import private_names, recordings
from mpr.sdk.recordings import Ids

#: A function of the SDK that sets a time, called with `(timeline, value, recording)`.
SetTime: TypeAlias = Callable[..., None]
#: The times of one thread for one recording: for each timeline, the function that sets the time, and the value.
Times: TypeAlias = dict[str, tuple[SetTime, Any]]


# The SDK's functions that set a time of a thread for a recording, and those that remove times.
_SET_TIME = ("set_time_sequence", "set_time_duration_nanos", "set_time_timestamp_nanos_since_epoch")
_REMOVE_TIME = ("disable_timeline", "reset_time")


def watch_times(noted: Callable[[Ids | None, str | None, tuple[SetTime, Any] | None], None]) -> None:
    """Call `noted(ids, timeline, time)` after a thread of this process has set or removed a time.

    `ids` are the ids of the recording; None if there is no recording. `time` is a pair `(function, value)`, and
    `function(timeline, value, recording)` sets the time again. If the time of `timeline` was removed, `time` is None.
    If all times were removed, `timeline` and `time` are None.

    If a release of the SDK lacks one of the functions that set or remove times, nothing is watched, because times that
    are only partly known cannot be restored.
    """
    if any(private_names.find(name) is None for name in (*_SET_TIME, *_REMOVE_TIME)):
        return
    ids_of = recordings.ids_function()

    def watched_set(original: SetTime) -> SetTime:
        @functools.wraps(original)
        def call(timeline: str, value: Any, recording: Any = None) -> None:
            __tracebackhide__ = True
            original(timeline, value, recording)
            noted(ids_of(recording), timeline, (original, value))

        return call

    def watched_disable(original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def call(timeline: str, recording: Any = None) -> None:
            __tracebackhide__ = True
            original(timeline, recording)
            noted(ids_of(recording), timeline, None)

        return call

    def watched_reset(original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def call(recording: Any = None) -> None:
            __tracebackhide__ = True
            original(recording)
            noted(ids_of(recording), None, None)

        return call

    for name in _SET_TIME:
        private_names.wrap(name, watched_set)
    private_names.wrap("disable_timeline", watched_disable)
    private_names.wrap("reset_time", watched_reset)


def change_times(native: Any, old: Times, new: Times) -> None:
    """Replace the times `old` of this thread by the times `new`, for the recording with the handle `native`.

    `watch_times` does not report this change.
    """
    for timeline in old:
        if timeline not in new:
            private_names.original("disable_timeline")(timeline, native)
    for timeline, (how, value) in new.items():
        how(timeline, value, native)
