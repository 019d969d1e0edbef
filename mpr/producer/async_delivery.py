"""Waits for the sinks in a thread, for callers that must not wait themselves, or not without a bound."""

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


#: Called in the thread when all is delivered, with None, or with the error.
OnDelivered: TypeAlias = Callable[[BaseException | None], None]

# How long a generator that is closed waits (seconds). Sinks take milliseconds, unless they hang.
_CLOSED_SECS = 10.0


class _Waiting:
    """Delivers for all callers that wait for one producer, in a thread that ends when none waits."""

    def __init__(self, producer: Producer) -> None:
        self._producer = weakref.ref(producer)
        # Reentrant, because the garbage collector may run within it, and close a generator.
        self._lock = threading.RLock()
        self._callbacks: list[OnDelivered] = []
        self._runs = False

    def add(self, on_delivered: OnDelivered) -> None:
        """Deliver, then call `on_delivered`. Raises `RuntimeError` if no thread can be started, as at exit."""
        with self._lock:
            self._callbacks.append(on_delivered)
            if self._runs:
                return
            # Not a thread of an event loop's executor, because those may all wait for this very coroutine.
            threading.Thread(target=self._run, name="mpr-deliverer", daemon=True).start()
            self._runs = True

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
                producer.deliver()
            except BaseException as error:  # noqa: BLE001  # the callers raise it, whatever it is
                failure = error
            for on_delivered in callbacks:
                on_delivered(failure)


_waiting: weakref.WeakKeyDictionary[Producer, _Waiting] = weakref.WeakKeyDictionary()


def _begin(producer: Producer, on_delivered: OnDelivered) -> None:
    _waiting.setdefault(producer, _Waiting(producer)).add(on_delivered)


async def deliver(producer: Producer) -> None:
    """Call `producer.deliver()` while the event loop runs on; other loops than those of `asyncio` wait."""
    try:
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def settle_soon(failure: BaseException | None) -> None:
            # In a loop that was closed meanwhile, no coroutine waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, future, failure)

        _begin(producer, settle_soon)
    except RuntimeError:
        # There is no loop, or no thread.
        producer.deliver()
        return
    await future


def _settle(future: asyncio.Future[None], failure: BaseException | None) -> None:
    if future.done():
        # Cancelled; the rows are on their way all the same.
        return
    if failure is None:
        future.set_result(None)
    else:
        future.set_exception(failure)


def deliver_of_closed(producer: Producer) -> None:
    """Call `producer.deliver()` for a generator that was closed. Raises `DeliveryError` if that takes too long.

    The garbage collector may close it at any moment, also while this very thread delivers. Without a bound, the thread
    would wait for itself for ever then.
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
