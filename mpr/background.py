"""Waits for the sinks in a thread, so that coroutines beside the one that has ended run on meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpr.producer import Producer


class _Waiting:
    """The coroutines that wait for one producer: a thread delivers for all that wait, and ends when none does."""

    def __init__(self, producer: Producer) -> None:
        self._producer = weakref.ref(producer)
        self._lock = threading.Lock()
        self._futures: list[asyncio.Future[None]] = []
        self._runs = False

    def add(self, future: asyncio.Future[None]) -> None:
        with self._lock:
            self._futures.append(future)
            if self._runs:
                return
            # Not a thread of the loop's executor: those may all be at work, and waiting for this very coroutine.
            threading.Thread(target=self._run, name="mpr-deliverer", daemon=True).start()
            self._runs = True

    def _run(self) -> None:
        while True:
            with self._lock:
                futures, self._futures = self._futures, []
                self._runs = bool(futures)
            producer = self._producer()
            if not futures or producer is None:
                return
            failure = None
            try:
                producer.deliver()
            except BaseException as error:  # noqa: BLE001  # whoever waits must hear of it, whatever it is
                failure = error
            for future in futures:
                # A loop that was closed meanwhile has nobody who waits.
                with contextlib.suppress(RuntimeError):
                    future.get_loop().call_soon_threadsafe(_settle, future, failure)


def _settle(future: asyncio.Future[None], failure: BaseException | None) -> None:
    if future.done():
        # Cancelled; the rows are on their way all the same.
        return
    if failure is None:
        future.set_result(None)
    else:
        future.set_exception(failure)


_waiting: weakref.WeakKeyDictionary[Producer, _Waiting] = weakref.WeakKeyDictionary()


async def deliver(producer: Producer) -> None:
    """As `producer.deliver()`, and the event loop runs on; other loops than those of `asyncio` wait."""
    try:
        future = asyncio.get_running_loop().create_future()
        _waiting.setdefault(producer, _Waiting(producer)).add(future)
    except RuntimeError:
        # No loop, or the system gives no more threads, as at the interpreter's exit.
        producer.deliver()
        return
    await future
