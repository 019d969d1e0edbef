"""Asks the processes that have joined for their last rows, because the recording is about to close.

Covers: which processes are asked, which have answered, and the sentence about those that have not.
Does not cover: the workers of pools, which say goodbye when their pool ends, and the wait (`aggregator.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from mpr.aggregator.intake import ProducerIntake, process_lives
from mpr.transport.messages import FlushRequested, Hello


class FlushRequests:
    """The requests of one closing recording. Any thread may ask whether all are answered.

    Parameters
    ----------
    send:
        Sends a message to the producer with that hello, if the producer is still connected.
    """

    def __init__(self, send: Callable[[Hello, FlushRequested], None]) -> None:
        self._send = send
        self._asked: list[ProducerIntake] | None = None

    def ask(self, intakes: Iterable[ProducerIntake]) -> None:
        """Ask the processes of `intakes` that are no workers. The aggregator's thread calls this."""
        asked = [each for each in intakes if not each.hello.worker and not each.said_goodbye]
        for intake in asked:
            self._send(intake.hello, FlushRequested())
        self._asked = asked

    def are_answered(self) -> bool:
        """Whether each process has answered, has left or has ended."""
        return self._asked is not None and not any(map(_may_answer, self._asked))


def _may_answer(intake: ProducerIntake) -> bool:
    if intake.has_flushed or intake.said_goodbye:
        return False
    return _may_live(intake)


def _may_live(intake: ProducerIntake) -> bool:
    # The process ids of another container say nothing here.
    return intake.is_inline or (process_lives(intake.hello.pid) and not _is_zombie(intake.hello.pid))


def _is_zombie(pid: int) -> bool:
    """Return whether the process has ended, and only its exit code waits for its parent. False if that is unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    # The state comes after the name of the program, which stands in parentheses.
    return stat.rpartition(b")")[2].split()[0] == b"Z"


def lost_rows_note(intake: ProducerIntake) -> list[str]:
    """Return a sentence about the last rows of a process that has joined and has not left, if any may be missing."""
    if intake.hello.worker or not intake.may_lack_rows():
        return []
    who = f"a process (pid {intake.hello.pid})"
    if _may_live(intake):
        return [f"{who} was still logging when the recording was closed: its last rows are missing"]
    return [f"{who} ended without leaving the recording: its last rows may be missing"]
