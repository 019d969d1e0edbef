"""Delivers rows in a thread, for callers that must not block, or must not wait without a limit.

Covers: the end of a coroutine (`deliver`), and the end of a generator that was closed (`deliver_of_closed`).
Does not cover: the delivery itself (`producer.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from mpr.errors import DeliveryError

if TYPE_CHECKING:
    from mpr.producer.producer import Producer


#: A function that is called after the delivery, with None or with the error of the delivery.
OnDelivered: TypeAlias = Callable[[BaseException | None], None]

# The longest wait for the rows of a generator that was closed (seconds). Sinks take milliseconds, unless they hang.
_CLOSED_SECS = 10.0


class _Waiting:
    """Delivers the rows of `producer` in a thread. One delivery serves all callers that wait when it begins."""

    def __init__(self, producer: Producer) -> None:
        self._producer = weakref.ref(producer)
        # Reentrant, because the garbage collector may run while a thread holds the lock, and may close a generator.
        self._lock = threading.RLock()
        self._callbacks: list[tuple[OnDelivered, bytes]] = []
        self._runs = False

    def add(self, on_delivered: OnDelivered, keys: bytes) -> None:
        """Make a thread deliver the rows, and then call `on_delivered` with None, or with the error of the delivery.

        `keys` are the joined keys of engine tasks that have ended. Raises `RuntimeError` if no thread can be started,
        for example at exit.
        """
        with self._lock:
            if not self._runs:
                # Not a thread of the event loop's executor, because all threads there may wait for this coroutine.
                threading.Thread(target=self._run, name="mpr-deliverer", daemon=True).start()
                self._runs = True
            self._callbacks.append((on_delivered, keys))

    def _run(self) -> None:
        while True:
            with self._lock:
                callbacks, self._callbacks = self._callbacks, []
                self._runs = bool(callbacks)
            producer = self._producer()
            if not callbacks or producer is None:
                return
            failure = None
            try:
                producer.deliver(b"".join(keys for _, keys in callbacks))
            except BaseException as error:  # noqa: BLE001  # any error is raised by the callers
                failure = error
            for on_delivered, _ in callbacks:
                on_delivered(failure)


_waiting: weakref.WeakKeyDictionary[Producer, _Waiting] = weakref.WeakKeyDictionary()


def _begin(producer: Producer, on_delivered: OnDelivered, keys: bytes = b"") -> None:
    _waiting.setdefault(producer, _Waiting(producer)).add(on_delivered, keys)


async def deliver(producer: Producer, keys: bytes = b"") -> None:
    """Call `producer.deliver(keys)` in another thread, and await its end. The event loop of `asyncio` continues to run.

    If no event loop of `asyncio` runs in the calling thread, or if no thread can be started, the calling thread itself
    delivers the rows. Raises the errors of `producer.deliver`.
    """
    try:
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def settle_soon(failure: BaseException | None) -> None:
            # `RuntimeError`: the loop was closed meanwhile, so no coroutine waits in it.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, future, failure)

        _begin(producer, settle_soon, keys)
    except RuntimeError:
        # There is no loop of `asyncio`, or no thread can be started.
        producer.deliver(keys)
        return
    await future


def _settle(future: asyncio.Future[None], failure: BaseException | None) -> None:
    if future.done():
        # The coroutine was cancelled. The thread delivers the rows all the same.
        return
    if failure is None:
        future.set_result(None)
    else:
        future.set_exception(failure)


def deliver_of_closed(producer: Producer) -> None:
    """Call `producer.deliver()` in another thread, for a generator that was closed, and wait up to 10 s for its end.

    Raises the errors of `producer.deliver`, and `DeliveryError` after 10 s. The wait has a limit because the garbage
    collector may close a generator in the delivering thread, which would then wait for itself. If no thread can be
    started, the calling thread delivers the rows, without a limit.
    """
    done = threading.Event()
    failures: list[BaseException] = []

    def note(failure: BaseException | None) -> None:
        if failure is not None:
            failures.append(failure)
        done.set()

    try:
        _begin(producer, note)
    except RuntimeError:
        producer.deliver()
        return
    if not done.wait(_CLOSED_SECS):
        raise DeliveryError(f"rows of a generator that was closed are on their way, but not in after {_CLOSED_SECS} s")
    if failures:
        raise failures[0]
