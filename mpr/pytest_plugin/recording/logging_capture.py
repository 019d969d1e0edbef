"""Writes the `logging` records of a test into the test's recording.

pytest's plugin `logging` has a handler that formats each record, and then adds its attribute `terminator` (the end of
the line) to the text. `LogCapture` replaces this attribute by one that also writes the formatted text into the
recording. So mpr adds no handler to `logging`, and calls nothing that a test may have replaced.

The recording has the records that pytest's report has in its section "Captured log". Records of mpr's own loggers, and
records that cannot be written, are left out. If pytest runs without its plugin `logging` (`-p no:logging`), the
recording has no records.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from mpr.sdk import native

if TYPE_CHECKING:
    from mpr.pytest_plugin.recording.running_test import RunningTest

# The levels that have another name in Rerun.
_LEVELS = {"WARNING": "WARN"}


class _Terminator(str):
    """The end of a line, which also calls `write` each time it is added to a text."""

    write: Callable[[], None]

    def __radd__(self, text: Any) -> str:
        if not isinstance(text, str):
            return NotImplemented
        self.write()
        return f"{text}{self!s}"


class LogCapture:
    """Writes `logging` records into the recording of the running test, from the creation of this object until `close`.

    Parameters
    ----------
    config:
        The configuration of pytest.
    running:
        A function that returns the test that runs in this process. If it returns None, nothing is written.
    path_prefix:
        The entity path above the entities of the loggers. The logger `a.b` has the entity `<path_prefix>/a/b`.
    """

    def __init__(self, config: pytest.Config, running: Callable[[], RunningTest | None], path_prefix: str) -> None:
        self._running = running
        self._prefix = path_prefix
        self._paths: dict[str, str] = {}
        self._last: logging.LogRecord | None = None
        plugin = config.pluginmanager.get_plugin("logging-plugin")
        self._handler: Any = getattr(plugin, "report_handler", None)
        if self._handler is not None:
            self._handler.terminator = _Terminator(self._handler.terminator)
            self._handler.terminator.write = self._write

    def _write(self) -> None:
        running = self._running()
        records = self._handler.records
        if running is None or not records or records[-1] is self._last:
            return
        self._last = record = records[-1]
        if record.name.partition(".")[0] == "mpr":
            # Records of mpr itself may report an error of the recording.
            return
        try:
            level = _LEVELS.get(record.levelname, record.levelname)
            native.log_text(running.stream.handle, self._path(record.name), _text(record), level)
            running.note_rows()
        except Exception:  # noqa: BLE001, S110  # no error of mpr may reach the test, and its report has the record too
            pass

    def _path(self, name: str) -> str:
        found = self._paths.get(name)
        if found is None:
            parts = (native.Native.escape(part) for part in name.split(".") if part)
            found = self._paths[name] = "/".join((self._prefix, *parts))
        return found

    def forget(self) -> None:
        """Release the last record, because its arguments may keep objects of the test alive. Call this after a test."""
        self._last = None

    def close(self) -> None:
        """Give pytest's handler its own attribute `terminator` again."""
        if self._handler is not None:
            self._handler.__dict__.pop("terminator", None)


def _text(record: logging.LogRecord) -> str:
    """Return the message of `record`, with its traceback and stack if it has these. pytest has formatted `record`."""
    parts = [record.message]
    if record.exc_text:
        parts.append(record.exc_text)
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)
