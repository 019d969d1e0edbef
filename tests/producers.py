"""Drive the parent's side of a producer in this process: with real memory files, and with streams of the real SDK.

The producer's side is played by the test, so that a test can choose the moment at which the producer dies, and the
order in which its messages come.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rerun as rr

from mpr.aggregator.complete_tasks import CompleteTasks
from mpr.aggregator.fanout import Fanout
from mpr.aggregator.intake import IntakeContext, ProducerIntake
from mpr.aggregator.listener import SurvivingRows
from mpr.aggregator.numbers import RecordingNumbers
from mpr.aggregator.row_balance import RowTotals
from mpr.rrd import framing, relabel, store_id
from mpr.rrd.segment import Segment, TaskInfo
from mpr.rrd.writer import FileWriter
from mpr.sdk import encoder
from mpr.transport.messages import RETURNED, Hello, Result, SegmentReady, TaskBegan
from mpr.transport.outbox import Outbox
from mpr.transport.result_journal import ResultJournal
from mpr.transport.status_page import StatusPage
from tests import streams

#: The store id of all streams that `streams.encoded` makes.
STORE = store_id.store_id("mpr", "mpr")


def new_file(path: Path) -> FileWriter:
    """Return an open file for the rows of `streams.encoded`."""
    head = encoder.encoded_head()
    info = next(each for each in framing.frames_of(head) if each.kind == framing.SET_STORE_INFO)
    writer = FileWriter(path)
    writer.open(relabel.relabelled(encoder.preamble(1), STORE, head[info.payload : info.end]))
    return writer


def chunk(number: int) -> bytes:
    """Return one frame with a row: the scalar `number` at the entity `n`."""
    data = whole(number)
    return data[framing.HEADER_SIZE : framing.frames_of(data)[-1].start]


def whole(*numbers: int) -> bytes:
    """Return a whole stream, from the header to the footer, with a row for each number."""

    def write(stream: rr.RecordingStream) -> None:
        for number in numbers:
            stream.log("n", rr.Scalars(float(number)))

    return streams.encoded(write)


def result(number: int, *, payload: bytes = b"x") -> Result:
    return Result(number, 0, 1, RETURNED, True, 5, [payload], number=number, ended_nanos=9)


def open_memory_files() -> int:
    """Count the outboxes and status pages that this process has open, on either end."""
    # A map of memory has a descriptor of its own, which is closed with the last reference to the map.
    gc.collect()
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{name}").startswith("/memfd:mpr-outbox")
    return found


class Heard:
    """A listener that keeps what it hears, in order."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    @property
    def results(self) -> list[int]:
        return [each[1] for each in self.events if each[0] == "result"]

    def worker_ready(self, hello: Hello, status_page: Any, init_micros: int) -> None:
        self.events.append(("ready", hello.worker))

    def skipped(self, hello: Hello, skipped: Any) -> None:
        self.events.append(("skipped", skipped.sequence))

    def unfit(self, hello: Hello) -> None:
        self.events.append(("unfit", hello.worker))

    def task_info(self, hello: Hello, began: TaskBegan) -> TaskInfo:
        info = TaskInfo(
            number=began.task,
            name="task",
            index=began.task,
            attempt=began.attempt,
            worker=hello.worker,
            pid=hello.pid,
            started_nanos=began.started_nanos,
        )
        self.events.append(("task", began.task))
        return info

    def result(self, hello: Hello, result: Result, failure: BaseException | None) -> None:
        self.events.append(("result", result.number, failure))

    def sink_failed(self, error: Any) -> None:
        self.events.append(("sink failed", error))

    def initializer_failed(self, hello: Hello, failed: Any) -> None:
        self.events.append(("initializer failed", hello.worker))

    def worker_ended(
        self, worker: int, exitcode: int | None, said_goodbye: bool, kept: Callable[[], SurvivingRows]
    ) -> list[str]:
        self.events.append(("ended", worker, exitcode, said_goodbye, kept().rows))
        return []

    def recording_ended(self) -> None:
        self.events.append(("recording ended",))

    def broken(self, error: BaseException) -> None:
        self.events.append(("broken", error))


class NoObserver:
    """An observer of rows that looks at nothing."""

    def peek(self, segment: Segment) -> None: ...

    def note(self, footer: bytes) -> None: ...


def encode_notes(texts: Any) -> bytes:
    return encoder.warnings_by_sdk("mpr/workers", texts)


class ProducerEnd:
    """The files of a producer: its status page, its journal, and one outbox after another."""

    def __init__(self, folder: Path, worker: int = 1, *, pid: int | None = None, inline: bool = False) -> None:
        self.folder = folder
        self.page = StatusPage(folder)
        self.journal = ResultJournal(self.page)
        self.outboxes: list[Outbox] = []
        first = self.new_outbox()
        addresses = ("/proc/0/fd/0", "/proc/0/fd/0") if inline else (first.address, self.page.address)
        self.hello = Hello("secret", worker, os.getpid() if pid is None else pid, f"route{worker}", *addresses)
        self._results = 0

    @property
    def outbox(self) -> Outbox:
        return self.outboxes[-1]

    def new_outbox(self) -> Outbox:
        self.outboxes.append(Outbox(self.folder))
        return self.outbox

    def write(self, data: bytes) -> SegmentReady:
        """Write `data` into the outbox, and return the message that announces everything in it."""
        fd = os.open(self.outbox.path, os.O_WRONLY | os.O_APPEND)
        os.write(fd, data)
        os.close(fd)
        return self.segment()

    def log(self, *numbers: int) -> SegmentReady:
        """Write a row for each number into the outbox, without an end."""
        if not self.outbox.size():
            self.write(whole(0)[: framing.HEADER_SIZE])
        for number in numbers:
            self.write(chunk(number))
        return self.segment()

    def segment(self) -> SegmentReady:
        return SegmentReady(len(self.outboxes) - 1, 0, self.outbox.size())

    def note_result(self, *, sent: int = 0, needed: int = 0) -> Result:
        """Write the next result into the journal, behind everything in the outbox. Returns the result."""
        self._results += 1
        made = result(self._results)
        self.journal.write(made, self.segment(), sent, needed=needed, parent_reads=True)
        return made

    def close(self) -> None:
        for each in self.outboxes:
            each.close()
        self.page.close()


class ParentEnd:
    """The parent's side of producers: a file sink, the intakes, and the answers to the producers."""

    def __init__(self, path: Path, *, has_blueprint: bool = False) -> None:
        self.path = path
        self.heard = Heard()
        self.answers: list[Any] = []
        self.accepted_count = 0
        self.totals = RowTotals()
        self.writer = new_file(path)
        self.fanout = Fanout([self.writer], None, encode_notes, NoObserver(), STORE)
        self._context = IntakeContext(
            folder=path.parent,
            fanout=self.fanout,
            answer=lambda _, message: self.answers.append(message),
            totals=self.totals,
            numbers=RecordingNumbers(),
            complete_tasks=CompleteTasks(path.parent),
            on_accepted=self._count,
            has_blueprint=has_blueprint,
        )

    def _count(self) -> None:
        self.accepted_count += 1

    def intake(self, producer: ProducerEnd) -> ProducerIntake:
        return ProducerIntake(producer.hello, self._context, self.heard)
