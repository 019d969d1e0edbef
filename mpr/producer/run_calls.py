"""Keeps what a script under `mpr run` has called, as far as later calls depend on it.

All processes of the command have one recording. What `rr.init` begins is in this recording. The first recording of the
script itself whose rows a viewer would show is in it too, if the script does not use `rr.init`.

Covers: the times of a thread after `rr.init`, and which recording of the script is in that of the command.
Does not cover: which calls are skipped (`router.py`), texts (`notices.py`), and the rows (`task_recordings.py`).
"""

from __future__ import annotations

import threading
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
        self.times: dict[_Init | None, Times] = {}


class RunCalls:
    """Keeps the calls of the script in this process. Any thread may call the methods."""

    def __init__(self) -> None:
        self._init: _Init | None = None
        # The times of a thread for recordings that are not the current one now.
        self._kept = _OfThread()
        self._shown: Ids | None = None

    def note_init(self, init: _Init, producer: RoutedProducer, times_of: dict[Ids, Times]) -> None:
        """Give this thread the times that it has set for the recording which a call of `rr.init` begins.

        Without mpr, another recording begins without times. The times of other threads stay. `init` has the arguments
        of `rr.init`, and `times_of` the times of this thread, by the ids of the recording.
        """
        producer.notices.init_in_run(*init)
        before, self._init = self._init, init
        if before != init:
            self._kept.times[before] = present = times_of.get(producer.ids, {})
            times_of[producer.ids] = found = self._kept.times.pop(init, {})
            times.change_times(producer.stream.to_native(), present, found)

    def skip_viewer(self, call: SinkCall, handle: Any, producer: RoutedProducer) -> None:
        """Keep the rows that `call` would show, because it is skipped. They are of a recording of the script itself.

        The first such recording of this process is in the recording of the command, unless the script has called
        `rr.init`. The others stay apart. `handle` is the handle of the recording, as far as it is known.
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
