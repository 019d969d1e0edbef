"""Makes the SDK change the sink of a stream, within a limited time.

Covers: the wait for the SDK, which finishes the old sink before it changes to another one.
Does not cover: which sinks there are (`outbox_writer.py`, `direct.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from mpr.sdk.internal import internal
from mpr.threads import BoundedThread

# The longest time that the SDK may take to change a sink (seconds). It takes milliseconds, but a machine may be busy.
SINK_CHANGE_SECS = 30.0


class SinkChanges:
    """Changes the sinks of one stream, in a thread of its own.

    The caller's wait has a limit, because the SDK waits for ever if the old sink accepts nothing: a viewer that does
    not read, or a file whose writing thread has ended.
    """

    def __init__(self) -> None:
        self._thread = BoundedThread("mpr-sinks")
        self._failure = ""

    def failure_of(self, change: Callable[[], object]) -> str:
        """Call `change`, which changes the sink. Returns an empty text, or the reason if `change` takes over 30 s.

        Once a `change` has taken over 30 s, later calls of this method do not call their `change`, and return the same
        reason. Errors of `change` are raised.
        """

        def step() -> None:
            with internal():
                change()

        if not self._failure and not self._thread.do(step, SINK_CHANGE_SECS):
            self._failure = f"the SDK has waited {SINK_CHANGE_SECS:.0f} s for the end of its last sink"
        return self._failure

    def close(self) -> None:
        """Make the thread end. Does not wait for it."""
        self._thread.close()
