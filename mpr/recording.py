"""A shared recording: the parent's half, without workers. It owns the recording id, the sinks and the aggregator."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import util
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from mpr import config, failpoints, hooks, inheritance, joining, relabel, sdk
from mpr.aggregator import Aggregator, Writer
from mpr.config import RecordingConfig
from mpr.decoding_writer import DecodingWriter
from mpr.errors import RecordingClosedError, SinkError, WrongProcessError
from mpr.file_writer import FileWriter
from mpr.producer import Producer
from mpr.sinks import Sink, as_sinks
from mpr.transport import Sockets
from mpr.wrapped import Wrapped

if TYPE_CHECKING:
    import rerun as rr

_log = logging.getLogger("mpr")

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class RecordingStatistics:
    """What a recording has taken until now.

    Attributes
    ----------
    accepted_chunks, accepted_bytes:
        Chunks and encoded bytes that every durable sink has.
    rejected_messages:
        Messages from somebody who did not know the recording's token, or that were no messages at all.
    """

    accepted_chunks: int
    accepted_bytes: int
    rejected_messages: int


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
        Where the data goes: one or several of `mpr.FileSink(path=...)` or plain paths. By default a new file
        `<application id>-<time>-<short id>.rrd` in the working directory, whose path is written to stderr.
    blueprint:
        A blueprint for the recording, as in `rr.send_blueprint`.

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
    ) -> None:
        self.application_id = config.check_application_id(application_id)
        self.recording_id = config.check_recording_id(recording_id)
        chosen = as_sinks(sinks, self.application_id, self.recording_id)
        failpoints.arm(0)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._producer: Producer | None = None
        self._closed = False
        self._bequest: inheritance.Bequest | None = None
        self._workers = itertools.count(1)
        self._writers: list[Writer] = _open_writers(chosen, self.application_id, self.recording_id)
        if sinks is None and self._writers:
            _log.warning("mpr: recording to %s", self._writers[0].path)
        self._sockets = Sockets()
        self.down = self._sockets.down
        self.aggregator = Aggregator(self._sockets, self._writers)
        self.aggregator.start()
        joining.own(self.process_config(1), self._own_producer)
        # At the interpreter's exit, before `multiprocessing` waits for children.
        self._at_exit = util.Finalize(None, self.close, exitpriority=90)
        if blueprint is not None:
            self.stream.send_blueprint(blueprint)

    @property
    def paths(self) -> list[Path]:
        """The files that this recording is written to."""
        return [writer.path for writer in self._writers]

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def stream(self) -> rr.RecordingStream:
        """A recording stream of this process that logs into the shared recording: `recording.stream.log(...)`."""
        self.check_usable()
        return self._own_producer().stream

    def _own_producer(self) -> Producer:
        with self._lock:
            if self._producer is None:
                self._producer = Producer(self.process_config(1), 0)
                hooks.guard(self.recording_id, self._producer)
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

    def process_config(self, workers: int) -> RecordingConfig:
        """How each of `workers` processes joins."""
        return RecordingConfig(
            application_id=self.application_id,
            recording_id=self.recording_id,
            folder=self._sockets.folder,
            upstream=self._sockets.up.endpoint,
            downstream=self._sockets.down.endpoint,
            token=self._sockets.token,
            outbox_bytes=config.outbox_limit(workers),
        )

    def environ(self) -> dict[str, str]:
        """The environment for a child process that shall join: this process's own, and the variable that tells how.

        `subprocess.Popen([sys.executable, "child.py"], env=recording.environ())`. It has a secret: keep it out of logs.
        """
        self.check_usable()
        return {**os.environ, inheritance.VARIABLE: self._bequest_text()}

    def _bequest_text(self) -> str:
        return inheritance.to_text(self.process_config(config.check_processes(None)))

    def wrap(self, fn: Callable[P, R], /) -> Callable[P, R]:
        """`fn` as a function that logs to this recording on any engine, in whatever process it is called.

        It pickles with plain pickle and with cloudpickle, with a secret in it. When it returns or raises, its rows are
        in every durable sink. It raises `RecordingClosedError` where the recording is closed by then.
        """
        self.check_usable()
        wrapped: Callable[P, R] = Wrapped(fn, self.process_config(config.check_processes(None)))
        return wrapped

    def flush(self, timeout: float = config.SINK_TIMEOUT_SECS) -> None:
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
            accepted_chunks=self.aggregator.accepted_chunks,
            accepted_bytes=self.aggregator.accepted_bytes,
            rejected_messages=self._sockets.up.rejected_count,
        )

    def close(self) -> None:
        """Take what is on its way, write the footers, and release everything. A second call does nothing.

        Raises `SinkError` where a sink has failed: what it had accepted before stays readable.
        """
        self.finish(failed=False)

    def finish(self, *, failed: bool) -> None:
        """As `close`; after a run that has `failed`, a file without a row does not take the place of an older one."""
        with self._lock:
            if self._closed or os.getpid() != self._pid:
                return
            self._closed = True
        self._at_exit.cancel()
        joining.disown(self._sockets.token)
        if self._bequest is not None:
            self._bequest.withdraw()
        if self._producer is not None:
            hooks.release(self._producer)
            self._producer.close()
        if not self.aggregator.stop(config.SINK_TIMEOUT_SECS):
            # Its thread still uses the sockets, so they stay.
            raise self.aggregator.stuck()
        try:
            unfinished = self._close_writers(discard_unnamed=failed)
        finally:
            self._sockets.close()
        failure = self.aggregator.failure or unfinished
        if failure is not None:
            raise failure

    def _close_writers(self, *, discard_unnamed: bool) -> SinkError | None:
        """Close all sinks, also where one of them fails; returns the first failure."""
        failpoints.reach("parent.closing")
        failure = None
        for writer in self.aggregator.writers:
            try:
                if discard_unnamed and not writer.named:
                    writer.abandon()
                else:
                    writer.close()
            except SinkError as error:
                failure = failure or error
        return failure

    def _raise_failure(self) -> None:
        if self.aggregator.failure is not None:
            raise self.aggregator.failure

    def __enter__(self) -> SharedRecording:
        self.check_usable()
        if self._bequest is None:
            self._bequest = inheritance.Bequest(self._bequest_text())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(failed=error is not None)

    def __reduce__(self) -> Any:
        raise WrongProcessError("a SharedRecording cannot be sent to another process")

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<mpr.SharedRecording {self.application_id!r} {self.recording_id} {state}>"


def _open_writers(chosen: tuple[Sink, ...], application_id: str, recording_id: str) -> list[Writer]:
    """The writers of all sinks, each with the recording's properties in it; none where logging is switched off."""
    prologue = sdk.prologue(time.time_ns())
    if not prologue:
        # RERUN=off: tasks run, and nothing is recorded.
        return []
    unknown = sdk.format_is_known()
    if unknown is None:
        prologue = relabel.relabelled(prologue, relabel.store_id(application_id, recording_id), sdk.store_info())
    else:
        _log.warning("mpr does not know the file format of this Rerun SDK (%s): it decodes, which is slower", unknown)
    writers: list[Writer] = []
    try:
        for sink in chosen:
            path = Path(sink.path)
            writer: Writer = FileWriter(path) if unknown is None else DecodingWriter(path, application_id, recording_id)
            writers.append(writer)
            writer.open(prologue)
    except BaseException:
        for writer in writers:
            writer.abandon()
        raise
    return writers
