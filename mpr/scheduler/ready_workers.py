"""Keeps the workers that can run tasks and the work items that each of them has, and sends messages to the workers.

Covers: the handles of workers, sending and taking back work items.
Does not cover: the rule by which a worker gets an item (`assignment.py`), processes (`worker_supervisor.py`).
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from mpr.scheduler.assignment import Assignment
from mpr.scheduler.outcomes import start
from mpr.scheduler.work_item import WorkItem
from mpr.scheduler.worker_handle import WorkerActivity, WorkerHandle
from mpr.transport.messages import Stop
from mpr.transport.packing import MessageError
from mpr.transport.sockets import DownstreamServer, PeerGoneError


class ReadyWorkers:
    """Keeps the workers of one pool that are ready. A thread must hold the lock of `PoolBooks` to change this object.

    Parameters
    ----------
    down:
        Sends messages to workers.
    on_cancelled:
        Called with each work item that is not sent, because its caller has cancelled it or set its result.
    """

    def __init__(self, down: DownstreamServer, on_cancelled: Callable[[WorkItem], None]) -> None:
        self._down = down
        self._on_cancelled = on_cancelled
        self._assignment: Assignment[WorkItem] = Assignment()
        self._handles: dict[int, WorkerHandle] = {}

    # --- workers -----------------------------------------------------------------------------------------------

    def add(self, worker: int, handle: WorkerHandle, work_items: int | None, *, ahead: bool) -> None:
        """Add the worker with the number `worker`, and send work items to it. `handle` is the handle of this worker.

        The worker gets up to `work_items` work items in its life (None: any number). If `ahead` is False, it has only
        one of them at a time.
        """
        self._handles[worker] = handle
        self._send(self._assignment.ready(worker, work_items, ahead=ahead))

    def get(self, worker: int) -> WorkerHandle | None:
        """Return the handle of worker number `worker`; None if this worker is not ready."""
        return self._handles.get(worker)

    def numbers(self) -> list[int]:
        """Return the numbers of the workers that are ready."""
        return list(self._handles)

    def remove(self, worker: int) -> tuple[WorkerHandle | None, list[WorkItem]]:
        """Forget `worker`, which has ended. Returns its handle (None if it was not ready) and its work items."""
        return self._handles.pop(worker, None), self._assignment.lost(worker)

    def remove_all(self) -> None:
        """Forget all workers and all work items in the queue, because the pool or the recording has ended."""
        # No status page of a worker may be read any more, because the aggregator closes the pages when it ends.
        for worker in self._handles:
            self._assignment.lost(worker)
        self._handles.clear()
        self._assignment.drop_waiting()

    def retire(self, worker: int) -> None:
        """Give worker number `worker` no more work items. The worker keeps the items that it has."""
        self._assignment.retire(worker)

    def is_exhausted(self, worker: int) -> bool:
        """Return True if worker number `worker` is known, has no work item, and may get no more."""
        return self._assignment.exhausted(worker)

    def stop(self, worker: int) -> None:
        """Tell worker number `worker`, which must be ready, to end after it has run the work items that it has.

        Does nothing if its process has ended.
        """
        with contextlib.suppress(PeerGoneError):
            self._down.send(self._handles[worker].route, Stop())

    def stop_all(self) -> None:
        """Tell all ready workers to end after they have run the work items that they have."""
        for worker in self._handles:
            self.stop(worker)

    def activities(self) -> list[WorkerActivity]:
        """Return the activity of each ready worker at this moment. Workers without a status page are left out."""
        return [
            handle.activity(worker, self._assignment.assigned(worker))
            for worker, handle in self._handles.items()
            if handle.status_page is not None
        ]

    # --- work items --------------------------------------------------------------------------------------------

    def assigned(self, worker: int) -> Sequence[WorkItem]:
        """Return the work items of worker number `worker`; an empty sequence if the worker is not known.

        The first one is the item that the worker runs, or will run next.
        """
        return self._assignment.assigned(worker)

    def holder(self, work_item: WorkItem) -> int | None:
        """Return the number of the ready worker that has `work_item`; None if there is none."""
        return next((each for each in self._handles if work_item in self._assignment.assigned(each)), None)

    def give(self, work_item: WorkItem) -> None:
        """Send `work_item` to a worker now, or as soon as a worker has room."""
        self._send(self._assignment.add(work_item))

    def give_again(self, work_items: Iterable[WorkItem]) -> None:
        """Put `work_items` at the front of the queue, in this order, and send them to workers that have room."""
        self._send(self._assignment.add_first(work_items))

    def done(self, worker: int, work_item: WorkItem, micros: int) -> None:
        """Note that `worker` has finished `work_item` in `micros` microseconds, and send the next work items."""
        self._send(self._assignment.done(worker, work_item, micros))

    def skipped(self, worker: int, sequence: int) -> None:
        """Put the `sequence`-th work item that was sent to `worker` into the queue again. The worker did not run it.

        Does nothing if the worker does not have this item any more, or is being killed because of it. Raises
        `MessageError` if the parent has not taken the item back.
        """
        handle = self._handles.get(worker)
        if handle is None:
            return
        if sequence > handle.revoked_sequence:
            raise MessageError(f"it skips work item {sequence}, which was not taken back")
        # If the worker is being killed because of a work item, this item is not put back. It gets its outcome when the
        # worker has ended.
        ending = handle.planned_kill[0] if handle.planned_kill is not None else None
        missed = [
            each for each in self._assignment.assigned(worker) if each.sequence == sequence and each is not ending
        ]
        self._send(self._assignment.take_back(worker, missed))
        self.give_again(missed)

    def take_back(self, worker: int) -> list[WorkItem]:
        """Take back all work items that `worker` has not begun, and return them. They are not in the queue.

        `worker` must be ready. Returns an empty list if the worker has no status page.
        """
        at = self._handles[worker].revoke()
        if at is None:
            return []
        taken = [each for each in self._assignment.assigned(worker) if each.sequence > at.sequence]
        self._send(self._assignment.take_back(worker, taken))
        return taken

    def could_take_back(self) -> bool:
        """Return True if the queue is empty, a worker that may get items has none, and another one has several."""
        return self._assignment.could_take_back()

    def drop(self, work_item: WorkItem) -> bool:
        """Remove `work_item` from the queue. Returns False if it is not in the queue, and else True."""
        return self._assignment.drop(work_item)

    def drop_waiting(self) -> list[WorkItem]:
        """Remove all work items from the queue, and return them. The items that workers have are not in the queue."""
        return self._assignment.drop_waiting()

    def _send(self, sends: list[tuple[int, WorkItem]]) -> None:
        waiting = deque(sends)
        while waiting:
            worker, work_item = waiting.popleft()
            if not start(work_item):
                self._on_cancelled(work_item)
                waiting.extend(self._assignment.take_back(worker, [work_item]))
                continue
            handle = self._handles[worker]
            # If the worker has ended, `WorkerEvents.worker_ended` is called soon. It decides what happens to the item.
            with contextlib.suppress(PeerGoneError):
                self._down.send(handle.route, *handle.assign(work_item))
