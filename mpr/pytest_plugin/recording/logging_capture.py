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
    """Logs every `logging` record of the process into the recording of the running test.

    This class replaces the method `logging.Logger.callHandlers`. It adds no handler to the root logger, because some
    tests count the handlers of the root logger.

    Parameters
    ----------
    stream:
        The function that returns the stream of the running test, or None if no test is recorded.
    path_prefix:
        The entity path below which each logger has an entity.
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

        If other code has replaced this method since then, it is not restored. The replacement that this class has made
        then stays in use. If no test is recorded, it only calls the original method.
        """
        if logging.Logger.callHandlers is self._ours:
            logging.Logger.callHandlers = self._before  # type: ignore[method-assign]  # as it was
