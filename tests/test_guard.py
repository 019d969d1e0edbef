"""Which errors are the fault of a producer's bytes, and which hellos are refused."""

from __future__ import annotations

import os
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import mpr
from mpr.aggregator import guard
from mpr.aggregator.guard import guarded, hear
from mpr.errors import FormatError
from mpr.transport import connection_info
from mpr.transport.messages import Hello, Ready
from mpr.transport.packing import MessageError
from mpr.transport.sockets import Connection
from tests import functions, support


class _Intake:
    """Raises what it takes, and keeps why it was cut off."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []

    def cut_off(self, error: Exception) -> None:
        self.errors.append(error)

    @guarded
    def take(self, error: BaseException) -> None:
        raise error


_BYTES = [
    struct.error("short"),
    OverflowError("large"),
    MemoryError("larger"),
    RecursionError("deep"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    ValueError("embedded null byte"),
    TypeError("none"),
    KeyError(7),
    IndexError("none"),
    AttributeError("none"),
    OSError("Corrupt Lz4 compressed data."),
    FormatError("no stream"),
    MessageError("no message"),
    pa.ArrowInvalid("no table"),
    pa.ArrowKeyError("no column"),
    pa.ArrowNotImplementedError("no type"),
]


@pytest.mark.parametrize("error", _BYTES, ids=lambda error: type(error).__name__)
def test_what_bytes_raise_cuts_off_their_producer(error: Exception) -> None:
    intake = _Intake()
    intake.take(error)
    assert intake.errors == [error]
    assert guard.describe(error)


@pytest.mark.parametrize(
    "error", [mpr.SinkError("full"), RuntimeError("a lock"), AssertionError("a bug"), KeyboardInterrupt(), SystemExit()]
)
def test_what_is_no_fault_of_the_bytes_is_raised(error: BaseException) -> None:
    intake = _Intake()
    with pytest.raises(type(error)):
        intake.take(error)
    assert intake.errors == []


def _raise(error: Exception) -> None:
    raise error


def test_an_error_of_a_listener_is_no_fault_of_the_bytes() -> None:
    with pytest.raises(MessageError):
        hear(_raise, MessageError("not its own"))
    with pytest.raises(RuntimeError, match="scheduler failed: ValueError"):
        hear(_raise, ValueError("a bug"))


@pytest.mark.parametrize("error", [FormatError("x" * 10_000), MessageError("\ud800"), ValueError("\ud800" * 400)])
def test_the_reason_is_a_short_text_that_can_be_written(error: Exception) -> None:
    assert len(guard.describe(error).encode()) < 4_000


_ROUTE = "a" * 32
_HELLOS: list[dict[str, Any]] = [
    {"pid": 0},
    {"pid": -1},
    {"pid": 2**31},
    {"pid": 10**400},
    {"worker": -1},
    {"worker": 10**400},
    {"route": ""},
    {"route": "\0"},
    {"route": "ü" * 8},
    {"route": "a" * 256},
    {"protocol": 4},
]


@pytest.mark.parametrize("change", _HELLOS, ids=str)
def test_a_hello_that_no_process_sends_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        config = connection_info.from_text(recording.environ()[connection_info.VARIABLE])
        connection = Connection(config.upstream, config.downstream)
        fields = {"worker": 0, "pid": os.getpid(), "route": _ROUTE, "address": "/proc/1/fd/\0", "status_page": "\0"}
        connection.send(Hello(config.secret, **(fields | change)))
        connection.send(Ready())
        assert connection.receive(0.2) is None
        connection.close()
        assert functions.log_number(1) == 1
    support.check_file(path)
    assert support.numbers(path) == Counter([1])
