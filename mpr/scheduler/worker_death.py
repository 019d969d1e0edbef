"""What becomes of the tasks that a worker had when it died. No I/O."""

from __future__ import annotations

from concurrent.futures import CancelledError
from dataclasses import dataclass

from mpr.aggregator.listener import Kept
from mpr.errors import WorkerDiedError, describe_exit
from mpr.scheduler.work_item import Parcel
from mpr.transport.status_page import At


@dataclass(frozen=True, slots=True)
class Loss:
    """A worker that has ended before its time.

    Attributes
    ----------
    at:
        What it was at; None where nobody knows.
    verdict:
        Why it was ended on purpose: the parcel that it was at, and what its task is told.
    kept:
        What there is of its rows.
    """

    worker: int
    pid: int
    exitcode: int | None
    at: At | None
    verdict: tuple[Parcel, BaseException] | None
    kept: Kept

    def settle(self, parcel: Parcel, retries: int, notes: list[str]) -> list[tuple[int, BaseException]]:
        """What `parcel` had begun fails, or is to be tried again; the rest of it is still to be done.

        Returns the errors of its tasks, and adds to `notes` what the recording should say.
        """
        begun, running = parcel.begun(self.at)
        verdict = self.verdict[1] if self.verdict is not None and self.verdict[0] is parcel else None
        cancelled = isinstance(verdict, CancelledError)
        if cancelled:
            begun = parcel.count
        elif verdict is None and begun > parcel.first and parcel.attempt <= retries:
            parcel.retry(begun)
            notes.append(
                f"worker {self.worker} (pid {self.pid}) {describe_exit(self.exitcode)} at task "
                f"{parcel.name(begun - 1)}, which is run again (attempt {parcel.attempt})"
            )
            return []
        errors: list[tuple[int, BaseException]] = []
        for task in range(parcel.first, begun):
            error = verdict if verdict is not None and (cancelled or task == running) else None
            # Rows of several tasks cannot be told apart.
            errors.append((task, error or self._death(parcel, task, running, alone=begun == parcel.first + 1)))
            notes.append(f"task {parcel.name(task)} was cancelled" if cancelled else str(errors[-1][1]))
        if errors:
            parcel.settle(len(errors))
            parcel.attempt = 1
        return errors

    def _death(self, parcel: Parcel, task: int, running: int, *, alone: bool) -> WorkerDiedError:
        return WorkerDiedError(
            parcel.name(task),
            self.worker,
            self.pid,
            self.exitcode,
            ended=task != running,
            rows=self.kept.rows if alone else None,
            silent_secs=self.kept.silent_secs,
        )
