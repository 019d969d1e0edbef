"""Writes `logging` records and printed lines into the recording.

Covers: `mpr.LoggingHandler`, and the capture of a pool's worker.
Does not cover: output that C code or a child process writes to the file descriptors.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from mpr.tasks.current import current_task
from mpr.user_code import passes, writable

if TYPE_CHECKING:
    import rerun as rr


LOGS = "mpr/logs"
OUTPUT = "mpr/output"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureOptions:
    """Says which log records and which output of a worker go into the recording.

    Attributes
    ----------
    logging:
        True if the worker's `logging` records go into the recording.
    output:
        True if text that the worker writes to `sys.stdout` and `sys.stderr` goes into the recording.
    level:
        The level of the parent's root logger. If `logging` is True, the worker's root logger gets this level in place
        of its default level, `WARNING`.
    """

    logging: bool
    output: bool
    level: int


class _Busy(threading.local):
    """Holds `now`, which is True if the calling thread is writing a log record or a line into the recording.

    Log records and lines that this writing itself causes are not recorded, because they would cause others without end.
    """

    now = False


_busy = _Busy()


class LoggingHandler(logging.Handler):
    """Sends `logging` records into the recording, each as a row with an `rr.TextLog`.

    The entity path is made of the logger's name (`a.b` becomes `a/b`). The traceback of a record is added to the text.
    The row also has the process id. Within a task, it has the name and the index of the task, and the number of the
    process in the recording.

    A record goes to the recording of the task that emits it. Outside of a task, it goes to the recording that the
    process has joined, or else to the current recording. Records of the logger `mpr` and of the loggers below it are
    not sent. If a record cannot be written, the handler calls `handleError`, as the handlers of `logging` do. A record
    that is emitted in the same thread while the handler writes another one is not sent.

    Parameters
    ----------
    path_prefix:
        The entity path to put before the logger's name; None for none.
    level:
        The lowest level that is sent, as in `logging.Handler`.
    recording:
        The stream that gets all records. If it is None, the recording is chosen for each record, as described above.
    """

    def __init__(
        self,
        path_prefix: str | None = None,
        *,
        level: int | str = logging.NOTSET,
        recording: rr.RecordingStream | None = None,
    ) -> None:
        super().__init__(level)
        self.path_prefix = path_prefix
        self._recording = recording

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record` into the recording, unless it is one that is not sent (see the class).

        If writing fails, call `handleError`. Only exceptions that Ctrl-C or another signal may have caused are raised.
        """
        if _busy.now:
            return
        _busy.now = True
        try:
            if record.name.partition(".")[0] == "mpr":
                return
            text = record.getMessage()
            if record.exc_info or record.exc_text or record.stack_info:
                # The standard formatter adds the traceback.
                text = logging.Formatter("%(message)s").format(record)
            self._log(_path(self.path_prefix, *record.name.split(".")), text, record.levelname)
        except BaseException as error:
            # The arguments of the record are the user's, and may raise anything when they become a text.
            if passes(error):
                raise
            with contextlib.suppress(Exception):
                self.handleError(record)
        finally:
            _busy.now = False

    def _log(self, path: str, text: str, level: str) -> None:
        log_text(path, text, _LEVELS.get(level, level), self._recording)


# The levels that have another name in Rerun.
_LEVELS = {"WARNING": "WARN"}


def _path(prefix: str | None, *parts: str) -> str:
    import rerun as rr

    path = "/".join(rr.escape_entity_path_part(part) for part in parts if part)
    return f"{prefix.strip('/')}/{path}" if prefix else path


def log_text(path: str, text: str, level: str, recording: rr.RecordingStream | None = None) -> None:
    """Log `text` as one row at the entity path `path`. `level` is the name of a level in Rerun, such as "WARN".

    The row also has the process id. Within a task it has the name and the index of the task, and the number of the
    process in the recording. `recording` is the stream that gets the row; None for the current one.
    """
    import rerun as rr

    task = current_task()
    origin: dict[str, Any] = {"pid": os.getpid()}
    if task is not None:
        origin |= {"task": task.name, "index": task.index}
        if task.worker is not None:
            origin["worker"] = task.worker
    rr.log(path, rr.TextLog(text, level=level), rr.AnyValues(**origin), recording=recording)


class _Lines(io.TextIOBase):
    """A text stream that writes all text to `stream`, and calls `line(text)` for each complete line."""

    def __init__(self, stream: TextIO, line: Callable[[str], None]) -> None:
        self._stream = stream
        self._line = line
        self._rest = ""
        self._lock = threading.RLock()

    def write(self, text: str, /) -> int:
        written = self._stream.write(text)
        with self._lock:
            # A plain `str`, because `text` may be of a subclass of the user.
            *lines, self._rest = (self._rest + str.__str__(text)).split("\n")
            for line in lines:
                self._line(line)
        return written

    def finish_line(self) -> None:
        """Call `line` for the text after the last line end, if there is any."""
        with self._lock:
            rest, self._rest = self._rest, ""
            if rest:
                self._line(rest)

    def flush(self) -> None:
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        # All other attributes, such as `encoding` and `buffer`, are those of the stream.
        return getattr(self._stream, name)

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def writable(self) -> bool:
        return True


class Capture:
    """Writes `logging` records and output of this process into the recording from now on, as `options` says."""

    def __init__(self, options: CaptureOptions) -> None:
        self._streams: list[_Lines] = []
        if options.logging:
            self._capture_logging(options.level)
        if options.output:
            for name, level in (("stdout", "INFO"), ("stderr", "WARN")):
                stream = getattr(sys, name)
                # A program without a console has no such stream.
                if stream is not None:
                    lines = _Lines(stream, _logger_of(f"{OUTPUT}/{name}", level))
                    self._streams.append(lines)
                    setattr(sys, name, lines)

    @staticmethod
    def _capture_logging(level: int) -> None:
        # The handler is not added to the root logger, because then `logging.basicConfig` in a task would do nothing.
        handler = LoggingHandler(LOGS)
        call_handlers = logging.Logger.callHandlers

        def captured(self: logging.Logger, record: logging.LogRecord) -> None:
            handler.handle(record)
            call_handlers(self, record)

        logging.Logger.callHandlers = captured  # type: ignore[method-assign]  # see above
        root = logging.getLogger()
        if root.level == logging.WARNING:
            root.setLevel(level)

    @property
    def takes_output(self) -> bool:
        """True if the text that tasks write to `sys.stdout` and `sys.stderr` goes into the recording."""
        return bool(self._streams)

    def finish_lines(self) -> None:
        """Log the text that a task has printed after its last line end, if there is any."""
        for stream in self._streams:
            stream.finish_line()


def _logger_of(path: str, level: str) -> Callable[[str], None]:
    def line(text: str) -> None:
        if _busy.now:
            return
        _busy.now = True
        try:
            # A task that prints must not fail because of the recording.
            with contextlib.suppress(Exception):
                log_text(path, writable(text), level)
        finally:
            _busy.now = False

    return line
