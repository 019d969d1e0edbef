"""Runs a worker process from its start to its end.

Covers: the environment, joining the recording, the initializer, `worker_exit`.
Does not cover: the loop over the tasks (`loop.py`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy  # noqa: F401  # imported before a fork, so that workers of the fork server have it
import rerun  # noqa: F401  # as above

from mpr import failpoints
from mpr.processes import task_pickling
from mpr.processes.pickling import Portable
from mpr.producer import membership
from mpr.sdk import forks, settings
from mpr.tasks.execution import note_error
from mpr.transport.messages import (
    InitializerFailed,
    Ready,
)
from mpr.user_code import exit_with, traceback_text
from mpr.user_code import log as _log
from mpr.worker import forked_child
from mpr.worker.capture import Capture
from mpr.worker.loop import WorkerLoop

if TYPE_CHECKING:
    from mpr.producer.producer import Producer
    from mpr.worker.config import WorkerConfig


def main(config: WorkerConfig, initializer: Portable) -> None:
    """Run as worker `config.worker`: join, call the initializer, and run tasks until the parent stops this worker.

    The value of `initializer` has the user's initializer (None for none), the tuple of its arguments, and `worker_exit`
    (None for none), which is called after the last task. If the initializer raises or cannot be unpickled, the parent
    gets the exception, and no task runs. If this process can send no more rows to the parent, the process ends in this
    function. Raises the errors of `producer.Producer` if this process cannot join.
    """
    if config.environ is not None:
        strict_mode = settings.strict_mode_of_environment()
        os.environ.clear()
        os.environ.update(config.environ)
        # The server may have read another time zone, because it may have started with another environment.
        time.tzset()
        settings.follow_environment(strict_mode)
    if config.preloaded:
        forks.forbid_preloaded_servers()
    producer = membership.take_over(config.recording, config.worker)
    capture = Capture(config.capture)
    failpoints.arm(config.worker)
    failpoints.reach("worker.started")
    forked_child.watch()
    began_ns = time.monotonic_ns()
    try:
        function, arguments, worker_exit = task_pickling.load_initializer(initializer)
        began_ns = time.monotonic_ns()
        if function is not None:
            producer.begin_task()
            function(*arguments)
            if forked_child.is_child[0]:
                exit_with(None)
            producer.inbox.own_main_thread()
            # Keep the settings of the SDK that the initializer has changed, because it changes them for all tasks.
            if producer.settings is not None:
                producer.settings.keep()
            producer.flush()
    except BaseException as error:  # noqa: BLE001  # also SystemExit: the parent must hear of it
        if forked_child.is_child[0]:
            exit_with(error)
        producer.inbox.own_main_thread()
        producer.flush()
        payload = task_pickling.dump_exception(error)
        if forked_child.is_child[0]:
            exit_with(None)
        producer.send(InitializerFailed(payload))
        membership.close_worker(producer)
        return
    producer.inbox.own_main_thread()
    producer.send(Ready((time.monotonic_ns() - began_ns) // 1000))
    WorkerLoop(producer, capture, waits=config.results_wait).run()
    if worker_exit is not None:
        _call_at_exit(worker_exit, producer)
    membership.close_worker(producer)


def _call_at_exit(worker_exit: Callable[[], object], producer: Producer) -> None:
    """Call `worker_exit`. If it raises, write the error to stderr and into the recording: no task has failed."""
    producer.begin_task()
    try:
        worker_exit()
    except BaseException as error:  # noqa: BLE001  # also SystemExit: this worker must still say goodbye
        if forked_child.is_child[0]:
            exit_with(error)
        name = task_pickling.task_name(worker_exit)
        _log.warning("worker_exit %s raised in worker %d: %s", name, producer.worker, traceback_text(error))
        note_error(name, error)
    if forked_child.is_child[0]:
        exit_with(None)
