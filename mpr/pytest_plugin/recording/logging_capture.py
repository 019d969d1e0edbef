"""What a test says by `logging`, as rows of its recording, at the moment when it is said."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from mpr.worker.capture import LoggingHandler

if TYPE_CHECKING:
    import rerun as rr


class _Handler(LoggingHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """The test hears of a bad record from its own handlers, or does not."""


class LogCapture:
    """Passes every record of the process on to the recording of the test that runs.

    It is no handler of the root logger: tests count those.
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
        """Leave logging as it was, unless somebody has changed it meanwhile: then this passes on to nobody."""
        if logging.Logger.callHandlers is self._ours:
            logging.Logger.callHandlers = self._before  # type: ignore[method-assign]  # as it was
