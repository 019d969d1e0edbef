"""How a pool ends where nobody waits for its work, and that no end is left half done."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from mpr.crew import Crew
from mpr.dispatcher import Dispatcher
from mpr.recording import SharedRecording

_log = logging.getLogger("mpr")


def is_thread_of_ours() -> bool:
    return threading.current_thread().name.startswith("mpr-")


def abandon(dispatcher: Dispatcher, crew: Crew, recording: SharedRecording, owned: bool) -> None:
    """A pool that nobody has ended is dropped, or the program exits."""
    unfinished = dispatcher.unfinished
    if unfinished:
        _log.warning(
            "A pool of mpr was dropped, or the program ended, while %d of its tasks had no result: they are not done. "
            "Use `with mpr.Pool(...)`, or call close() and join().",
            unfinished,
        )
    # The garbage collector may call this in the middle of anything, also of what the end would have to wait for.
    terminate(dispatcher, crew, recording, owned, wait=not dispatcher.is_locked)


def terminate(
    dispatcher: Dispatcher, crew: Crew, recording: SharedRecording, owned: bool, *, wait: bool = True
) -> None:
    def end() -> None:
        dispatcher.terminate()
        crew.terminate()
        if owned:
            recording.finish(failed=True)

    carry_through(end, wait=wait)


def carry_through(step: Callable[[], None], *, wait: bool = True) -> None:
    """Do `step` and, with `wait`, wait for it; it goes on to its end also where Ctrl-C ends the waiting.

    The interpreter waits for its thread at exit. In a thread of ours (a callback ends its pool, or the last reference
    to it goes in one) nobody waits here: the step has to wait for that thread.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            step()
        except BaseException as error:  # noqa: BLE001  # raised below, in the thread that waits
            raised.append(error)

    thread = threading.Thread(target=run, name="end-of-mpr-pool", daemon=False)
    try:
        thread.start()
    except RuntimeError:
        # The interpreter is at its end, and starts no threads any more.
        step()
        return
    if is_thread_of_ours() or not wait:
        return
    thread.join()
    if raised:
        raise raised[0]
