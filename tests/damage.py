"""Tasks that damage the memory files of their own worker, or send what no worker sends. Each logs one row before."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rerun as rr

import mpr
from mpr.producer import outbox_writer, router
from mpr.producer.producer import Producer
from mpr.rrd import framing, protobuf
from mpr.transport import encoding, messages
from mpr.transport.messages import (
    InitializerFailed,
    NewOutbox,
    Ready,
    Result,
    ResultInMemory,
    SegmentReady,
    TaskEnded,
    TaskRecordingRows,
)
from mpr.transport.outbox import Outbox, punch_hole
from mpr.transport.sockets import Connection
from tests import tasks


def _producer() -> Producer:
    found = router.producer()
    assert isinstance(found, Producer)
    return found


# --- the outbox ---------------------------------------------------------------------------------------------------


def _in_outbox(number: int, change: Callable[[Outbox, int, int], None]) -> None:
    """Log rows, and let `change` damage them before they are announced."""
    announcer = _producer()._writer.announcer
    # While this is held, no thread announces anything.
    with announcer._lock:
        outbox = announcer.current.outbox
        start = outbox.size()
        stream = rr.get_global_data_recording()
        assert stream is not None
        for step in range(20):
            rr.set_time("step", sequence=step)
            rr.log(f"damaged/{number}", rr.TextLog(secrets.token_hex(2000)))
            stream.flush()
        change(outbox, start, outbox.size())


def _behind(number: int, data: bytes) -> None:
    """Write `data` behind the rows, where the SDK would write the next ones."""
    _in_outbox(number, lambda outbox, _start, end: _write(outbox, data, end))


def _write(outbox: Outbox, data: bytes, at: int) -> None:
    os.pwrite(outbox.fd, data, at)


def zeros(number: int) -> None:
    _in_outbox(number, lambda outbox, start, end: _write(outbox, bytes(end - start), start))


def zeros_from_the_middle(number: int) -> None:
    _in_outbox(number, lambda outbox, start, end: _write(outbox, bytes((end - start) // 2), (start + end) // 2))


def hole(number: int) -> None:
    _in_outbox(number, lambda outbox, start, end: punch_hole(outbox.fd, start, end))


def hole_within(number: int) -> None:
    """Only pages within frames are gone."""
    _in_outbox(number, lambda outbox, start, end: punch_hole(outbox.fd, start + 8192, start + 16384))


def shrink(number: int) -> None:
    _in_outbox(number, lambda outbox, _start, _end: os.ftruncate(outbox.fd, 0))


def shrink_by_path(number: int) -> None:
    _in_outbox(number, lambda outbox, _start, _end: os.truncate(outbox.path, 0))


def shrink_status_page(_number: int) -> None:
    fd = _producer().status_page.fd
    assert fd is not None
    os.ftruncate(fd, 0)


def no_frame(number: int) -> None:
    _behind(number, b"\xff" * 64)


def endless_frame(number: int) -> None:
    _behind(number, framing.frame_header(framing.ARROW_MSG, 2**62) + b"\n" * 64)


def _frame(kind: int, payload: bytes) -> bytes:
    return framing.frame_header(kind, len(payload)) + payload


def chunk_of_zeros(number: int) -> None:
    _behind(number, _frame(framing.ARROW_MSG, bytes(400)))


def chunk_of_no_store(number: int) -> None:
    _behind(number, _frame(framing.ARROW_MSG, protobuf.encode_field(1, b"\xff" * 20) + bytes(100)))


def store_info_of_noise(number: int) -> None:
    _behind(number, _frame(framing.SET_STORE_INFO, b"\n\x03abc" + os.urandom(100)))


def store_id_that_is_no_text(number: int) -> None:
    store = protobuf.encode_field(2, b"\xff\xfe") + protobuf.encode_field(3, protobuf.encode_field(1, b"app"))
    info = protobuf.encode_field(2, protobuf.encode_field(2, store))
    _behind(number, _frame(framing.SET_STORE_INFO, info))


def long_varint_in_store_info(number: int) -> None:
    _behind(number, _frame(framing.SET_STORE_INFO, b"\x80" * 1_000_000))


def _end(number: int, footer: bytes) -> None:
    """Let the outbox end with `footer` and the closing bytes that belong to it."""

    def change(outbox: Outbox, _start: int, end: int) -> None:
        closing = framing.stream_footer(end + framing.FRAME_HEADER_SIZE, footer)
        _write(outbox, _frame(framing.END, footer) + closing, end)

    _in_outbox(number, change)


def _manifest(data: list[tuple[int, int | bytes]], schema: bytes = b"") -> bytes:
    parts = [(1, b"\x12\x01x"), (2, schema), (3, b"0" * 32), (4, _message(data))]
    return protobuf.encode_field(1, _message(parts))


def _message(parts: Any) -> bytes:
    return b"".join(protobuf.encode_field(number, value) for number, value in parts)


def footer_of_noise(number: int) -> None:
    _end(number, os.urandom(1000))


def footer_with_a_long_varint(number: int) -> None:
    _end(number, b"\x80" * 3_000_000)


def footer_that_claims_a_petabyte(number: int) -> None:
    _end(number, _manifest([(1, 1), (2, b"\x10abc"), (3, 2), (4, 2**50)]))


def footer_with_a_number_for_bytes(number: int) -> None:
    _end(number, _manifest([(1, 1), (2, 5), (3, 2), (4, 2**63)]))


def footer_that_is_no_arrow(number: int) -> None:
    _end(number, _manifest([(1, 1), (2, b"\xff\xff\xff\xff\xf0\xff\xff\x7f" + bytes(40)), (3, 0), (4, 48)]))


def end_without_closing_bytes(number: int) -> None:
    _behind(number, _frame(framing.END, b"") + b"\x01" * 32)


# --- messages -----------------------------------------------------------------------------------------------------


def _send(message: Any) -> None:
    _producer()._connection.send(message)


def _send_raw(*frames: bytes) -> None:
    connection = _producer()._connection
    with connection._up_lock:
        connection._up.send_multipart(frames)


def nothing_in_a_message(_number: int) -> None:
    _send_raw(b"")


def unknown_message(_number: int) -> None:
    _send_raw(b"\xfe" + os.urandom(40), b"x" * 100_000)


def cut_message(_number: int) -> None:
    _send_raw(encoding.encode(SegmentReady(0, 0, 5))[0][:7])


def deep_json(_number: int) -> None:
    _send_raw(encoding.encode(TaskEnded(1.0, None))[0][:1], b"[" * 1_000_000)


def text_without_encoding(_number: int) -> None:
    _send_raw(encoding.encode(TaskEnded(1.0, None))[0][:1], b'[1.0, "\\ud800"]')


def many_frames(_number: int) -> None:
    _send_raw(b"\xfe", *[b""] * 20_000)


def announces_what_is_not_there(_number: int) -> None:
    outbox = _producer()._writer.announcer.current
    _send(SegmentReady(outbox.number, 0, outbox.outbox.size() + 100_000))


def announces_too_much_for_a_file(_number: int) -> None:
    _send(SegmentReady(_producer()._writer.announcer.current.number, 0, 2**64 - 1))


def announces_another_outbox(_number: int) -> None:
    _send(SegmentReady(77, 0, 100))


def begins_an_outbox_that_is_not_open(_number: int) -> None:
    _send(SegmentReady(_producer()._writer.announcer.current.number + 1, 0, 0))


def outbox_with_a_nul(_number: int) -> None:
    _send(NewOutbox("/tmp/\0"))  # nothing is opened


def outbox_of_init(_number: int) -> None:
    _send(NewOutbox("/proc/1/fd/1"))


def its_outbox_again(_number: int) -> None:
    _send(NewOutbox(_producer()._writer.announcer.current.outbox.address))


def _result(**fields: Any) -> Result:
    values: dict[str, Any] = {"work_item": 2**63, "first": 0, "count": 1, "status": 0, "last": True, "micros": 1}
    return Result(**(values | {"payload": [b"x"], "number": 2**62} | fields))


def result_in_a_petabyte(_number: int) -> None:
    _send(ResultInMemory(_result(number=0), 0, (2**50).to_bytes(8, "little") * 4))


def result_in_no_area(_number: int) -> None:
    _send(ResultInMemory(_result(number=0), 200, (8).to_bytes(8, "little")))


def initializer_failed_too_late(_number: int) -> None:
    _send(InitializerFailed([b"x"]))


def ready_again(_number: int) -> None:
    _send(Ready())


def result_of_the_far_future(_number: int) -> None:
    _send(_result(number=2**62))


def hello_again(_number: int) -> None:
    _send(messages.Hello(_producer().config.secret, 1, os.getpid(), "route", ""))


def an_answer(_number: int) -> None:
    _send(messages.Accepted(0, 5))


def rows_of_noise(_number: int) -> None:
    _send(TaskRecordingRows(os.urandom(5000)))


def rows_without_an_end(_number: int) -> None:
    _send(TaskRecordingRows(b"RRF2\x00)\x00\x00\x01\x02\x00\x00" + _frame(framing.ARROW_MSG, b"\n\x02ab")))


def task_that_began_never(_number: int) -> None:
    _send(messages.TaskBegan(0, 0, 1, 2**64 - 1))


#: Each damage, the error of its task, and words of the error.
DAMAGES: list[tuple[Callable[[int], None], str, str]] = [
    (zeros, "DeliveryError", "no Rerun stream"),
    (zeros_from_the_middle, "DeliveryError", "no Rerun stream"),
    (hole, "DeliveryError", "has not all bytes"),
    (hole_within, "DeliveryError", "has not all bytes"),
    # Its memory files cannot shrink.
    (shrink, "PermissionError", "not permitted"),
    (shrink_by_path, "PermissionError", "not permitted"),
    (shrink_status_page, "PermissionError", "not permitted"),
    (no_frame, "DeliveryError", "unknown frame kind"),
    (endless_frame, "DeliveryError", "impossible size"),
    (chunk_of_zeros, "DeliveryError", "no Rerun stream"),
    (chunk_of_no_store, "DeliveryError", "no Rerun stream"),
    (store_info_of_noise, "DeliveryError", "no Rerun stream"),
    (store_id_that_is_no_text, "DeliveryError", "no text"),
    (long_varint_in_store_info, "DeliveryError", "more than 10 bytes"),
    (footer_of_noise, "DeliveryError", "no Rerun stream"),
    (footer_with_a_long_varint, "DeliveryError", "more than 10 bytes"),
    (footer_that_claims_a_petabyte, "DeliveryError", "claims 1125899906842624"),
    (footer_with_a_number_for_bytes, "DeliveryError", "cannot be read"),
    (footer_that_is_no_arrow, "DeliveryError", "cannot be read"),
    (end_without_closing_bytes, "DeliveryError", "is damaged"),
    (nothing_in_a_message, "DeliveryError", "what is no message"),
    (unknown_message, "DeliveryError", "unknown kind 254"),
    (cut_message, "DeliveryError", "what is no message"),
    (deep_json, "DeliveryError", "what is no message"),
    (text_without_encoding, "DeliveryError", "what is no message"),
    (many_frames, "DeliveryError", "what is no message"),
    (announces_what_is_not_there, "DeliveryError", "has not all bytes"),
    (announces_too_much_for_a_file, "DeliveryError", "worker"),
    (announces_another_outbox, "DeliveryError", "outbox 77"),
    (begins_an_outbox_that_is_not_open, "DeliveryError", "not opened"),
    (outbox_with_a_nul, "DeliveryError", "cannot be opened"),
    (outbox_of_init, "DeliveryError", "cannot be opened"),
    (its_outbox_again, "DeliveryError", "cannot be opened"),
    (result_in_a_petabyte, "DeliveryError", "bytes where"),
    (result_in_no_area, "DeliveryError", "no area 200"),
    (initializer_failed_too_late, "DeliveryError", "ready before"),
    (ready_again, "DeliveryError", "ready before"),
    (result_of_the_far_future, "DeliveryError", "behind result"),
    (hello_again, "DeliveryError", "should not send: Hello"),
    (an_answer, "DeliveryError", "should not send: Accepted"),
    (rows_of_noise, "DeliveryError", "no Rerun stream"),
    (rows_without_an_end, "DeliveryError", "without an end"),
    (task_that_began_never, "DeliveryError", "began at"),
]

_BY_NAME = {damage.__name__: damage for damage, _, _ in DAMAGES}


def log_and_damage(number: int, name: str) -> int:
    """Log row `number`, which the sinks get, and then do the damage `name`."""
    tasks.log_number(number)
    _producer().deliver()
    _BY_NAME[name](number)
    # The parent has it by then. Otherwise the SDK could write the rows of the next task over it.
    time.sleep(0.3)
    return number


def damage_and_log_much(number: int, name: str) -> int:
    """Do the damage `name`, and log more than an outbox holds, in several outboxes."""
    outbox_writer.OUTBOX_ROLL_BYTES = 20_000_000
    log_and_damage(number, name)
    for _ in range(10):
        tasks.log_noise(number, 8)
    return number


def noise_within_a_row(number: int) -> int:
    """Overwrite the inside of rows, so that only the SDK can notice it."""
    tasks.log_number(number)
    _producer().deliver()
    _in_outbox(number, lambda outbox, start, _end: _write(outbox, os.urandom(1500), start + 400))
    time.sleep(0.3)
    return number


def noise_within_rows(number: int) -> int:
    """Do that, and then send what is no message."""
    noise_within_a_row(number)
    unknown_message(number)
    return number


def log_damage_and_die(number: int, name: str) -> None:
    log_and_damage(number, name)
    os.kill(os.getpid(), signal.SIGKILL)


def noise_on_status_page(number: int, die: bool) -> int:
    """Overwrite the status page of this worker and its journal, and then die or go on."""
    tasks.log_number(number)
    producer = _producer()
    producer.deliver()
    fd = producer.status_page.fd
    assert fd is not None
    os.pwrite(fd, os.urandom(34 * 4096), 0)
    if die:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@mpr.task
def log_in_a_joined_process(number: int) -> int:
    return tasks.log_number(number)


def damage_in_a_joined_process(name: str, reported: Path) -> None:
    """Log through a decorated function, do the damage `name`, and log again. Writes down the error of that."""
    mpr.join()
    log_in_a_joined_process(1)
    _BY_NAME[name](2)
    time.sleep(0.3)
    try:
        log_in_a_joined_process(3)
    except mpr.DeliveryError as error:
        reported.write_text(str(error))


def steal_result(number: int, work_item: int) -> int:
    """Send a result of a work item that another worker has."""
    tasks.log_number(number)
    _send(_result(work_item=work_item, payload=[b"\x80\x04]\x94K\x07a."], number=500))
    return number


def say_hello_as(number: int, worker: int) -> int:
    """Say hello to the parent as another worker, with what this process knows of the recording."""
    producer = _producer()
    connection = Connection(producer.config.upstream, producer.config.downstream)
    outbox = Outbox(producer.config.folder)
    connection.send(messages.Hello(producer.config.secret, worker, os.getpid(), connection.route, outbox.address))
    connection.send(Ready())
    connection.send(InitializerFailed([b"x"]))
    answer = connection.receive(2)
    connection.close()
    outbox.close()
    assert answer is None
    return number
