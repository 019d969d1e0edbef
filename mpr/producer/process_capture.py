"""Sends the rows that this process logs while a wrapped function runs to the recording of the function.

A wrapped function is a result of `SharedRecording.wrap`. When the function has ended, the process logs where it logged
before.

Covers: wrapped functions in a process of another engine, such as a Dask or Ray worker.
Does not cover: joining and leaving (`membership.py`), the times and the prefix of the function (`tasks/context.py`).

A membership and a capture are two things. A *membership* connects the process with a recording. It lasts until the
recording is closed, so that the next call need not join again. A *capture* sends the rows of the process to the
recording. It lasts as long as a call of a wrapped function runs:

```
first call begins ─► plain rr.log, rr.init and new threads log to the recording, children inherit its connection info
last call ends    ─► the earlier current recording, environment and routes are restored
```

- Calls of the same recording share a capture, which ends with the last call. Calls may run in several threads.
- If calls of two recordings run at the same time, each body logs to its own recording. Other threads log to the
  recording of the call that began first. When the capture of that recording ends, these threads log to the other
  recording.
- A generator captures while one of its steps runs. A coroutine captures from its start to its end, because threads log
  for it while it waits. An async generator captures while its caller waits for a value.
- If a worker of a pool calls a wrapped function, only children of the worker inherit the function's recording. Other
  threads of the worker log to the recording of the pool.
- A capture affects the whole process. So a thread of other code that logs at the same moment is captured too, unless it
  logs to a recording of its own. Such a thread uses `rr.set_thread_local_data_recording`, `with stream:`, or an
  argument `recording`.
- A decorated function in such a thread logs to the recording that the process inherited, if there is one and the thread
  ran before the capture.
- A thread that continues after the end of the call logs to the recording that is current then. If there is none, its
  rows are lost, and mpr logs this once for the thread. Rows that the thread has logged before the end of the call are
  in the sinks.
- If the rows of a call are dropped (`muted.py`), the call captures nothing. Only its children inherit the recording.
- A child that is forked within a call has no capture. Like every child, it inherits the connection info.
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
    """Describes the capture for one recording: the calls of its wrapped functions that run in this process.

    Attributes
    ----------
    producer:
        The producer of the recording.
    calls:
        The number of calls that run.
    routed_calls:
        The number of those of these calls for which the process logs to the recording.
    threads:
        The threads of this process that ran before the first of these calls.
    text_before:
        The connection info that this process had before; None for none.
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
        """Return the threads that were started during the capture and still run, except those of mpr."""
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
        """Return the connection info for a decorated function that runs in the present thread; None for none."""
        first = next(iter(self._active), None)
        if first is not None and first.text_before is not None and threading.current_thread() in first.threads:
            return first.text_before
        return propagation.extract()

    @around
    def hold(self, producer: Producer, *, routes: bool) -> Iterator[None]:
        """Send the rows that this process logs within the `with` block to the recording of `producer`.

        Processes that are started within the block can join the recording. If `routes` is false, this process still
        logs where it logged before, and only the processes that it starts can log to the recording.
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
        """Give the logging calls of the process to the first capture that wants them, if none has them yet."""
        before = self._routed
        if before is not None and before.routed_calls:
            return
        self._routed = next((each for each in self._active if each.routed_calls), None)
        if self._routed is not None:
            router.capture(self._routed.producer)
        elif before is not None:
            router.end_capture(before.new_threads())
