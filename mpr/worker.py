"""What a worker process does: it runs the tasks that come, one after another, and sends what becomes of them.

A result is sent behind the segments with the rows of its task, on the same socket: whoever has it has had them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy  # noqa: F401  # imported before a fork, so that a worker of our fork server need not
import rerun  # noqa: F401  # as above

from mpr import pickling, sdk
from mpr.errors import TaskLoadError
from mpr.messages import CALL, OK, RAISED, STAR, Buffer, Function, InitializerFailed, Ready, Result, Stop, Tasks
from mpr.pickling import Portable
from mpr.producer import Producer

if TYPE_CHECKING:
    from mpr.worker_config import WorkerConfig


def main(config: WorkerConfig, initializer: Portable) -> None:
    """Run as worker `config.worker` until the parent says stop or ends.

    `initializer` holds the user's initializer (or None) and its arguments.
    """
    if config.environ is not None:
        os.environ.clear()
        os.environ.update(config.environ)
    if config.preloaded:
        sdk.forbid_preloaded_servers()
    producer = Producer(config.recording, config.worker)
    producer.take_over_process()
    function, arguments = initializer.value
    if function is not None:
        try:
            producer.begin_task()
            function(*arguments)
            producer.flush()
        except BaseException as error:  # noqa: BLE001  # also SystemExit: the parent must hear of it
            producer.flush()
            producer.send(InitializerFailed(pickling.dump_exception(error)))
            producer.close()
            return
    producer.send(Ready())
    _Loop(producer).run()
    producer.close()


class _Loop:
    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._sources: dict[bytes, bytes] = {}
        self._functions: dict[bytes, Callable[..., Any]] = {}

    def run(self) -> None:
        while True:
            message = self._producer.receive()
            match message:
                case Tasks():
                    result = self._run(message)
                    self._producer.slate.write(result)
                    self._producer.send(result)
                case Function(digest, payload):
                    self._sources[digest] = payload
                case Stop():
                    return

    def _run(self, message: Tasks) -> Result:
        started = time.perf_counter()
        status, payload = self._outcome(message)
        # An exception is handed over like a result: after the rows.
        self._producer.flush()
        micros = int((time.perf_counter() - started) * 1e6)
        return Result(message.parcel, status, payload, min(micros, 0xFFFFFFFF))

    def _outcome(self, message: Tasks) -> tuple[int, list[Buffer]]:
        try:
            function = self._function(message.digest)
            arguments = _load_arguments(message)
            if message.mode == CALL:
                positional, keywords = arguments
                self._producer.begin_task()
                result: Any = function(*positional, **keywords)
            else:
                result = []
                for each in arguments:
                    self._producer.begin_task()
                    result.append(function(*each) if message.mode == STAR else function(each))
            return OK, pickling.dump_result(result)
        except BaseException as error:  # noqa: BLE001  # SystemExit and KeyboardInterrupt are the task's errors too
            return RAISED, pickling.dump_exception(error)

    def _function(self, digest: bytes) -> Callable[..., Any]:
        function = self._functions.get(digest)
        if function is None:
            function = self._functions[digest] = pickling.load_function(self._sources[digest])
        return function


def _load_arguments(message: Tasks) -> Any:
    try:
        return pickling.loads(message.payload)
    except BaseException as error:
        raise TaskLoadError(f"a worker cannot load the arguments of a task: {type(error).__name__}: {error}") from error
