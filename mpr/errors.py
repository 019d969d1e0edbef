"""Defines the error classes of mpr. Those that a user may catch are in one tree.

All errors can be pickled. A sink is a destination of rows, such as a file. `FormatError` and `ReleasedError` are
internal, so they are not in the tree.

```
MprError
├── ConfigError (ValueError)          a value given to mpr cannot be used
├── MissingDependencyError (ImportError)  an optional package is not installed
├── RecordingError
│   ├── RecordingClosedError          the recording was closed before this call
│   ├── JoinError                     this process cannot join a recording
│   ├── SinkError (OSError)           a sink could not be opened or written
│   ├── ConflictError                 one timeline or component has two types
│   ├── DeliveryError                 rows that were logged could not be written to the sinks
│   └── PictureError                  no picture of the recording could be drawn
│       └── NoViewerError             this machine can draw no picture of any recording
└── PoolError
    ├── PoolClosedError (ValueError, RuntimeError)  the pool takes no more tasks
    ├── WrongProcessError (RuntimeError)  a pool or recording of another process was used
    ├── UnpicklableTaskError (PicklingError, TypeError)  a task, argument, initializer or result cannot be pickled
    ├── TaskLoadError                 a worker could not unpickle a task
    ├── InitializerError (BrokenExecutor)  the initializer failed in a worker, so the pool has ended
    ├── TaskError                     an outcome of a task could not be transferred
    ├── WorkerStartError (BrokenExecutor)  no worker gets ready, so the pool has ended
    ├── WorkerDiedError               a worker died before it had sent the result of this task
    ├── TaskTimeoutError (TimeoutError)  a task ran longer than the pool allows
    └── PoolTerminatedError           the pool was terminated before this task had a result
```
"""

from __future__ import annotations

import functools
import pickle
import signal
from concurrent.futures import BrokenExecutor
from typing import Any


class MprError(Exception):
    """The base class of the errors of mpr that a user may catch."""


class ConfigError(MprError, ValueError):
    """A value given to mpr cannot be used. The message says which value, and why."""


class MissingDependencyError(MprError, ImportError):
    """An optional package is not installed. The message has the `pip install` command for this package.

    Attributes
    ----------
    package:
        The name of the package.
    extra:
        The extra of `rerun-mpr` that installs the package, as in `pip install 'rerun-mpr[extra]'`.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"'{package}' is needed for this and is not installed: pip install {package} (the extra '{extra}' has it, "
            f"too: pip install 'rerun-mpr[{extra}]', or pip install '.[{extra}]' in a clone of mpr)"
        )
        self.package = package
        self.extra = extra

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.package, self.extra)


class RecordingError(MprError):
    """The base class of errors of a recording or of one of its sinks."""


class RecordingClosedError(RecordingError):
    """The recording was closed before this call, or the process that had made the recording has ended.

    If a `SharedRecording` is closed while a pool works for it, this error also ends the pool.
    """


class JoinError(RecordingError):
    """This process cannot join a recording. The message has the reason.

    For example, the process has not inherited the data that it needs, the process of the recording does not answer, or
    the recording belongs to another machine or another user.

    Attributes
    ----------
    machine:
        The name of the recording's machine; None unless the reason is that this process runs on another machine.
    """

    machine: str | None = None


class SinkError(RecordingError, OSError):
    """A sink could not be opened, written or read, or an `.rrd` file could not be recovered or verified.

    The message has the reason. `mpr recover` makes a valid file of an unfinished file that a failed sink has left.
    """


class ConflictError(RecordingError):
    """One timeline, or one component of an entity, has two types, usually because two processes log it differently.

    All rows are in the recording, but Rerun uses only one of the types. It shows the rows of the other type wrongly or
    not at all. The end of a recording raises this error, unless its `with` block has raised, or another error comes
    first.
    """


class DeliveryError(RecordingError):
    """Rows that were logged could not be written to the sinks.

    The call that returns the result of a task raises this error if rows of the task may be missing.
    `SharedRecording.close` raises it if the counts show that rows of any process are missing.
    """


class PictureError(RecordingError):
    """A picture of a recording could not be drawn, or not within the time limit of the call. The message says why."""


class NoViewerError(PictureError):
    """This machine can draw no picture of any recording, for example because no viewer is installed."""


class PoolError(MprError):
    """The base class of errors of a pool or of one of its workers."""


class PoolClosedError(PoolError, ValueError, RuntimeError):
    """The pool was closed or terminated and takes no more tasks. If an error has ended it, calls raise that error.

    This error is a `ValueError`, as in `multiprocessing.Pool`, and a `RuntimeError`, as in `concurrent.futures`.
    """


class WrongProcessError(PoolError, RuntimeError):
    """A pool or a recording was used in a process that has not made it, or a recording was pickled.

    In a worker, or in a process that has joined the recording, plain `rr.log` needs neither of the two.
    """


class UnpicklableTaskError(PoolError, pickle.PicklingError, TypeError):
    """A task function, argument, initializer, pool or result cannot be pickled. The message says which object.

    For a result, the error has a note that names the task, and is a `MaybeEncodingError` of `multiprocessing`, too.
    This error is also raised if a task function is not callable.
    """


class TaskLoadError(PoolError):
    """A worker could not unpickle a task, for example because the worker lacks a module. The pool goes on.

    If a worker cannot unpickle the initializer, this error is the `__cause__` of an `InitializerError`.
    """


class InitializerError(PoolError, BrokenExecutor):
    """The initializer raised an exception in a worker, or could not be unpickled there. This ends the pool.

    Each call without a result raises this error, and so does each later call. The `__cause__` is the exception, or a
    `TaskLoadError` if the initializer could not be unpickled. Its own `__cause__` has the traceback in the worker as
    text.
    """


class TaskError(PoolError):
    """An exception of a task could not be pickled or unpickled, or its result could not be unpickled in the parent.

    For an exception, the message has its type and text, and the `__cause__` the traceback in the worker. For a result,
    the `__cause__` is the error of unpickling. A result that cannot be pickled is an `UnpicklableTaskError` instead.
    """


class WorkerStartError(PoolError, BrokenExecutor):
    """Three workers in a row ended before they were ready for tasks, or no worker process could be started.

    This ends the pool: each call without a result raises this error, and so does each later call.
    """


def died_at_start(exitcode: int | None, obstacle: str | None = None) -> WorkerStartError:
    """Return the error for workers that end before they are ready for tasks.

    `exitcode` is the exit code of the last of these workers, as in `WorkerDiedError`. `obstacle` is the reason in
    words; None if unknown.
    """
    if obstacle is not None:
        return WorkerStartError(f"workers cannot start: {obstacle}")
    return WorkerStartError(
        f"workers end before they are ready; the last one {describe_exit(exitcode)}. What it wrote to stderr says why. "
        "A frequent reason: the main script makes its pool without \"if __name__ == '__main__':\", or cannot be "
        "imported a second time"
    )


class PoolTerminatedError(PoolError):
    """The pool was terminated before this task had a result.

    Causes are `Pool.terminate`, an error in the pool's `with` block, and the end of a program that has not closed the
    pool. Later calls of the pool raise `PoolClosedError`.
    """


class WorkerDiedError(PoolError):
    """A worker process ended while it ran a task, or before it had sent the result. The pool goes on.

    A pool with `retries` runs the task again first. It raises this error only if the last attempt's worker dies, too.

    Attributes
    ----------
    task:
        The name of the task function, and the index of the task in its call, such as `detect[3]`.
    worker:
        The worker's number, unique in its pool. 0 if the worker belongs to an engine.
    pid:
        The process id of the worker. 0 if the worker belongs to an engine.
    exitcode:
        The exit code of the worker, negative for a signal, as in `multiprocessing.Process.exitcode`. None if unknown.
    ended:
        True if the task had run to its end before the worker ended, so that only its result is lost.
    rows:
        The number of rows of the task that are in the recording; None if unknown.
    silent_secs:
        The time in seconds from the arrival of the worker's last rows to the time at which the parent noticed its end.
        None if no rows have arrived.
    engine:
        (name of the engine, what the engine says about the death). The `__cause__` is then the engine's error. None if
        the worker belongs to mpr.
    """

    def __init__(
        self,
        task: str,
        worker: int,
        pid: int,
        exitcode: int | None,
        *,
        ended: bool = False,
        rows: int | None = None,
        silent_secs: float | None = None,
        engine: tuple[str, str] | None = None,
    ) -> None:
        when = "after it had run, before it had handed over," if ended else "while it ran"
        kept = "The rows that it had logged until then are"
        if rows is not None:
            kept = f"{rows} {'row of the task is' if rows == 1 else 'rows of the task are'}"
        last = f"; the last rows of this worker came {silent_secs:.1f} s before" if rows and silent_secs else ""
        text = (
            f"{describe_process(worker, pid)} {describe_exit(exitcode)} {when} task {task}. {kept} in the "
            f"recording{last}. The other tasks are not concerned."
        )
        if engine is not None:
            name, reason = engine
            text = f"a worker of {name} died while it had task {task}. {kept} in the recording. {name} says: {reason}"
        super().__init__(text)
        self.task = task
        self.worker = worker
        self.pid = pid
        self.exitcode = exitcode
        self.ended = ended
        self.rows = rows
        self.silent_secs = silent_secs
        self.engine = engine

    def __reduce__(self) -> tuple[Any, ...]:
        made = functools.partial(
            type(self), ended=self.ended, rows=self.rows, silent_secs=self.silent_secs, engine=self.engine
        )
        return made, (self.task, self.worker, self.pid, self.exitcode)


class TaskTimeoutError(PoolError, TimeoutError):
    """A task ran longer than the pool's `task_timeout`, so the pool killed and replaced its worker. There is no retry.

    Attributes
    ----------
    task, worker, pid:
        The same as in `WorkerDiedError`.
    seconds:
        The `task_timeout` of the pool: the longest time in seconds that a task may run.
    """

    def __init__(self, task: str, worker: int, pid: int, seconds: float) -> None:
        super().__init__(
            f"task {task} ran for more than {seconds:g} s, so its {describe_process(worker, pid)} was ended and is "
            "replaced. The rows that it had logged until then are in the recording. Give mpr.Pool a longer "
            "task_timeout if it needs more time."
        )
        self.task = task
        self.worker = worker
        self.pid = pid
        self.seconds = seconds

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.task, self.worker, self.pid, self.seconds)


def describe_process(worker: int, pid: int) -> str:
    """Return 'worker 3 (pid 71)' for `worker` 3 and `pid` 71. If `worker` is 0 (no worker), return 'process 71'."""
    return f"worker {worker} (pid {pid})" if worker else f"process {pid}"


def describe_exit(exitcode: int | None) -> str:
    """Return `exitcode` in words, such as 'was killed by SIGTERM' or 'exited with code 3'.

    A negative `exitcode` means a signal, such as -9 for signal 9. None means unknown.
    """
    if exitcode is None:
        return "ended in an unknown way"
    if exitcode < 0:
        hint = " (out of memory?)" if -exitcode == signal.SIGKILL else ""
        return f"was killed by {exit_name(exitcode)}{hint}"
    return f"exited with {exit_name(exitcode)}"


def exit_name(exitcode: int) -> str:
    """Return 'SIGKILL' for `exitcode` -9, 'signal 99' for -99 (no known signal), and 'code 3' for 3."""
    if exitcode >= 0:
        return f"code {exitcode}"
    try:
        return signal.Signals(-exitcode).name
    except ValueError:
        return f"signal {-exitcode}"


class FormatError(ValueError):
    """The bytes of a stream or a file are damaged, or are not in an `.rrd` format that mpr knows."""


# Tracebacks and pickles show each error under the name that users write, such as `mpr.SinkError`. Public classes that
# are not errors keep their own module, because `inspect.getsource` and `typing.get_type_hints` look there for a class.
for _each in [each for each in globals().values() if isinstance(each, type) and issubclass(each, MprError)]:
    _each.__module__ = "mpr"


class ReleasedError(RuntimeError):
    """Bytes of an outbox cannot be read, because their memory was released, or because an earlier message had them.

    A producer catches this error, because it means that the parent has already read the end of the producer's outbox
    (`producer/outbox_writer.py`). In the parent, this error means a bug in mpr or a damaged outbox.
    """
