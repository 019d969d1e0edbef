"""Waits for the sinks in a thread, where who has logged must not wait itself, or not without a bound."""

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


#: Told that all is delivered, or why not. Called in the thread.
Told: TypeAlias = Callable[[BaseException | None], None]

# How long a generator that is closed waits. Sinks take milliseconds, unless they hang.
_CLOSED_SECS = 10.0


class _Waiting:
    """Who waits for one producer: a thread delivers for all of them, and ends when nobody waits."""

    def __init__(self, producer: Producer) -> None:
        self._producer = weakref.ref(producer)
        # Reentrant, as the garbage collector may come within, and close a generator.
        self._lock = threading.RLock()
        self._told: list[Told] = []
        self._runs = False

    def add(self, told: Told) -> None:
        """Raises `RuntimeError` where the system gives no more threads, as at the interpreter's exit."""
        with self._lock:
            self._told.append(told)
            if self._runs:
                return
            # Not a thread of an event loop's executor: those may all be at work, and waiting for this very coroutine.
            threading.Thread(target=self._run, name="mpr-deliverer", daemon=True).start()
            self._runs = True

    def _run(self) -> None:
        while True:
            with self._lock:
                all_told, self._told = self._told, []
                self._runs = bool(all_told)
            producer = self._producer()
            if not all_told or producer is None:
                return
            failure = None
            try:
                producer.deliver()
            except BaseException as error:  # noqa: BLE001  # whoever waits must hear of it, whatever it is
                failure = error
            for told in all_told:
                told(failure)


_waiting: weakref.WeakKeyDictionary[Producer, _Waiting] = weakref.WeakKeyDictionary()


def _begin(producer: Producer, told: Told) -> None:
    _waiting.setdefault(producer, _Waiting(producer)).add(told)


async def deliver(producer: Producer) -> None:
    """As `producer.deliver()`, and the event loop runs on; other loops than those of `asyncio` wait."""
    try:
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def tell(failure: BaseException | None) -> None:
            # A loop that was closed meanwhile has nobody who waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, future, failure)

        _begin(producer, tell)
    except RuntimeError:
        # No loop, or no thread.
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
    """As `producer.deliver()`, for what was closed; raises `DeliveryError` where that takes too long.

    It may be the garbage collector that closes it, which comes at any moment: also while this very thread delivers, and
    would wait for itself for ever.
    """
    done = threading.Event()
    failures: list[BaseException] = []

    def tell(failure: BaseException | None) -> None:
        if failure is not None:
            failures.append(failure)
        done.set()

    try:
        _begin(producer, tell)
    except RuntimeError:
        producer.deliver()
        return
    if not done.wait(_CLOSED_SECS):
        raise DeliveryError(f"rows of a generator that was closed are on their way, but not in after {_CLOSED_SECS} s")
    if failures:
        raise failures[0]
