"""The workers that take tasks: which work items each of them has, and the messages that go to them.

Covers: the handles of workers, sending and taking back work items.
Does not cover: the rule by which a worker gets an item (`assignment.py`), processes (`worker_supervisor.py`).
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from mpr.scheduler import user_code
from mpr.scheduler.assignment import Assignment
from mpr.scheduler.work_item import WorkItem
from mpr.scheduler.worker_handle import WorkerActivity, WorkerHandle
from mpr.transport.messages import Stop
from mpr.transport.sockets import DownstreamServer, PeerGoneError


class ReadyWorkers:
    """The workers of one pool that are ready. The lock of the pool's books guards it.

    Parameters
    ----------
    down:
        Sends messages to workers.
    on_cancelled:
        Called with each work item that its caller had cancelled when a worker was about to get it.
    """

    def __init__(self, down: DownstreamServer, on_cancelled: Callable[[WorkItem], None]) -> None:
        self._down = down
        self._on_cancelled = on_cancelled
        self._assignment: Assignment[WorkItem] = Assignment()
        self._handles: dict[int, WorkerHandle] = {}

    # --- workers -----------------------------------------------------------------------------------------------

    def add(self, worker: int, handle: WorkerHandle, work_items: int | None, *, ahead: bool) -> None:
        """A worker is ready for so many work items in its life (None: any number), some of them ahead of time."""
        self._handles[worker] = handle
        self._send(self._assignment.ready(worker, work_items, ahead=ahead))

    def get(self, worker: int) -> WorkerHandle | None:
        """The handle of `worker`, if it is ready."""
        return self._handles.get(worker)

    def numbers(self) -> list[int]:
        """The workers that are ready."""
        return list(self._handles)

    def remove(self, worker: int) -> tuple[WorkerHandle | None, list[WorkItem]]:
        """Forget `worker`, which has ended. Returns its handle and the work items that it had."""
        return self._handles.pop(worker, None), self._assignment.lost(worker)

    def remove_all(self) -> None:
        """Forget all workers, and all work items that wait: the pool has ended."""
        # Their status pages must not be read any more, because they end with the aggregator.
        self._handles.clear()
        self._assignment.drop_waiting()

    def retire(self, worker: int) -> None:
        """Give `worker` no more work items."""
        self._assignment.retire(worker)

    def is_exhausted(self, worker: int) -> bool:
        """Whether `worker` has done all that it may do in its life."""
        return self._assignment.exhausted(worker)

    def stop(self, worker: int) -> None:
        """Tell `worker` to end when it has done what it was sent."""
        with contextlib.suppress(PeerGoneError):
            self._down.send(self._handles[worker].route, Stop())

    def stop_all(self) -> None:
        """Tell all workers to end."""
        for worker in self._handles:
            self.stop(worker)

    def activities(self) -> list[WorkerActivity]:
        """The present activity of each worker, for a display."""
        return [
            handle.activity(worker, self._assignment.assigned(worker))
            for worker, handle in self._handles.items()
            if handle.status_page is not None
        ]

    # --- work items --------------------------------------------------------------------------------------------

    def assigned(self, worker: int) -> Sequence[WorkItem]:
        """The work items of `worker`, the present one first."""
        return self._assignment.assigned(worker)

    def holder(self, work_item: WorkItem) -> int | None:
        """The worker that has `work_item`."""
        return next((each for each in self._handles if work_item in self._assignment.assigned(each)), None)

    def give(self, work_item: WorkItem) -> None:
        """Send `work_item` to a worker, now or when one has room for it."""
        self._send(self._assignment.add(work_item))

    def give_again(self, work_items: Iterable[WorkItem]) -> None:
        """Put work items that a worker had before all others, in this order."""
        self._send(self._assignment.add_first(work_items))

    def done(self, worker: int, work_item: WorkItem, micros: int) -> None:
        """`worker` has finished `work_item` in `micros`."""
        self._send(self._assignment.done(worker, work_item, micros))

    def skipped(self, worker: int, sequence: int) -> None:
        """Put the `sequence`-th work item of `worker` back into the queue: the worker did not run it."""
        handle = self._handles.get(worker)
        if handle is None:
            return
        # One that is being cancelled stays, and ends with the worker.
        ending = handle.planned_kill[0] if handle.planned_kill is not None else None
        missed = [
            each for each in self._assignment.assigned(worker) if each.sequence == sequence and each is not ending
        ]
        self._send(self._assignment.take_back(worker, missed))
        self.give_again(missed)

    def take_back(self, worker: int) -> list[WorkItem]:
        """Take back all work items that `worker` has not begun, and return them: the caller decides about them."""
        at = self._handles[worker].revoke()
        if at is None:
            return []
        taken = [each for each in self._assignment.assigned(worker) if each.sequence > at.sequence]
        self._send(self._assignment.take_back(worker, taken))
        return taken

    def could_take_back(self) -> bool:
        """Whether a worker has nothing to do while work items lie behind another one's."""
        return self._assignment.could_take_back()

    def drop(self, work_item: WorkItem) -> bool:
        """Forget `work_item` if it waits. Returns False if a worker has it, or it is not known."""
        return self._assignment.drop(work_item)

    def drop_waiting(self) -> list[WorkItem]:
        """Forget all work items that no worker has, and return them."""
        return self._assignment.drop_waiting()

    def _send(self, sends: list[tuple[int, WorkItem]]) -> None:
        waiting = deque(sends)
        while waiting:
            worker, work_item = waiting.popleft()
            if not user_code.start(work_item):
                self._on_cancelled(work_item)
                waiting.extend(self._assignment.take_back(worker, [work_item]))
                continue
            handle = self._handles[worker]
            # If the worker is gone, its end is on the way to us, and the work item with it.
            with contextlib.suppress(PeerGoneError):
                self._down.send(handle.route, *handle.assign(work_item))
