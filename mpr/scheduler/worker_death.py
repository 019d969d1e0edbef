"""Decides which tasks of a dead worker fail, which are retried, and which go back to the queue. Does no I/O.

Covers: the decision for one work item.
Does not cover: the work items of the worker, and starting a new one (`worker_events.py`).
"""

from __future__ import annotations

from concurrent.futures import CancelledError
from dataclasses import dataclass

from mpr.aggregator.listener import SurvivingRows
from mpr.errors import WorkerDiedError, describe_exit, describe_process
from mpr.scheduler.work_item import WorkItem
from mpr.transport.status_page import At


@dataclass(frozen=True, slots=True)
class WorkerLoss:
    """Describes a worker that has ended, and decides what happens to its work items.

    Attributes
    ----------
    worker, pid:
        The worker's number, and its process id.
    exitcode:
        The exit code; negative for a signal, and None if unknown.
    at:
        The work item and the task that the worker ran last; None if the worker had no status page.
    planned_kill:
        The work item because of which mpr has killed the worker, and the error for its task; None if mpr did not kill
        the worker.
    kept:
        Which rows of the worker have survived.
    """

    worker: int
    pid: int
    exitcode: int | None
    at: At | None
    planned_kill: tuple[WorkItem, BaseException] | None
    kept: SurvivingRows

    def settle(self, work_item: WorkItem, retries: int, notes: list[str]) -> list[tuple[int, BaseException]]:
        """Decide which tasks of `work_item` fail, because the worker has died.

        Returns the tasks that fail, as pairs (number of the task in the work item, error). Changes `work_item` by
        `retry` or `fail`. Adds sentences for the recording to `notes`.

        - Tasks that the worker had not begun do not fail.
        - Tasks that the worker had begun are retried if `work_item.attempt` is at most `retries`. If not, they fail.
        - If mpr has killed the worker because of `work_item`, the begun tasks fail without a retry. If the caller has
          cancelled `work_item`, all its tasks without an outcome fail.
        """
        begun, running = work_item.begun(self.at)
        reason = self.planned_kill[1] if self.planned_kill is not None and self.planned_kill[0] is work_item else None
        is_cancelled = isinstance(reason, CancelledError)
        if is_cancelled:
            begun = work_item.count
        elif reason is None and begun > work_item.first and work_item.attempt <= retries:
            work_item.retry(begun)
            notes.append(
                f"{describe_process(self.worker, self.pid)} {describe_exit(self.exitcode)} at task "
                f"{work_item.name(begun - 1)}, which is run again (attempt {work_item.attempt})"
            )
            return []
        errors: list[tuple[int, BaseException]] = []
        for task in range(work_item.first, begun):
            if reason is not None and (is_cancelled or task == running):
                error = reason
            else:
                # The error says how many rows have survived only if a single task fails, because the rows of several
                # tasks cannot be told apart.
                error = self._death(work_item, task, running, alone=begun == work_item.first + 1)
            errors.append((task, error))
            notes.append(f"task {work_item.name(task)} was cancelled" if is_cancelled else str(error))
        if errors:
            work_item.fail(len(errors))
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
