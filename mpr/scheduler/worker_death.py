"""What becomes of the tasks that a worker had when it died. No I/O."""

from __future__ import annotations

from concurrent.futures import CancelledError
from dataclasses import dataclass

from mpr.aggregator.listener import SurvivingRows
from mpr.errors import WorkerDiedError, describe_exit
from mpr.scheduler.work_item import WorkItem
from mpr.transport.status_page import At


@dataclass(frozen=True, slots=True)
class WorkerLoss:
    """A worker that has ended before its time.

    Attributes
    ----------
    at:
        What it was at; None where nobody knows.
    planned_kill:
        Why it was ended on purpose: the work item that it was at, and what its task is told.
    kept:
        What there is of its rows.
    """

    worker: int
    pid: int
    exitcode: int | None
    at: At | None
    planned_kill: tuple[WorkItem, BaseException] | None
    kept: SurvivingRows

    def settle(self, work_item: WorkItem, retries: int, notes: list[str]) -> list[tuple[int, BaseException]]:
        """What `work_item` had begun fails, or is to be tried again; the rest of it is still to be done.

        Returns the errors of its tasks, and adds to `notes` what the recording should say.
        """
        begun, running = work_item.begun(self.at)
        planned_kill = (
            self.planned_kill[1] if self.planned_kill is not None and self.planned_kill[0] is work_item else None
        )
        cancelled = isinstance(planned_kill, CancelledError)
        if cancelled:
            begun = work_item.count
        elif planned_kill is None and begun > work_item.first and work_item.attempt <= retries:
            work_item.retry(begun)
            notes.append(
                f"worker {self.worker} (pid {self.pid}) {describe_exit(self.exitcode)} at task "
                f"{work_item.name(begun - 1)}, which is run again (attempt {work_item.attempt})"
            )
            return []
        errors: list[tuple[int, BaseException]] = []
        for task in range(work_item.first, begun):
            error = planned_kill if planned_kill is not None and (cancelled or task == running) else None
            # Rows of several tasks cannot be told apart.
            errors.append((task, error or self._death(work_item, task, running, alone=begun == work_item.first + 1)))
            notes.append(f"task {work_item.name(task)} was cancelled" if cancelled else str(errors[-1][1]))
        if errors:
            work_item.settle(len(errors))
            work_item.attempt = 1
        return errors

    def _death(self, work_item: WorkItem, task: int, running: int, *, alone: bool) -> WorkerDiedError:
        return WorkerDiedError(
            work_item.name(task),
            self.worker,
            self.pid,
            self.exitcode,
            ended=task != running,
            rows=self.kept.rows if alone else None,
            silent_secs=self.kept.silent_secs,
        )
