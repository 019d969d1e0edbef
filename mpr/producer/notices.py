"""Warns once for each SDK call that has another effect in a process of a recording than in a program without mpr.

Covers: the texts. Each message names the call that the user's code has made, and says which recording gets the rows.
Does not cover: which recording gets the rows (`router.py` decides that).

The messages go to the logger `mpr`. They are no Python `warnings`, which a program may turn into errors.
"""

from __future__ import annotations

import os

from mpr.producer.route_state import thread_state
from mpr.sdk.callers import public_call
from mpr.transport.connection_info import ConnectionInfo
from mpr.user_code import log as _log

# Calls whose destination a user can also give to mpr.
_HAS_A_SINK = ("save", "set_sinks", "connect_grpc", "serve_grpc")
# Calls that return the rows to their caller.
_RETURNS_ROWS = ("binary_stream", "memory_recording", "set_callback_sink")


class Notices:
    """Logs the warnings of one producer. The same warning is logged only once.

    The methods that log search the stack for the call that the user's code has made. So only the wrappers of the SDK's
    functions may call them.

    Parameters
    ----------
    config:
        The connection info of the shared recording.
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
        """Warn that `rr.init` makes no new recording here, and that the rows go to the shared recording.

        The arguments are those of `rr.init`. Nothing is logged if the same arguments were used before, or if they are
        the ids of the shared recording. A `recording_id` of None counts as the shared recording's id.
        """
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
        """Warn that rows of a script under `mpr run` go to the shared recording, although `rr.init` names another one.

        At most one such warning is logged. The arguments are those of `rr.init`. If `recording_id` is the id of the
        shared recording, nothing is logged. If it is None, nothing is logged for the first pair of arguments in this
        process, or for a pair that was used before.
        """
        ids = (application_id, recording_id)
        begins_another = bool(self._inits) and ids not in self._inits
        self._inits.add(ids)
        if recording_id == self._config.recording_id or (recording_id is None and not begins_another):
            return
        if not self._is_new("recording id"):
            return
        _log.warning(
            "%s under 'mpr run' %s (application id %r): all processes of the command have one recording, %r (%s), and "
            "its rows are there. For a recording of its own, make an rr.RecordingStream that is not the default one.",
            public_call("new_recording"),
            "begins another recording" if recording_id is None else f"chooses the recording id {recording_id!r}",
            application_id,
            self._config.application_id,
            self._config.recording_id,
        )

    def begun(self, application_id: str | None, recording_id: str | None) -> None:
        """Note that rows which a script has logged to the recording with these ids are in the recording of `mpr run`.

        `init_in_run` then treats these ids as arguments of an earlier `rr.init`.
        """
        self._inits.add((application_id, recording_id))

    def sink_changed(self, call: str) -> None:
        """Warn that user code has changed the sink, and that the shared recording does not get the next rows.

        `call` is the name of the SDK's function that changes the sink, such as "save". Nothing is logged for
        "disconnect" and "shutdown", which set no other sink, and for "stdout" if it is a terminal, to which the SDK
        writes nothing.
        """
        # To a terminal, the SDK writes nothing, and keeps the rows for the next sink.
        if call in ("disconnect", "shutdown") or (call == "stdout" and os.isatty(1)):
            return
        made = public_call(call)
        if not self._is_new(made):
            return
        until = "until its end" if self._in_task() else "until the end of its next task"
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

    def sink_skipped(self, call: str, apart: tuple[str | None, str] | None = None) -> None:
        """Warn that the SDK's function `call`, such as "save", does not choose the sink in a script under `mpr run`.

        `apart` has the ids of the script's recording if its rows are not in the recording of the command; None if they
        are.
        """
        made = public_call(call)
        if self._is_new(f"{made} {apart}"):
            what = "gives no rows" if call in _RETURNS_ROWS else "does not choose where the rows go"
            beside = ""
            if apart is not None:
                beside = (
                    f". {apart[0]!r} ({apart[1]}) is another recording than the one of the command, and stays apart"
                )
            _log.warning("%s under 'mpr run' %s: the options of 'mpr run' say where they go%s", made, what, beside)

    def recording_info(self, call: str) -> str | None:
        """Warn that user code sets the name or the start time of the recording, and that mpr logs a property instead.

        `call` is the name of the SDK's function. Returns the name of the property, such as "worker_3" or, in a process
        that is no worker, "process_" and the process id. In a worker, returns None and logs nothing if every sink keeps
        the rows of each task in a separate recording.
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
        """Return True if a task makes the present SDK call. In a worker, each call counts as that of a task."""
        return bool(self._worker) or thread_state.context is not None

    def _place(self) -> str:
        return "a task" if self._in_task() else "a process"

    def _is_new(self, said: str) -> bool:
        is_new = said not in self._said
        self._said.add(said)
        return is_new
