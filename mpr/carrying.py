"""Steps that go on to their end, also where Ctrl-C ends the waiting for them."""

from __future__ import annotations

import threading
from collections.abc import Callable


def is_thread_of_ours() -> bool:
    return threading.current_thread().name.startswith("mpr-")


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

    thread = threading.Thread(target=run, name="carry-through", daemon=False)
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
