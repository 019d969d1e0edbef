"""Defines `mpr.SharedRecording`: one recording for many processes, as the user sees it.

Covers: the public names, and checks that this process may use the recording.
Does not cover: the parts of a recording (`runtime.py`), workers (`pool`).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from mpr import limits
from mpr.errors import WrongProcessError
from mpr.processes import start
from mpr.recording.options import RecordingOptions, Route, SinksLike
from mpr.recording.runtime import RecordingRuntime
from mpr.recording.statistics import RecordingStatistics
from mpr.sdk import private_names
from mpr.tasks import wrapped
from mpr.threads import check_threads, run_to_completion
from mpr.transport import connection_info

if TYPE_CHECKING:
    import rerun as rr
    from rerun.blueprint import BlueprintLike


P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class SharedRecording:
    """One recording that many processes log into.

    A process can join if it is started within the `with` block of the recording, or with the environment variables that
    `environ()` returns. The process must run on this machine and as this user. It joins when it calls `mpr.join()`, or
    a function that is decorated with `@mpr.task`. If processes do not inherit the variables, such as the workers of
    Dask, let them call a function that `wrap` returns.

    Parameters
    ----------
    application_id:
        The application id, as in `rr.init`: 1 to 180 ASCII letters, digits, spaces and `_-[]:`.
    recording_id:
        The recording id, as in `rr.init`. By default, a new random id. In cases 2 and 3 of `sinks`, the default is the
        id of the recording that gets the rows.
    sinks:
        The destinations of the rows: one or several sinks of mpr, paths (`"run.rrd"`, or `"episodes/"` for a folder)
        and URLs of viewers. A path must end with `.rrd` or `/`. With None, mpr uses the first of these that exists:

        1. The sinks in the environment variable `MPR_SINKS` (see `mpr.add_arguments`).
        2. The active recording of this process (`rr.init`), if it has this application id, and this recording id if you
           give one.
        3. The recording of the running test, if mpr's pytest plugin records this test.
        4. A new file `<application id>-<time>-<short id>.rrd` in the working directory.

        In cases 2 and 4, a message on stderr says where the rows go.
    blueprint:
        A blueprint, as in `rr.send_blueprint`. Every sink gets this blueprint before any row. A blueprint that a worker
        sends does not replace this one.
    route:
        'funnel': all rows go through this process. 'direct': each worker sends its rows to viewers and servers itself,
        and writes a file of its own in `<path>.parts/`. `close` makes one file of the workers' files. With 'direct', a
        viewer can cause lost rows and slow tasks, and there is no complete file before `close` (see `docs/sinks.md`).
    telemetry_view:
        If True, the viewer shows the telemetry of pools (rows about their workers and tasks) below your own views. If
        False, the views of telemetry are folded, and a `blueprint` is not changed.

    Attributes
    ----------
    application_id, recording_id:
        The ids of the recording.
    urls:
        The URLs at which a person sees the live sinks (viewers, servers and pages), in the order of the sinks.

    Raises
    ------
    ConfigError
        If one of the arguments cannot be used, or if gevent or eventlet has replaced the threads of this process.
    SinkError
        If a sink cannot be opened. No file that existed before is changed then.
    """

    def __init__(
        self,
        application_id: str,
        *,
        recording_id: str | None = None,
        sinks: SinksLike | None = None,
        blueprint: BlueprintLike | None = None,
        route: Route = "funnel",
        telemetry_view: bool = True,
    ) -> None:
        check_threads()
        options = RecordingOptions.check(
            application_id,
            recording_id=recording_id,
            sinks=sinks,
            blueprint=blueprint,
            route=route,
            telemetry_view=telemetry_view,
        )
        self.application_id: str = options.application_id
        self.recording_id: str = options.recording_id
        self._runtime = RecordingRuntime(options)
        private_names.warn_once()
        self.urls: list[str] = self._runtime.urls

    @property
    def paths(self) -> list[Path]:
        """The files that the durable sinks have written until now.

        After the file of each sink come the files of recordings that tasks have made themselves.
        """
        return [path for writer in self._runtime.writers for path in writer.paths]

    @property
    def closed(self) -> bool:
        """True if `close` was called, or if the `with` block has ended."""
        return self._runtime.closed

    @property
    def stream(self) -> rr.RecordingStream:
        """The recording stream with which this process logs: `recording.stream.log(...)`.

        Raises `RecordingClosedError` after `close`, and `WrongProcessError` in another process.
        """
        self._runtime.check_usable()
        return self._runtime.parent.producer().stream

    def environ(self) -> dict[str, str]:
        """Return the environment of this process with one more variable, by which a child process can join.

        Example: `subprocess.Popen([sys.executable, "child.py"], env=recording.environ())`. The variable contains a
        secret, so do not write it to logs. Raises the same errors as `stream`.
        """
        self._runtime.check_usable()
        return {**os.environ, connection_info.VARIABLE: self._propagation_text()}

    def _propagation_text(self) -> str:
        return connection_info.to_text(self._runtime.connection_info(start.check_processes(None)))

    @overload
    def wrap(self, fn: type[T], /) -> type[T]: ...

    @overload
    def wrap(self, fn: Callable[P, R], /) -> Callable[P, R]: ...

    def wrap(self, fn: Callable[..., Any], /) -> Callable[..., Any]:
        """Return a function that calls `fn`, and logs to this recording from any process of this user on this machine.

        Use the returned function with other engines, such as Dask or joblib. It can be pickled with pickle and with
        cloudpickle. The pickle contains a secret.

        When the returned function has returned or raised, its rows are in every durable sink (such as a file). If the
        rows cannot get there, the call raises `DeliveryError`, unless `fn` has raised. If Ray or Dask repeats a
        complete call, its rows are not logged again. A call raises `RecordingClosedError` after the end of the
        recording, and `JoinError` if its process cannot join the recording, for example on another machine.

        If `fn` is a class, such as the class of an actor, the result is a subclass. In the subclass, `__init__`,
        `__call__` and all methods without two underscores at both ends are wrapped functions. Only cloudpickle can
        pickle this class.

        `wrap` itself raises the same errors as `stream`, and `UnpicklableTaskError` if `fn` cannot be called, or is a
        class that cannot have subclasses.
        """
        self._runtime.check_usable()
        return wrapped.wrap(fn, self._runtime.connection_info(start.check_processes(None)))

    def flush(self, timeout: float = limits.SINK_TIMEOUT_SECS) -> None:
        """Wait until every durable sink (such as a file) has all rows that this process has logged to the recording.

        Rows of tasks need no flush. Raises `TimeoutError` if this takes more than `timeout` seconds. If an error has
        occurred in the recording, such as `SinkError` if a sink has failed, raises this error. Also raises the same
        errors as `stream`.
        """
        self._runtime.check_usable()
        self._runtime.flush(timeout)

    def stats(self) -> RecordingStatistics:
        """Return the counts of chunks, bytes, rows, messages and processes until now, also after `close`."""
        return self._runtime.stats()

    def notebook_show(
        self,
        *,
        width: int | Literal["auto"] | None = None,
        height: int | Literal["auto"] | None = None,
        wait_secs: float = 5.0,
    ) -> None:
        """Show the viewer in a cell of a notebook, with all rows from the beginning and all new rows.

        Call this method at any time, also after `close`, and as often as you like. The recording needs a `FileSink` or
        a `BinaryStreamSink`, because the rows are read from there. If logging is off (`RERUN=off`), nothing is
        shown.

        To see rows while the work goes on, call this method in a cell before the cell with the work, because a kernel
        gets the page's messages between two cells.

        Parameters
        ----------
        width, height:
            The size in pixels, by default 640 and 480. 'auto' is the width of the cell, and 9/16 of it for `height`.
        wait_secs:
            The longest time in seconds to wait for the page while the recording is open. There is no wait with
            `ipykernel` 7 or newer, because it does not get the page's messages within a cell.

        Raises
        ------
        MissingDependencyError
            If `rerun-notebook` is not installed (the extra `notebook`).
        SinkError
            If no sink of the recording can be read.
        """
        from mpr.recording.notebook import NotebookView

        replay = self._runtime.replay()
        if replay is not None:
            NotebookView(replay, width, height).show(0 if self._runtime.is_over else wait_secs)

    def close(self) -> None:
        """Receive the rows that were sent before, finish all files, and end the processes that feed live sinks.

        A second call only waits until the first one has ended. If a live sink lacks rows, a warning is logged, and
        `stats().live_sinks` has the number of missing chunks. The end of the `with` block closes the recording, too. If
        the block has raised, only the first two of these errors are raised:

        - `SinkError` if a sink has failed. `mpr recover` makes a valid file of an unfinished file that is left.
        - `DeliveryError` if a process that could not join has lost rows.
        - `DeliveryError` if the counts show that logged rows have not arrived.
        - `ConflictError` if one timeline or component has two types.
        """
        run_to_completion(functools.partial(self._runtime.close, failed=False))

    def __enter__(self) -> SharedRecording:
        self._runtime.check_usable()
        self._runtime.parent.propagate(self._propagation_text)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run_to_completion(functools.partial(self._runtime.close, failed=error is not None))

    def __reduce__(self) -> Any:
        raise WrongProcessError("a SharedRecording cannot be sent to another process")

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<mpr.SharedRecording {self.application_id!r} {self.recording_id} {state}>"


def runtime_of(recording: SharedRecording) -> RecordingRuntime:
    """Return the runtime of `recording`, which holds the parts of the recording. Only mpr itself calls this."""
    return recording._runtime
