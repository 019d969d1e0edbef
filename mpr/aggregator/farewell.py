"""Asks processes for their last rows when the recording is about to close, and reports rows that are lost.

Workers of pools are not asked, because they say goodbye when their pool ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from mpr.aggregator.fanout import Fanout
from mpr.aggregator.intake import ProducerIntake, process_lives
from mpr.transport.messages import Flush, Hello
from mpr.user_code import log as _log

# The pause between two looks whether all processes have answered.
_LOOK_SECS = 0.01


class FlushRequests:
    """Asks all processes of one recording that are no workers of a pool for their last rows, and waits for the answers.

    Parameters
    ----------
    intakes:
        The `ProducerIntake` of each connected process, by the name of the process. The aggregator's thread changes this
        dict.
    send:
        Sends a message to the process that has sent the given hello, if that process is still connected.
    soon:
        Has the aggregator's thread call the given function.
    """

    def __init__(
        self,
        intakes: Mapping[str, ProducerIntake],
        send: Callable[[Hello, Flush], None],
        soon: Callable[[Callable[[], None]], None],
    ) -> None:
        self._intakes = intakes
        self._send = send
        self._soon = soon
        self._asked: list[ProducerIntake] | None = None

    def collect(self, timeout_secs: float) -> bool:
        """Ask all processes that are no workers for their last rows, and wait up to `timeout_secs` for the answers.

        Returns True if each of them has answered or ended by then, else False. Any thread but the aggregator's may call
        this.
        """
        self._soon(self._ask)
        deadline = time.monotonic() + timeout_secs
        while self._asked is None or any(map(_may_answer, self._asked)):
            if time.monotonic() > deadline:
                return False
            # Nothing reports the end of a process that mpr has not started.
            time.sleep(_LOOK_SECS)
        return True

    def _ask(self) -> None:
        asked = [each for each in self._intakes.values() if not each.hello.worker and not each.said_goodbye]
        for intake in asked:
            self._send(intake.hello, Flush())
        self._asked = asked


def _may_answer(intake: ProducerIntake) -> bool:
    if intake.has_flushed or intake.said_goodbye:
        return False
    return _may_live(intake)


def _may_live(intake: ProducerIntake) -> bool:
    # A process whose outbox the parent cannot open may run in another container, whose process ids mean nothing here.
    return intake.is_inline or (process_lives(intake.hello.pid) and not _is_zombie(intake.hello.pid))


def _is_zombie(pid: int) -> bool:
    """Return True if process `pid` has ended, but its parent has not read the exit code yet. False if unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    # The state comes after the name of the program, which stands in parentheses.
    return stat.rpartition(b")")[2].split()[0] == b"Z"


def note_losses(intake: ProducerIntake, fanout: Fanout) -> None:
    """Log sentences about rows of a producer that are or may be lost, and write the sentences into the recording.

    The sentences are about rows of recordings that tasks have made themselves, and about the last rows of a process
    that is no worker. `ProducerIntake.salvage` reports other lost rows. Call this after `salvage`, when the producer or
    the recording ends. Does nothing if no such rows are or may be lost.
    """
    notes = intake.loss_notes()
    if not intake.hello.worker and intake.may_lack_rows():
        lives = _may_live(intake)
        how = "was still logging when the recording was closed" if lives else "ended without leaving the recording"
        notes.append(f"a process (pid {intake.hello.pid}) {how}: its last rows {'are' if lives else 'may be'} missing")
    for note in notes:
        _log.error("mpr: %s", note)
    fanout.note(notes)
