"""Defines the state of a pool, the limits of its tasks and workers, and the count of workers that fail to start.

Covers: values and errors only.
Does not cover: the work items and the workers of a pool (`books.py`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from mpr.errors import ConfigError, PoolClosedError, PoolTerminatedError


def too_small(limit: int, used: int) -> ConfigError:
    """Return the error for a `maxmemoryperchild` of `limit` bytes, which is too small.

    Before its first task, a worker already has `used` resident bytes.
    """
    return ConfigError(
        f"maxmemoryperchild is {limit:,} bytes, but a worker has {used:,} resident before its first task: every task "
        "would need a new one. Choose more"
    )


@dataclass(frozen=True, kw_only=True)
class PoolLimits:
    """The limits of a pool's tasks and workers; None means no limit.

    Attributes
    ----------
    tasks:
        How many work items a worker gets in its life at most.
    memory:
        How many resident bytes a worker may have after a work item. If it has more, another worker replaces it.
    task_secs:
        How many seconds a task may run.
    retries:
        How often a task is run again if its worker has died.
    """

    tasks: int | None = None
    memory: int | None = None
    task_secs: float | None = None
    retries: int = 0


class PoolState(enum.Enum):
    """The state of a pool: it accepts calls (RUNNING), was closed (CLOSED), or was terminated (TERMINATED).

    A closed pool that has run all its tasks stays CLOSED: see `PoolLifecycle.is_finished`.
    """

    #: The pool accepts calls.
    RUNNING = "running"
    #: The pool accepts no new calls, and runs the tasks of earlier calls to their end.
    CLOSED = "closed"
    #: The pool starts no more tasks. Each task without an outcome gets an error.
    TERMINATED = "terminated"


class PoolLifecycle:
    """The state of one pool, and the error that ended the pool.

    Only one thread at a time may call `close`, `finish` and `terminate`.

    Attributes
    ----------
    state:
        Running, closed or terminated.
    is_finished:
        True after `finish`: the pool was closed, and `wait_until_done` has seen that no work is left.
    """

    def __init__(self) -> None:
        self.state: PoolState = PoolState.RUNNING
        self.is_finished: bool = False
        self._error: BaseException | None = None
        # Whether a call has raised the error that ended the pool.
        self._is_reported = False

    def check_running(self) -> None:
        """Raise the error that has ended the pool, or `PoolClosedError` if the pool accepts no new calls.

        Does nothing if the pool is running.
        """
        if self._error is not None:
            self._is_reported = True
            raise self._error
        if self.state is not PoolState.RUNNING:
            raise PoolClosedError("this pool is closed: it takes no more tasks. Make a new mpr.Pool for them")

    def close(self) -> None:
        """Accept no new calls from now on. Does nothing if the pool was closed or terminated before."""
        if self.state is PoolState.RUNNING:
            self.state = PoolState.CLOSED

    def finish(self) -> None:
        """Note that all tasks have their outcome. From now on, `refusal` returns an error."""
        self.is_finished = True

    def terminate(self, error: BaseException | None, *, is_reported: bool) -> None:
        """Set the state to terminated, because of `error` (None: the user has terminated the pool).

        If `is_reported` is True, a caller gets `error`, so `raise_unreported` does not raise it again. If an earlier
        error has ended the pool, the earlier error stays.
        """
        self.state = PoolState.TERMINATED
        if self._error is None:
            self._error = error
        self._is_reported = self._is_reported or is_reported

    def refusal(self) -> BaseException | None:
        """Return the error for a task that is submitted now; None if the pool accepts the task."""
        error = self.ending_error()
        if error is None and self.is_finished:
            return PoolClosedError("this pool has done its work and ended before this task was submitted")
        return error

    def ending_error(self) -> BaseException | None:
        """Return the error for tasks that have no outcome when the pool ends; None if the pool was not terminated."""
        if self._error is None and self.state is PoolState.TERMINATED:
            return PoolTerminatedError("the pool was terminated before this task had a result")
        return self._error

    def raise_unreported(self) -> None:
        """Raise the error that has ended the pool. Does nothing if there is none, or if a caller has got it before."""
        if self._error is not None and not self._is_reported:
            self._is_reported = True
            raise self._error

    @property
    def broke(self) -> bool:
        """True if an error has ended the pool."""
        return self._error is not None


class StartBudget:
    """Counts the workers that die one after another before they are ready. If there are too many, the pool ends.

    Without this limit, such workers would be replaced for ever, as in `multiprocessing.Pool`.

    Parameters
    ----------
    allowed:
        The pool ends after this number of deaths with no ready worker between them.
    """

    def __init__(self, allowed: int = 3) -> None:
        self._allowed = allowed
        self._failed = 0

    def started(self) -> None:
        """Count from zero again, because a worker is ready."""
        self._failed = 0

    def died_at_start(self) -> bool:
        """Count a worker that has died before it was ready.

        Returns True if another worker should be started, and False if the pool should end.
        """
        self._failed += 1
        return self._failed < self._allowed
