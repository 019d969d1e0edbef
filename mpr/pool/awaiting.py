"""Lets coroutines of `asyncio` wait for results and for the end of a pool, while their event loop runs on.

Covers: waiting, and what happens if the wait is cancelled.
Does not cover: results (`results.py`), futures (`executor.py`), and the end itself (`runtime.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from mpr.threads import start_aside


async def wait(when_done: Callable[[Callable[[], None]], object], cancel: Callable[[], object]) -> None:
    """Call `when_done(listener)`, and wait until any thread calls `listener()`.

    If this wait is cancelled, `cancel()` is run in a new thread. `CancelledError` is raised when `cancel()` has ended.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    when_done(lambda: _wake(loop, done, None))
    try:
        await done
    except asyncio.CancelledError:
        await _in_thread(cancel)
        raise


async def finish(step: Callable[[], object], cancel: Callable[[], object]) -> None:
    """Run `step()` in a new thread, and wait for its end. If `step` raises, raise its error.

    If this wait is cancelled, `step` runs on, and `cancel()` is run as in `wait`.
    """
    try:
        await _in_thread(step)
    except asyncio.CancelledError:
        await _in_thread(cancel)
        raise


async def _in_thread(step: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        failure: BaseException | None = None
        try:
            step()
        except BaseException as error:  # noqa: BLE001  # the coroutine raises it
            failure = error
        _wake(loop, done, failure)

    # Not a thread of the loop's executor, because the program may have given all of them other work.
    start_aside(threading.Thread(target=run, name="await-mpr-pool", daemon=True))
    await done


def _wake(loop: asyncio.AbstractEventLoop, done: asyncio.Future[None], failure: BaseException | None) -> None:
    """End the wait of the coroutine that awaits `done`. If `failure` is not None, the coroutine raises it.

    Does nothing if the wait has ended, or if the loop is closed.
    """

    def settle() -> None:
        if not done.done():
            done.set_result(None) if failure is None else done.set_exception(failure)

    # A closed loop raises `RuntimeError`. Nobody waits then.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(settle)
