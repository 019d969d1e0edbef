"""Keeps what a script under `mpr run` has called, as far as later calls depend on it.

The rows that a script logs after `rr.init` go to the recording of the command. If a script has not called `rr.init`,
the first recording that it makes and shows in a viewer goes there too.

Covers: the times of a thread after `rr.init`, and which recording of the script goes to the command's recording.
Does not cover: which calls are skipped (`router.py`), texts (`notices.py`), and the rows (`task_recordings.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from mpr.sdk import times

if TYPE_CHECKING:
    from mpr.producer.routed import RoutedProducer
    from mpr.sdk.recordings import Ids
    from mpr.sdk.sink_calls import SinkCall
    from mpr.sdk.times import Times

#: The application id and the recording id that `rr.init` got.
_Init: TypeAlias = tuple[str | None, str | None]


class _OfThread(threading.local):
    def __init__(self) -> None:
        #: The `rr.init` to which the present times of the thread belong.
        self.init: _Init | None = None
        self.times: dict[_Init | None, Times] = {}


class RunCalls:
    """Keeps the calls of the script in this process. Any thread may call the methods."""

    def __init__(self) -> None:
        self._init: _Init | None = None
        # The times of a thread for recordings that are not the current one now.
        self._kept = _OfThread()
        self._shown: Ids | None = None

    def note_init(self, init: _Init, producer: RoutedProducer, times_of: dict[Ids, Times]) -> None:
        """Note a call of `rr.init`, and restore the times that this thread has set after a call with these arguments.

        If there was no such call, the thread then has no times. The reason: without mpr, `rr.init` with other arguments
        begins another recording, which has its own times. If the thread's present times belong to these arguments, the
        times stay. `init` has the arguments of `rr.init`. `times_of` has the times of this thread, by the ids of the
        recording, and is updated. Also logs the warning of `Notices.init_in_run`, if it is due.
        """
        producer.notices.init_in_run(*init)
        if self._init != init:
            self._init = init
        self.restore_times(producer, times_of)

    def is_behind(self) -> bool:
        """Return True if another thread has called `rr.init`, and this thread has the times from before that call."""
        return self._kept.init is not self._init

    def restore_times(
        self, producer: RoutedProducer, times_of: dict[Ids, Times], changed: Callable[[], None] | None = None
    ) -> None:
        """Replace the times of this thread by the times for the arguments of the last `rr.init` (see `note_init`).

        If the SDK has just changed one of the times, `changed()` makes the same change in `times_of`.
        """
        before, self._kept.init = self._kept.init, self._init
        if before != self._init:
            self._kept.times[before] = times_of.get(producer.ids, {})
            times_of[producer.ids] = self._kept.times.pop(self._init, {})
            present = dict(self._kept.times[before])
            if changed is not None:
                changed()
            times.change_times(producer.stream.to_native(), present, times_of[producer.ids])

    def skip_viewer(self, call: SinkCall, handle: Any, producer: RoutedProducer) -> None:
        """Handle a skipped `call` that shows a recording of the script itself, and log a warning.

        If the script has not called `rr.init`, the rows of the first such recording of this process go to the recording
        of the command. `handle` is the handle of the recording; None if mpr does not know it.
        """
        assert call.ids is not None, "the caller has checked it"
        # `spawn` only starts a viewer. Another call, which is skipped too, connects to the viewer.
        if call.name != "spawn":
            if self._shown is None and self._init is None:
                self._shown = call.ids
            if self._shown == call.ids:
                producer.notices.begun(*call.ids)
                producer.task_recordings.share(handle, producer.ids)
        is_apart = call.name != "spawn" and self._shown != call.ids
        producer.notices.sink_skipped(call.name, call.ids if is_apart else None)
