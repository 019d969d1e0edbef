"""Gives the processes and tasks of a recording their numbers: each process and each task gets a number of its own.

The number of a task is its *index*. Tasks of a pool get their indices from the pool instead, so a task of a pool and
another task may have the same index.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from mpr.transport.messages import Hello, Indices, Welcome
from mpr.transport.packing import MessageError

#: The most indices that one request may take. A process that asks for more has sent damaged bytes.
INDICES_MAX = 1024


class RecordingNumbers:
    """Counts the processes and the tasks of one recording. Any thread may call the methods, except for `welcome`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes = 0
        self._tasks = 0
        # The numbers of processes that have joined, by their routes. Only the aggregator's thread uses this.
        self._joined: dict[str, int] = {}

    def welcome(self, hello: Hello, inline: bool, key_filter: Callable[[Hello], str]) -> Welcome:
        """Return the answer to `hello`, with the number of the process that has sent `hello`.

        A worker keeps its number, and the process that has made the recording has 0. Any other process gets a new
        number in the first call, and the same number in later calls. `inline` is True if the process has to send its
        rows in messages. `key_filter` returns the address of the key filter for a hello. Only the aggregator's thread
        may call this.
        """
        if hello.worker or hello.is_owner:
            return Welcome(inline, hello.worker, key_filter(hello))
        if hello.route not in self._joined:
            self._joined[hello.route] = self.new_process()
        return Welcome(inline, self._joined[hello.route], key_filter(hello))

    def new_process(self) -> int:
        """Return a number for one more worker, or for one more process that has joined. The first number is 1."""
        with self._lock:
            self._processes += 1
            return self._processes

    def new_indices(self, count: int) -> int:
        """Reserve `count` indices for tasks. Returns the first of them. The first index of a recording is 0."""
        with self._lock:
            first, self._tasks = self._tasks, self._tasks + count
            return first

    def new_index(self) -> int:
        """Reserve one index for a task, and return it."""
        return self.new_indices(1)

    def answer(self, count: int) -> Indices:
        """Reserve `count` indices for tasks, and return the message with them.

        Raises `MessageError` if `count` is not from 1 to `INDICES_MAX`, because the request is damaged then.
        """
        if not 0 < count <= INDICES_MAX:
            raise MessageError(f"it wants {count} indices")
        return Indices(self.new_indices(count), count)
