"""Writes `logging` records of a test into its recording, at the moment when they are emitted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from mpr.worker.capture import LoggingHandler

if TYPE_CHECKING:
    import rerun as rr


class _Handler(LoggingHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Do nothing: the test's own handlers report a bad record."""


class LogCapture:
    """Passes every record of the process to the recording of the running test.

    It is no handler of the root logger, because some tests count its handlers.
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
        """Restore `logging`, unless other code has replaced the same function since; then records pass through."""
        if logging.Logger.callHandlers is self._ours:
            logging.Logger.callHandlers = self._before  # type: ignore[method-assign]  # as it was
