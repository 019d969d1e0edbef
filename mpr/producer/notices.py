"""Logs once which calls of a task have another effect in a worker than in a program without mpr.

The messages are no Python warnings, because a user's task would fail if warnings are errors.
"""

from __future__ import annotations

import os

from mpr.transport.connection_info import ConnectionInfo
from mpr.user_code import log as _log


class Notices:
    """Logs the notices of one producer.

    Parameters
    ----------
    config:
        The shared recording.
    worker:
        The number of the worker; 0 in a process that is no worker.
    """

    def __init__(self, config: ConnectionInfo, worker: int) -> None:
        self._config = config
        self._property = f"worker_{worker}" if worker else f"process_{os.getpid()}"
        self._inits: set[tuple[str | None, str | None]] = set()
        self._calls: set[str] = set()

    def init(self, application_id: str | None, recording_id: str | None) -> None:
        """Log that `rr.init` in a task changes nothing: rows go to the shared recording, under the shared ids."""
        ids = (application_id, recording_id)
        shared = (self._config.application_id, self._config.recording_id)
        if ids in self._inits or (ids[0] == shared[0] and ids[1] in (None, shared[1])):
            return
        self._inits.add(ids)
        _log.warning(
            "rr.init(%r) in a worker of mpr: its rows go to the shared recording %r (%s). For a recording of its own, "
            "make an rr.RecordingStream.",
            application_id,
            *shared,
        )

    def sink_changed(self, call: str) -> None:
        """Log that rows go to the sink of `rr.save` or a similar call until the end of the task that has called it."""
        if call not in ("disconnect", "shutdown") and self._is_new(call):
            _log.warning(
                "rr.%s() in a task of mpr: until its end its rows go there, and not to the shared recording %r. "
                "Give mpr the sink, and they go to both.",
                call,
                self._config.application_id,
            )

    def sink_skipped(self, call: str) -> None:
        """Log that `rr.save` or a similar call does nothing in a script under `mpr run`."""
        # One message is enough for `rr.spawn`, which calls `rr.connect_grpc` itself.
        if self._is_new(call) and not (call == "connect_grpc" and "spawn" in self._calls):
            _log.warning(
                "rr.%s() under 'mpr run' does nothing: where the rows go is said by the options of 'mpr run'", call
            )

    def recording_info(self, call: str) -> str:
        """Log that a recording name or start time that a task sets becomes a property. Returns the property's name."""
        if self._is_new(call):
            _log.warning(
                "rr.%s() in a worker of mpr: the recording is that of all workers, so this becomes the property %s. "
                "In the parent, recording.stream.%s() is for all.",
                call,
                self._property,
                call,
            )
        return self._property

    def _is_new(self, call: str) -> bool:
        is_new = call not in self._calls
        self._calls.add(call)
        return is_new
