"""A shared recording: the parent's half, without workers. It owns the recording id, the sinks and the aggregator."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import threading
from collections.abc import Callable, Sequence
from multiprocessing import util
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from mpr import failpoints, limits
from mpr.aggregator.aggregator import Aggregator
from mpr.aggregator.fanout import Fanout
from mpr.blueprint.contents import Contents
from mpr.blueprint.updates import BlueprintUpdates
from mpr.errors import ConflictError, RecordingClosedError, SinkError, WrongProcessError
from mpr.processes import start
from mpr.producer import membership, propagation, router
from mpr.producer.producer import Producer
from mpr.recording import gather, options
from mpr.recording.open_sinks import OpenSinks, append, encoded_notes, open_sinks
from mpr.recording.options import Route
from mpr.recording.statistics import RecordingStatistics
from mpr.rrd import compat, relabel, store_id
from mpr.sinks import active_recording
from mpr.sinks.active_recording import ActiveRecordingSink
from mpr.sinks.base import Sink
from mpr.sinks.binary_stream import BinaryStreamSink
from mpr.sinks.directory import DirectorySink
from mpr.sinks.file import FileSink
from mpr.sinks.parse import as_sinks, sinks_of_environment
from mpr.sinks.per_recording import PerRecordingWriter
from mpr.tasks.wrapped import Wrapped
from mpr.threads import run_to_completion
from mpr.transport import connection_info
from mpr.transport.connection_info import ConnectionInfo, DirectRoute
from mpr.transport.sockets import Sockets

if TYPE_CHECKING:
    import rerun as rr


_log = logging.getLogger("mpr")

# How many files of recordings that tasks have made are named at the end.
_NAMES_TOLD = 10

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
        is_direct = options.check_route(route) == "direct"
        self.application_id = options.check_application_id(application_id)
        if sinks is None:
            sinks = sinks_of_environment()
        if sinks is None:
            active = active_recording.find(self.application_id, recording_id)
            if active is not None:
                sinks, recording_id = active, active.recording_id
        self.recording_id = options.check_recording_id(recording_id)
        chosen = as_sinks(sinks, self.application_id, self.recording_id)
        if is_direct:
            gather.check(chosen)
        failpoints.arm(0)
        self._marks_tasks = any(isinstance(sink, DirectorySink) for sink in chosen)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._producer: Producer | None = None
        self._closed = False
        self._finisher: threading.Thread | None = None
        self._finished = threading.Event()
        self._propagation: propagation.Propagation | None = None
        self._workers = itertools.count(1)
        self._pools = itertools.count(1)
        with contextlib.ExitStack() as undo:
            self._sockets = Sockets()
            undo.callback(self._sockets.close)
            opened = open_sinks(chosen, self.application_id, self.recording_id, blueprint, self._sockets.folder)
            self._writers = opened.writers
            for writer in self._writers:
                undo.callback(writer.abort)
            self._live = opened.live
            # Whether somebody may look while it grows.
            self._is_watched = self._live is not None or any(isinstance(each, BinaryStreamSink) for each in chosen)
            self._takes_telemetry = bool(self._writers) and compat.format_is_known() is None
            #: What a person opens to see the live sinks: URLs of viewers, servers and pages, in the order of the sinks.
            self.urls = opened.urls
            self.down = self._sockets.down
            self._parts: gather.WorkerFiles | None = None
            self._direct: DirectRoute | None = None
            if is_direct:
                self._route_directly(opened, chosen, blueprint is not None, undo)
            encode = functools.partial(encoded_notes, "mpr/workers", self.application_id, self.recording_id)
            apart = all(isinstance(sink, DirectorySink) for sink in chosen)
            contents = Contents(store_id.store_id(self.application_id, self.recording_id))
            self._blueprint_updates = BlueprintUpdates(
                application_id, contents, blueprint, pools_visible=telemetry_view
            )
            self.fanout = Fanout(self._writers, self._live, encode, contents, apart=apart)
            self.fanout.has_all = not is_direct
            self.aggregator = Aggregator(self._sockets, self.fanout, has_blueprint=blueprint is not None)
            self.aggregator.start()
            undo.pop_all()
        if self._writers and (sinks is None or (isinstance(sinks, ActiveRecordingSink) and not sinks.is_ambient)):
            _log.warning("mpr: recording to %s", self._writers[0].name)
        for url in opened.served:
            _log.warning("mpr: to be seen at %s", url)
        if self._live is not None:
            self._live.start()
        membership.own_recording(self.process_config(1), self._parents_producer)
        # At the interpreter's exit, before `multiprocessing` waits for children.
        self._at_exit = util.Finalize(None, self.close, exitpriority=90)

    def _route_directly(
        self, opened: OpenSinks, chosen: Sequence[Sink], has_blueprint: bool, undo: contextlib.ExitStack
    ) -> None:
        """Have the workers open the sinks themselves."""
        file = next((sink for sink in chosen if isinstance(sink, FileSink)), None)
        if file is not None and opened.writers:
            self._parts = gather.WorkerFiles(Path(file.path), has_blueprint=has_blueprint)
            undo.callback(self._parts.abort)
        if opened.writers or opened.live is not None:
            folder = "" if self._parts is None else str(self._parts.folder)
            self._direct = DirectRoute(folder=folder, urls=opened.open_to_senders)

    @property
    def paths(self) -> list[Path]:
        """The files that this recording is written to, and behind them those of recordings that tasks have made."""
        return [path for writer in self._writers for path in writer.paths]

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def stream(self) -> rr.RecordingStream:
        """A recording stream of this process that logs into the shared recording: `recording.stream.log(...)`."""
        self.check_usable()
        return self._parents_producer().stream

    def _parents_producer(self) -> Producer:
        with self._lock:
            if self._producer is None:
                self._producer = Producer(self.process_config(1), 0, is_owner=True)
                router.guard(self.recording_id, self._producer)
            return self._producer

    def check_usable(self) -> None:
        """Raise `WrongProcessError` in another process than the one that made this, `RecordingClosedError` later."""
        if os.getpid() != self._pid:
            raise WrongProcessError(
                f"this recording belongs to process {self._pid}; a child process logs with plain rr.log as a worker "
                "of mpr.Pool, and cannot use its parent's recording or pool"
            )
        if self._closed:
            raise RecordingClosedError(f"the recording {self.recording_id} is closed")

    def new_worker(self) -> int:
        """A number for one more worker, never given twice."""
        return next(self._workers)

    def new_pool(self, size: int, kinds: frozenset[str]) -> int:
        """A number for one more pool, which has so many workers and records that of itself."""
        self._blueprint_updates.add_pool(size, kinds)
        return next(self._pools)

    def accept_telemetry(self, stream: bytes) -> None:
        """Take rows that a pool has made of itself: a whole stream of no recording in particular."""
        if not self._takes_telemetry:
            return
        if stream:
            store = store_id.store_id(self.application_id, self.recording_id)
            self._write_telemetry(relabel.relabelled(stream, store))
        layout, is_new = self._blueprint_updates.refresh()
        if is_new and self._is_watched:
            self._write_telemetry(layout)

    def _write_telemetry(self, stream: bytes) -> None:
        def write() -> None:
            # At the very end it is this thread's turn, and the sinks may be closed.
            if not self.aggregator.ended:
                self.fanout.write_stream(stream, telemetry=True)

        self.aggregator.soon(write)

    def process_config(self, workers: int) -> ConnectionInfo:
        """How each of `workers` processes joins."""
        return ConnectionInfo(
            application_id=self.application_id,
            recording_id=self.recording_id,
            folder=self._sockets.folder,
            upstream=self._sockets.up.endpoint,
            downstream=self._sockets.down.endpoint,
            secret=self._sockets.secret,
            outbox_bytes=limits.outbox_limit(workers),
            marks_tasks=self._marks_tasks,
            direct=self._direct,
        )

    def environ(self) -> dict[str, str]:
        """The environment for a child process that shall join: this process's own, and the variable that tells how.

        `subprocess.Popen([sys.executable, "child.py"], env=recording.environ())`. It has a secret: keep it out of logs.
        """
        self.check_usable()
        return {**os.environ, connection_info.VARIABLE: self._propagation_text()}

    def _propagation_text(self) -> str:
        return connection_info.to_text(self.process_config(start.check_processes(None)))

    def wrap(self, fn: Callable[P, R], /) -> Callable[P, R]:
        """`fn` as a function that logs to this recording on any engine, in whatever process it is called.

        It pickles with plain pickle and with cloudpickle, with a secret in it. When it returns or raises, its rows are
        in every durable sink. It raises `RecordingClosedError` where the recording is closed by then.
        """
        self.check_usable()
        wrapped: Callable[P, R] = Wrapped(fn, self.process_config(start.check_processes(None)))
        return wrapped

    def flush(self, timeout: float = limits.SINK_TIMEOUT_SECS) -> None:
        """Wait until every durable sink has what this process has logged to `stream`.

        Rows of tasks need no flush: who has the result has them. Raises `TimeoutError` after `timeout` seconds and
        `SinkError` where a sink has failed.
        """
        self.check_usable()
        if self._producer is not None:
            self._producer.flush()
            if not self.aggregator.wait_until_accepted(*self._producer.position(), timeout):
                raise TimeoutError(f"the sinks did not take all rows within {timeout} s")
        self._raise_failure()

    def stats(self) -> RecordingStatistics:
        """What the recording has taken until now."""
        return RecordingStatistics(
            accepted_chunks=self.fanout.accepted_chunks,
            accepted_bytes=self.fanout.accepted_bytes,
            rejected_messages=self._sockets.up.rejected_count,
            processes=len(self.aggregator.pids),
            torn_processes=self.aggregator.incomplete_count,
            live_sinks=() if self._live is None else tuple(self._live.stats()),
        )

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
        from mpr.recording.replay import replay

        if not self._writers:
            # RERUN=off
            return
        view = NotebookView(replay(self._writers, self._finished), width, height)
        view.show(0 if self._finished.is_set() else wait_secs)

    def close(self) -> None:
        """Take what is on its way, write the footers, and release everything. A second call does nothing.

        Raises `SinkError` where a sink has failed: what it had accepted before stays readable. Raises `ConflictError`
        where two workers gave one timeline or component two types.
        """
        run_to_completion(functools.partial(self.finish, failed=False))

    def finish(self, *, failed: bool) -> None:
        """As `close`; after a run that has `failed`, a file without a row does not take the place of an older one."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            first, self._closed = not self._closed, True
        if first:
            self._finisher = threading.current_thread()
            try:
                self._finish(failed=failed)
            finally:
                self._finished.set()
        elif self._finisher is not threading.current_thread():
            # Whoever ends it has bounds for each step.
            self._finished.wait()

    def _finish(self, *, failed: bool) -> None:
        self._at_exit.cancel()
        membership.forget_owned(self._sockets.secret)
        if self._propagation is not None:
            self._propagation.close()
        if self._producer is not None:
            router.release(self._producer)
            self._producer.close()
        stopped = self.aggregator.stop(limits.SINK_TIMEOUT_SECS)
        missed = [] if self._live is None else self._live.finish()
        for words in missed:
            _log.warning("mpr: %s", words)
        if not stopped:
            # Its thread still uses the sockets, so they stay.
            raise self.fanout.stuck()
        self.fanout.stop_feeding()
        try:
            if self._parts is not None:
                self._parts.gather(self.fanout)
            unfinished = self._close_writers(missed, discard_unpublished=failed)
        finally:
            self._sockets.close()
        self._name_other_files()
        failure = self.fanout.failure or unfinished
        if failure is not None:
            raise failure
        if self._parts is not None:
            self._parts.remove(self.paths)
        if self.fanout.conflicts and not failed:
            raise ConflictError(
                f"{'; '.join(self.fanout.conflicts)}. All rows are in the recording, but Rerun knows one type of "
                "each, and shows the others wrongly or not at all: give them different names"
            )

    def _close_writers(self, notes: list[str], *, discard_unpublished: bool) -> SinkError | None:
        """Close all sinks, with `notes` in them, also where one of them fails; returns the first failure."""
        failpoints.reach("parent.closing")
        failure = None
        layout, _ = self._blueprint_updates.refresh() if self._takes_telemetry else (b"", False)
        stream = encoded_notes("mpr/sinks", self.application_id, self.recording_id, notes) if notes else b""
        for writer in self.fanout.writers:
            try:
                if discard_unpublished and not writer.published:
                    writer.abort()
                else:
                    if layout:
                        # What is wrong with a disk or a file, its end says.
                        with contextlib.suppress(SinkError):
                            append(writer, layout, telemetry=True)
                    if stream:
                        append(writer, stream)
                    writer.close()
            except SinkError as error:
                failure = failure or error
        return failure

    def _name_other_files(self) -> None:
        made = [
            path for writer in self._writers if isinstance(writer, PerRecordingWriter) for path in writer.other_files
        ]
        if made:
            names = ", ".join(path.name for path in made[:_NAMES_TOLD]) + (", ..." if len(made) > _NAMES_TOLD else "")
            _log.warning("mpr: recordings that tasks have made are in %s: %s", made[0].parent, names)

    def _raise_failure(self) -> None:
        if self.fanout.failure is not None:
            raise self.fanout.failure

    def __enter__(self) -> SharedRecording:
        self.check_usable()
        if self._propagation is None:
            self._propagation = propagation.Propagation(self._propagation_text())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run_to_completion(functools.partial(self.finish, failed=error is not None))

    def __reduce__(self) -> Any:
        raise WrongProcessError("a SharedRecording cannot be sent to another process")

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<mpr.SharedRecording {self.application_id!r} {self.recording_id} {state}>"
