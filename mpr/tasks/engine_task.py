"""Finds out which task of another engine makes the present call, and gives this call a key.

An engine may run a task again: Ray and Dask do so if a worker has died, or if a result was lost. A *run* is one time
that an engine runs a task. The key has the number of the call among the calls of the same function in its run. So a
call has the same key in all runs, if each run makes its calls in the same order. By the key, the parent recognizes a
call whose rows are all in the recording already (`aggregator/complete_tasks.py`).

| engine | the task is known by | the run is known by |
|---|---|---|
| Ray | session, task id | attempt number |
| Dask | scheduler, key, number of the submission | run id |

Covers: Ray and Dask, if this process has imported them. Calls of other engines have no key.
Does not cover: the question whether a task is complete (`producer/key_questions.py`), a repeated run
(`producer/muted.py`).
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

from mpr.transport.messages import KEY_BYTES

# The number of runs in one event loop whose calls are counted at the same time. Of more runs, the oldest is forgotten.
_RUNS_MAX = 16_384


class _Run(NamedTuple):
    """One run of an engine's task. `task` identifies the task, and `number` the run (None: the engine does not say).

    `attempt` is the number of earlier runs of the task; None if unknown.
    """

    task: str
    number: int | None
    attempt: int | None


@dataclass(frozen=True, slots=True)
class EngineCall:
    """A call of a function within a task of an engine.

    Attributes
    ----------
    key:
        The same bytes for this call in all runs of the task (see the module); empty if the engine never runs it again.
    attempt:
        The number of earlier runs of the task; None if unknown.
    """

    key: bytes
    attempt: int | None

    def is_repeated(self, is_complete: Callable[[bytes], bool]) -> bool:
        """Return True if the rows of this call are in the recording already, from an earlier run.

        `is_complete(key)` asks the parent. It is not called if `attempt` is 0, or if `key` is empty.
        """
        return bool(self.key) and self.attempt != 0 and is_complete(self.key)


class _Counts(threading.local):
    """Counts in each thread how many calls of each function a run has made."""

    def __init__(self) -> None:
        self.counts: dict[tuple[_Run, str], int] = {}
        self.last: _Run | None = None

    def next(self, run: _Run, function: str) -> int:
        """Count one more call of `function` in `run`. Return its number, from 1."""
        if run != self.last:
            self.last = run
            # In a thread without an event loop, a run has ended when the next one begins.
            while self.counts and (len(self.counts) >= _RUNS_MAX or not _in_event_loop()):
                del self.counts[next(iter(self.counts))]
        number = self.counts[run, function] = self.counts.get((run, function), 0) + 1
        return number


_counts = _Counts()


def current_call(function: str, recording_id: str) -> EngineCall | None:
    """Return the call of `function` that begins now. Returns None if no task of Ray or Dask is found in this thread.

    Call this once for each call of `function`, because the number of the call in its run is a part of the key.
    """
    run = _current_run()
    if run is None:
        return None
    number = _counts.next(run, function)
    text = "\0".join((run.task, recording_id, function, str(number)))
    # Names of functions and keys of Dask may have a lone surrogate.
    return EngineCall(blake2b(text.encode(errors="surrogatepass"), digest_size=KEY_BYTES).digest(), run.attempt)


def current_attempt() -> int | None:
    """Return how many earlier runs the present task of Ray has had (0 for its first run).

    Returns None if Ray does not say this, in a task of Dask, and if no task of an engine runs in this thread.
    """
    run = _current_run()
    return None if run is None else run.attempt


def _current_run() -> _Run | None:
    for module, find in (("ray", _run_of_ray), ("distributed.worker", _run_of_dask)):
        engine = sys.modules.get(module)
        if engine is not None:
            try:
                run = find(engine)
            except Exception:  # noqa: BLE001  # a release of the engine that has other names: there is no key then
                run = None
            if run is not None:
                return run
    return None


def _run_of_ray(ray: Any) -> _Run | None:
    if not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    # In the process that has called `ray.init`, no task runs, and Ray would log a warning.
    if context.worker.mode != ray.WORKER_MODE or (task := context.get_task_id()) is None:
        return None
    # A private name. Without it, the parent is asked about each call.
    attempt_of = getattr(context.worker.core_worker, "get_current_task_attempt_number", None)
    # In an event loop of an actor, Ray does not say the attempt of the present coroutine.
    attempt = None if attempt_of is None or _in_event_loop() else attempt_of()
    # Each new cluster gives the same ids to its first tasks.
    return _Run(f"ray\0{context.get_session_name()}\0{task}", attempt, attempt)


def _run_of_dask(module: Any) -> _Run | None:
    try:
        worker = module.get_worker()
    except ValueError:
        return None
    key = worker.active_threads.get(threading.get_ident())
    if key is None and _in_event_loop():
        key = _key_of_coroutine(worker)
    # The name of an actor's method is no key.
    task = worker.state.tasks.get(key)
    if task is None:
        return None
    # If a user submits an equal call later, Dask gives it the same key, but another generation in its priority.
    return _Run(f"dask\0{worker.scheduler.address}\0{key!r}\0{task.priority[:2]}", task.run_id, None)


def _key_of_coroutine(worker: Any) -> Any:
    """Return the key of Dask's task that the present coroutine runs; None if there is none.

    `worker` is Dask's worker.
    """
    current = asyncio.current_task()
    name = None if current is None else current.get_name()
    return next((key for key in list(worker.active_keys) if name == f"execute({key!r})"), None)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
