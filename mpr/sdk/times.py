"""Watches the times that a thread sets for a recording, and removes or restores these times."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

#: A function of the SDK that sets a time, called with `(timeline, value, recording)`.
SetTime: TypeAlias = Callable[..., None]
#: The times of one thread for one recording: for each timeline, the function that sets the time, and the value.
Times: TypeAlias = dict[str, tuple[SetTime, Any]]


# The SDK's functions that set a time of a thread for a recording.
_SET_TIME = ("set_time_sequence", "set_time_duration_nanos", "set_time_timestamp_nanos_since_epoch")


def watch_times(noted: Callable[[str | None, str | None, tuple[SetTime, Any] | None], None]) -> None:
    """Call `noted(recording id, timeline, (function, value))` whenever a thread of this process sets a time.

    The pair is None if the time was removed. The timeline is None if all times were removed. The calls are watched,
    because the SDK has no function that returns the times of a thread.
    """
    import rerun_bindings

    def watched_set(original: SetTime) -> SetTime:
        @functools.wraps(original)
        def call(timeline: str, value: Any, recording: Any = None) -> None:
            original(timeline, value, recording)
            noted(rerun_bindings.get_recording_id(recording), timeline, (original, value))

        return call

    disable_timeline, reset_time = rerun_bindings.disable_timeline, rerun_bindings.reset_time

    @functools.wraps(disable_timeline)
    def watched_disable(timeline: str, recording: Any = None) -> None:
        disable_timeline(timeline, recording)
        noted(rerun_bindings.get_recording_id(recording), timeline, None)

    @functools.wraps(reset_time)
    def watched_reset(recording: Any = None) -> None:
        reset_time(recording)
        noted(rerun_bindings.get_recording_id(recording), None, None)

    for name in _SET_TIME:
        setattr(rerun_bindings, name, watched_set(getattr(rerun_bindings, name)))
    rerun_bindings.disable_timeline = watched_disable
    rerun_bindings.reset_time = watched_reset


def change_times(native: Any, old: Times, new: Times) -> None:
    """Remove the times `old` of this thread for the recording `native`, and set the times `new`."""
    import rerun_bindings

    disable_timeline = inspect.unwrap(rerun_bindings.disable_timeline)
    for timeline in old:
        if timeline not in new:
            disable_timeline(timeline, native)
    for timeline, (how, value) in new.items():
        how(timeline, value, native)
