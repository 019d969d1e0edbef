"""Logs once which calls of the SDK have another effect in a process of a recording than in a program without mpr.

Covers: the words. Each message names the call that the user's code has made, and says what happens to its rows.
Does not cover: what happens (`router.py`).

The messages are no Python warnings, because a user's task would fail if warnings are errors.
"""

from __future__ import annotations

import logging
import os

from mpr.producer.router import thread_state
from mpr.sdk.callers import public_call
from mpr.transport.connection_info import ConnectionInfo

_log = logging.getLogger("mpr")

# Calls whose destination a user can also give to mpr.
_HAS_A_SINK = ("save", "set_sinks", "connect_grpc", "serve_grpc")
# Calls that return the rows to their caller.
_RETURNS_ROWS = ("binary_stream", "memory_recording", "set_callback_sink")


class Notices:
    """Logs the notices of one producer.

    Only call the methods within a wrapper of the SDK's call, because they look for the caller.

    Parameters
    ----------
    config:
        The shared recording.
    worker:
        The number of the worker; 0 in a process that is no worker.
    """

    def __init__(self, config: ConnectionInfo, worker: int) -> None:
        self._config = config
        self._worker = worker
        self._property = f"worker_{worker}" if worker else f"process_{os.getpid()}"
        self._inits: set[tuple[str | None, str | None]] = set()
        self._said: set[str] = set()

    def init(self, application_id: str | None, recording_id: str | None) -> None:
        """Log that `rr.init` in a task changes nothing: rows go to the shared recording, under the shared ids."""
        ids = (application_id, recording_id)
        shared = (self._config.application_id, self._config.recording_id)
        if ids in self._inits or (ids[0] == shared[0] and ids[1] in (None, shared[1])):
            return
        self._inits.add(ids)
        _log.warning(
            "%s with the application id %r in %s of mpr: its rows go to the shared recording %r (%s). For a recording "
            "of its own, make an rr.RecordingStream.",
            public_call("new_recording"),
            application_id,
            self._place(),
            *shared,
        )

    def init_in_run(self, application_id: str | None, recording_id: str | None) -> None:
        """Log that a script under `mpr run` has chosen a recording id, and that its rows are in the one recording."""
        if recording_id in (None, self._config.recording_id) or not self._is_new("recording id"):
            return
        _log.warning(
            "%s under 'mpr run' chooses the recording id %r (application id %r): all processes of the command have one "
            "recording, %r (%s), and its rows are there. For a recording of its own, make an rr.RecordingStream.",
            public_call("new_recording"),
            recording_id,
            application_id,
            self._config.application_id,
            self._config.recording_id,
        )

    def sink_changed(self, call: str) -> None:
        """Log that rows go to the sink of `rr.save` or a similar call until the end of the task that has called it."""
        # To a terminal, the SDK writes nothing, and keeps the rows for the next sink.
        if call in ("disconnect", "shutdown") or (call == "stdout" and os.isatty(1)):
            return
        made = public_call(call)
        if not self._is_new(made):
            return
        until = "until its end" if self._in_task() else "from now on"
        goal = "to what the call returns" if call in _RETURNS_ROWS else "there"
        hint = " Give mpr the sink, and they go to both." if call in _HAS_A_SINK else ""
        _log.warning(
            "%s in %s of mpr: %s its rows go %s, and not to the shared recording %r.%s",
            made,
            self._place(),
            until,
            goal,
            self._config.application_id,
            hint,
        )

    def sink_skipped(self, call: str) -> None:
        """Log that `rr.save` or a similar call in a script under `mpr run` does not choose where rows go."""
        made = public_call(call)
        if self._is_new(made):
            what = "gives no rows" if call in _RETURNS_ROWS else "does not choose where the rows go"
            _log.warning("%s under 'mpr run' %s: the options of 'mpr run' say where they go", made, what)

    def recording_info(self, call: str) -> str | None:
        """Log that a recording name or start time that a task sets becomes a property. Returns the property's name.

        Returns None, and logs nothing, if the recording of a task is its own.
        """
        if self._config.keeps_apart and self._worker:
            return None
        made = public_call(call)
        if self._is_new(made):
            _log.warning(
                "%s in %s of mpr: the recording is that of all processes, so this becomes the property %s. "
                "In the parent, recording.stream.%s() is for all.",
                made,
                self._place(),
                self._property,
                call.removesuffix("_nanos"),
            )
        return self._property

    def _in_task(self) -> bool:
        """Whether the present call was made in a task. A worker does nothing else."""
        return bool(self._worker) or thread_state.context is not None

    def _place(self) -> str:
        return "a task" if self._in_task() else "a process"

    def _is_new(self, said: str) -> bool:
        is_new = said not in self._said
        self._said.add(said)
        return is_new
