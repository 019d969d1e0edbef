"""Sends the rows that this process logs while a wrapped function runs to the recording of the function.

A *wrapped function* is a result of `SharedRecording.wrap`. A *capture* begins with the first running call of a
recording's wrapped functions, and ends with the last one:

```
first call begins ─► plain rr.log, rr.init and new threads log to the recording, children inherit its connection info
last call ends    ─► the earlier current recording, environment and routes are restored
```

- Plain logging calls of all threads are captured, except of threads with a current recording of their own, such as by
  `with stream:`.
- If calls of two recordings run at the same time, each body logs to its own recording. Other threads log to the
  recording that was captured first. When its capture ends, these threads log to the other recording.
- In a worker of a pool, and if the rows of the call are dropped (`muted.py`), no logging call is captured. Only
  children inherit the recording.

Covers: wrapped functions in a process of an engine, such as a Dask or Ray worker.
Does not cover: joining and leaving (`membership.py`), the times and the prefix of the function (`tasks/context.py`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

from mpr.producer import propagation, router
from mpr.producer.producer import Producer
from mpr.transport import connection_info
from mpr.user_code import around


class _ProcessCapture:
    """The capture for one recording.

    Attributes
    ----------
    producer:
        The producer of the recording.
    calls:
        The number of calls of wrapped functions of this recording that run in this process.
    routed_calls:
        The number of these calls that began with `routes=True` (see `ProcessCaptures.hold`).
    threads:
        The threads of this process that ran when the capture began.
    text_before:
        The connection info that this process had before the capture; None for none.
    propagation:
        Gives children of this process the connection info of the recording.
    """

    def __init__(self, producer: Producer) -> None:
        self.producer = producer
        self.calls = 0
        self.routed_calls = 0
        self.threads = set(threading.enumerate())
        self.text_before = propagation.extract()
        self.propagation = propagation.Propagation(connection_info.to_text(producer.config))

    def new_threads(self) -> list[threading.Thread]:
        """Return the running threads that are younger than the capture, except those with a name `mpr-...`."""
        return [each for each in threading.enumerate() if each not in self.threads and not each.name.startswith("mpr-")]


class ProcessCaptures:
    """Keeps the captures of this process. Any thread may call the methods."""

    def __init__(self) -> None:
        #: Held while a capture begins or ends. Other code holds it to change the current recording, so that no capture
        #: begins meanwhile. Reentrant, because a handler of a signal may call a wrapped function, too.
        self.lock: threading.RLock = threading.RLock()
        self._pid = os.getpid()
        # In the order in which they began.
        self._active: list[_ProcessCapture] = []
        #: The capture that has the logging calls of the process; None if there is none.
        self._routed: _ProcessCapture | None = None

    def __bool__(self) -> bool:
        """Return True if a call of a wrapped function runs in this process."""
        return bool(self._active)

    def is_captured(self, producer: Producer) -> bool:
        """Return True if a call of a wrapped function of the recording of `producer` runs in this process."""
        return any(each.producer is producer for each in self._active)

    def inherited_text(self) -> str | None:
        """Return the connection info for a decorated function that runs in the present thread; None for none.

        If the present thread ran already when the oldest capture began, this is the connection info from before that
        capture, unless there was none.
        """
        first = next(iter(self._active), None)
        if first is not None and first.text_before is not None and threading.current_thread() in first.threads:
            return first.text_before
        return propagation.extract()

    @around
    def hold(self, producer: Producer, *, routes: bool) -> Iterator[None]:
        """Capture the plain logging calls of this process for the recording of `producer`, within the `with` block.

        Processes that are started within the block inherit the recording. If `routes` is false, nothing else is done:
        no logging call is captured. If another capture has the logging calls already, it keeps them until it ends.
        """
        capture = self._begin(producer, routes=routes)
        yield
        # A forked child that leaves the block has nothing to put back.
        if os.getpid() == self._pid:
            self._end(capture, routes=routes)

    def _begin(self, producer: Producer, *, routes: bool) -> _ProcessCapture:
        with self.lock:
            capture = next((each for each in self._active if each.producer is producer), None)
            if capture is None:
                capture = _ProcessCapture(producer)
                self._active.append(capture)
            capture.calls += 1
            capture.routed_calls += routes
            self._route()
            return capture

    def _end(self, capture: _ProcessCapture, *, routes: bool) -> None:
        with self.lock:
            capture.calls -= 1
            capture.routed_calls -= routes
            if not capture.calls:
                self._active.remove(capture)
                capture.propagation.close()
            self._route()

    def _route(self) -> None:
        """Give the plain logging calls to the first capture with `routed_calls`, unless another such capture has them.

        If no capture has `routed_calls`, restore the earlier route.
        """
        before = self._routed
        if before is not None and before.routed_calls:
            return
        self._routed = next((each for each in self._active if each.routed_calls), None)
        if self._routed is not None:
            router.capture(self._routed.producer)
        elif before is not None:
            router.end_capture(before.new_threads())
