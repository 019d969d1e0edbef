"""The state of an outbox writer at moments that a whole run meets only by chance."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import rerun as rr

import mpr
from mpr.errors import FormatError
from mpr.producer import outbox_writer
from mpr.producer.producer import Producer
from mpr.rrd import framing
from mpr.transport.outbox import Outbox, OutboxReader


@pytest.fixture
def producer(tmp_path: Path) -> Iterator[Producer]:
    """The producer of this process for a recording that it has made."""
    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd") as recording:
        recording.stream.log("n", rr.Scalars(1.0))
        made: Producer = recording._runtime.parent.producer()
        yield made


def _ends(step: Callable[[], object]) -> bool:
    """Whether `step` returns within a bound."""
    thread = threading.Thread(target=step, daemon=True)
    thread.start()
    thread.join(30)
    return not thread.is_alive()


def test_rows_that_were_flushed_come_before_the_next_result(producer: Producer) -> None:
    producer.write_out()
    current = producer._writer.announcer.current
    assert current.written == current.outbox.size() > 0


def test_a_delivery_flushes_again_though_no_call_came(producer: Producer, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = producer._writer
    flushed: list[bool] = []
    monkeypatch.setattr(writer, "push", lambda: flushed.append(True))
    producer.log_counters.set_sees_all(True)
    producer.log_counters.count_call()
    writer.write_out()
    writer.write_out()
    assert flushed == [True]
    # Another thread may have begun to flush the rows of this one, but not ended.
    writer.write_out(in_any_case=True)
    assert flushed == [True, True]
    producer.log_counters.set_sees_all(False)
    writer.write_out()
    assert flushed == [True, True, True]


def test_a_process_that_can_deliver_no_more_asks_for_no_other_outbox(
    producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK would wait for ever for its writing thread, which has ended."""
    writer = producer._writer
    monkeypatch.setattr(writer, "push", lambda: setattr(writer, "spent", True))
    monkeypatch.setattr(writer.announcer, "have_opened", lambda _: pytest.fail("it asks for another outbox"))
    writer.roll()
    with pytest.raises(mpr.DeliveryError, match="cannot bring its rows to the recording any more"):
        writer.wait_for_credit()
    writer.spent = False


def test_rows_of_task_recordings_take_credit(producer: Producer) -> None:
    writer, recordings = producer._writer, producer.task_recordings
    assert not writer._is_full()
    recordings._sent_bytes = recordings._accepted_bytes + producer.config.outbox_bytes + 1
    assert writer._is_full()
    recordings.accept(recordings._sent_bytes - 5)
    assert recordings.unaccepted_bytes == 5
    assert not writer._is_full()


def test_a_process_whose_recording_is_gone_waits_for_no_room(producer: Producer) -> None:
    writer, recordings = producer._writer, producer.task_recordings
    recordings._sent_bytes = recordings._accepted_bytes + producer.config.outbox_bytes + 1
    producer._watch.lost = mpr.RecordingClosedError("gone")
    try:
        assert _ends(writer._wait_for_room)
    finally:
        recordings.accept(recordings._sent_bytes)
        producer._watch.lost = None


# --- the end of an outbox -----------------------------------------------------------------------------------------


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(tmp_path)
    yield made
    made.close()


def test_an_outbox_of_a_recording_that_is_switched_off_is_finished(outbox: Outbox) -> None:
    assert outbox_writer._is_ended(outbox)


def test_an_outbox_is_finished_if_its_end_is_there_or_was_taken(outbox: Outbox) -> None:
    os.write(outbox.fd, b"x" * 5000)
    assert not outbox_writer._is_ended(outbox)
    os.write(outbox.fd, framing.CLOSING)
    assert outbox_writer._is_ended(outbox)
    # The parent takes whole frames only, so it has taken the end, too.
    os.pwrite(outbox.fd, b"x" * (3 * 4096 - outbox.size()), outbox.size())
    assert not outbox_writer._is_ended(outbox)
    outbox.release(0, outbox.size())
    assert outbox_writer._is_ended(outbox)


def test_an_outbox_that_a_task_has_cut_is_not_copied_for_ever(outbox: Outbox, tmp_path: Path) -> None:
    os.write(outbox.fd, b"x" * 100)
    reader = OutboxReader(outbox.address, tmp_path)
    with (tmp_path / "target").open("wb") as target:
        reader.copy(target.fileno(), 0, 100)
        with pytest.raises(FormatError, match="ends 50 bytes too early"):
            reader.copy(target.fileno(), 50, 100)
    assert (tmp_path / "target").read_bytes() == b"x" * 150
    reader.close()


# The SDK's call for which a test has no time: it writes a little in each second, for longer than the limit.
_SLOW_SDK = """
import os, time
def flush(timeout_sec):
    time.sleep(timeout_sec)
    if grows():
        raise TimeoutError("not yet")
"""


@pytest.mark.parametrize("silent", [False, True])
def test_a_slow_sdk_is_waited_for_and_a_silent_one_is_not(
    silent: bool, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = producer._writer
    left = 12

    def grows() -> bool:
        nonlocal left
        left -= 1
        if not silent:
            os.posix_fallocate(writer.announcer.current.outbox.fd, 0, writer.announcer.current.outbox.size() + 1)
        return left > 0

    namespace: dict[str, Any] = {"__name__": "rerun.slow", "grows": grows}
    exec(_SLOW_SDK, namespace)
    monkeypatch.setattr(outbox_writer, "FLUSH_LOOK_SECS", 0.01)
    monkeypatch.setattr(outbox_writer, "FLUSH_SILENT_SECS", 0.05)
    stream: Any = type("Stream", (), {"flush": staticmethod(namespace["flush"])})
    monkeypatch.setattr(writer, "_parts", replace(writer._parts, stream=stream))
    failure = writer._flush_failure()
    monkeypatch.undo()
    assert failure.startswith("the SDK has written nothing") is silent
    assert (left <= 0) is not silent
