"""How a pool ends where nobody waits for its work."""

from __future__ import annotations

import logging

from mpr.recording import SharedRecording
from mpr.scheduler.dispatcher import Dispatcher
from mpr.scheduler.worker_supervisor import Crew
from mpr.telemetry.sampler import Sampler
from mpr.threads import carry_through

_log = logging.getLogger("mpr")


def abandon(
    dispatcher: Dispatcher, crew: Crew, sampler: Sampler | None, recording: SharedRecording, owned: bool
) -> None:
    """A pool that nobody has ended is dropped, or the program exits."""
    unfinished = dispatcher.unfinished
    if unfinished:
        _log.warning(
            "A pool of mpr was dropped, or the program ended, while %d of its tasks had no result: they are not done. "
            "Use `with mpr.Pool(...)`, or call close() and join().",
            unfinished,
        )
    # The garbage collector may call this in the middle of anything, also of what the end would have to wait for.
    terminate(dispatcher, crew, sampler, recording, owned, wait=not dispatcher.is_locked)


def terminate(
    dispatcher: Dispatcher,
    crew: Crew,
    sampler: Sampler | None,
    recording: SharedRecording,
    owned: bool,
    *,
    wait: bool = True,
) -> None:
    def end() -> None:
        dispatcher.terminate()
        crew.kill_all()
        if sampler is not None:
            # While the system takes the workers' memory back.
            sampler.close()
        crew.terminate()
        if owned:
            recording.finish(failed=True)

    carry_through(end, wait=wait)
