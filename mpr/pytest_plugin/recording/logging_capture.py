"""Writes the `logging` records of a test into the test's recording when the records are emitted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from mpr.worker.capture import LoggingHandler

if TYPE_CHECKING:
    import rerun as rr


class _Handler(LoggingHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Do nothing, because the test's own handlers report a bad record."""


class LogCapture:
    """Passes every `logging` record of the process to the recording of the running test.

    Replaces `logging.Logger.callHandlers` instead of adding a handler to the root logger, because some tests count the
    handlers of the root logger.
    """

    def __init__(self, stream: Callable[[], rr.RecordingStream | None], path_prefix: str) -> None:
        self._before = before = logging.Logger.callHandlers

        def call_handlers(self: logging.Logger, record: logging.LogRecord) -> None:
            found = stream()
            if found is not None:
                _Handler(path_prefix, recording=found).emit(record)
            before(self, record)

        self._ours = call_handlers
        logging.Logger.callHandlers = call_handlers  # type: ignore[method-assign]  # see above

    def close(self) -> None:
        """Restore `logging.Logger.callHandlers`.

        If other code has replaced this function since, nothing is restored. The wrapper of this class then stays, and
        only passes each record on.
        """
        if logging.Logger.callHandlers is self._ours:
            logging.Logger.callHandlers = self._before  # type: ignore[method-assign]  # as it was
