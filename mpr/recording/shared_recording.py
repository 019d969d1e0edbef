"""A shared recording: the parent's half, without workers. It owns the recording id, the sinks and the aggregator."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from mpr import limits
from mpr.errors import WrongProcessError
from mpr.processes import start
from mpr.recording.options import RecordingOptions, Route
from mpr.recording.runtime import RecordingRuntime
from mpr.recording.statistics import RecordingStatistics
from mpr.tasks.wrapped import Wrapped
from mpr.threads import run_to_completion
from mpr.transport import connection_info

if TYPE_CHECKING:
    import rerun as rr


P = ParamSpec("P")
R = TypeVar("R")


class SharedRecording:
    """One recording that many processes log into.

    Within its `with` block, every process that is started inherits how to join: by `mpr.join()`, or by calling a
    function that is decorated with `@mpr.task`.

    Parameters
    ----------
    application_id:
        As in `rr.init`: 1 to 180 ASCII letters, digits, spaces and `_-[]:`.
    recording_id:
        As in `rr.init`; a fresh random one by default.
    sinks:
        Where the data goes: one or several sinks of mpr, paths (`"run.rrd"`, or `"episodes/"` for a folder) and URLs of
        viewers. By default what the environment variable `MPR_SINKS` says (see `mpr.add_arguments`); else the active
        recording of this process, where `rr.init` was called with this application id; else a new file
        `<application id>-<time>-<short id>.rrd` in the working directory. The last two are told on stderr.
    blueprint:
        A blueprint for the recording, as in `rr.send_blueprint`: every sink has it before any data. Blueprints that
        workers send do not replace it.
    route:
        'funnel': all rows go through this process, which keeps every promise. 'direct': each worker brings its rows to
        viewers and servers itself, and into a file of its own in `<path>.parts/`, which become one at the end; a viewer
        can then cost rows and time, and the file is not there before `close` (see `docs/sinks.md`).
    telemetry_view:
        Whether what pools record of themselves is shown below the user's own views, those of `blueprint` or else those
        that suit what was logged. With False it is folded, and a `blueprint` stays as it is.

    Raises
    ------
    ConfigError
        If one of these values cannot be used.
    SinkError
        If a sink cannot be opened; nothing that exists is harmed then.
    """

    def __init__(
        self,
        application_id: str,
        *,
        recording_id: str | None = None,
        sinks: Any = None,
        blueprint: Any = None,
        route: Route = "funnel",
        telemetry_view: bool = True,
    ) -> None:
        options = RecordingOptions.check(
            application_id,
            recording_id=recording_id,
            sinks=sinks,
            blueprint=blueprint,
            route=route,
            telemetry_view=telemetry_view,
        )
        self.application_id = options.application_id
        self.recording_id = options.recording_id
        self._runtime = RecordingRuntime(options)
        #: What a person opens to see the live sinks: URLs of viewers, servers and pages, in the order of the sinks.
        self.urls = self._runtime.urls

    @property
    def paths(self) -> list[Path]:
        """The files that this recording is written to, and behind them those of recordings that tasks have made."""
        return [path for writer in self._runtime.writers for path in writer.paths]

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._runtime.closed

    @property
    def stream(self) -> rr.RecordingStream:
        """A recording stream of this process that logs into the shared recording: `recording.stream.log(...)`."""
        self._runtime.check_usable()
        return self._runtime.parent.producer().stream

    def environ(self) -> dict[str, str]:
        """The environment for a child process that shall join: this process's own, and the variable that tells how.

        `subprocess.Popen([sys.executable, "child.py"], env=recording.environ())`. It has a secret: keep it out of logs.
        """
        self._runtime.check_usable()
        return {**os.environ, connection_info.VARIABLE: self._propagation_text()}

    def _propagation_text(self) -> str:
        return connection_info.to_text(self._runtime.process_config(start.check_processes(None)))

    def wrap(self, fn: Callable[P, R], /) -> Callable[P, R]:
        """`fn` as a function that logs to this recording on any engine, in whatever process it is called.

        It pickles with plain pickle and with cloudpickle, with a secret in it. When it returns or raises, its rows are
        in every durable sink. It raises `RecordingClosedError` where the recording is closed by then.
        """
        self._runtime.check_usable()
        wrapped: Callable[P, R] = Wrapped(fn, self._runtime.process_config(start.check_processes(None)))
        return wrapped

    def flush(self, timeout: float = limits.SINK_TIMEOUT_SECS) -> None:
        """Wait until every durable sink has what this process has logged to `stream`.

        Rows of tasks need no flush: who has the result has them. Raises `TimeoutError` after `timeout` seconds and
        `SinkError` where a sink has failed.
        """
        self._runtime.check_usable()
        self._runtime.flush(timeout)

    def stats(self) -> RecordingStatistics:
        """What the recording has taken until now."""
        return self._runtime.stats()

    def notebook_show(
        self,
        *,
        width: int | Literal["auto"] | None = None,
        height: int | Literal["auto"] | None = None,
        wait_secs: float = 5.0,
    ) -> None:
        """Show the viewer in a notebook's cell, with everything from the start, and what is still to come.

        At any time, also when the recording is closed, and any number of times. A page that is loaded again gets all
        once more. Needs `pip install 'mpr[notebook]'`, and a `FileSink` or `BinaryStreamSink`, which it reads.

        A kernel hears of the page between two cells. So show the viewer in a cell of its own before the one that does
        the work, and rows are seen while they come. In one cell it depends on the versions of Jupyter and `ipykernel`.

        Parameters
        ----------
        width, height:
            In pixels, or 'auto' for the width of the page; 640 and 480 by default.
        wait_secs:
            While the recording is open, how long to wait for the page at most, where `ipykernel` can hear of it within
            a cell (before version 7); 0 does not wait.

        Raises
        ------
        MissingDependencyError
            If `rerun-notebook` is not installed.
        SinkError
            If no sink of the recording can be read.
        """
        from mpr.recording.notebook import NotebookView

        if not self._runtime.writers:
            # RERUN=off
            return
        view = NotebookView(self._runtime.replay(), width, height)
        view.show(0 if self._runtime.is_over else wait_secs)

    def close(self) -> None:
        """Take what is on its way, write the footers, and release everything. A second call does nothing.

        Raises `SinkError` where a sink has failed: what it had accepted before stays readable. Raises `ConflictError`
        where two workers gave one timeline or component two types.
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
    """The parts of `recording`, for a pool and for others within mpr that start processes."""
    return recording._runtime
