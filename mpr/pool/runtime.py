"""Puts a pool together: its workers, its dispatcher, and who watches them, connected with a recording."""

from __future__ import annotations

import logging
import os

from mpr.limits import SINK_TIMEOUT_SECS
from mpr.pool.progress import Progress
from mpr.processes.launcher import Launcher
from mpr.recording.shared_recording import SharedRecording
from mpr.scheduler.dispatcher import Dispatcher
from mpr.scheduler.observer import PoolObservers
from mpr.scheduler.state import PoolLimits
from mpr.scheduler.worker_supervisor import WorkerSupervisor
from mpr.telemetry.sampler import Sampler, Sources
from mpr.telemetry.tracker import TelemetryTracker
from mpr.threads import run_to_completion
from mpr.worker.capture import CaptureOptions
from mpr.worker.config import WorkerConfig


def start_parts(
    recording: SharedRecording,
    launcher: Launcher,
    size: int,
    limits: PoolLimits,
    bar: Progress | None,
    telemetry: TelemetryTracker | None,
    kinds: frozenset[str],
    capture: CaptureOptions,
    preloaded: bool,
    environ: bool,
) -> tuple[WorkerSupervisor, Dispatcher, Sampler | None]:
    """Start the workers of a pool, and connect them with the recording."""
    joining = recording.process_config(size)
    aggregator, fanout = recording.aggregator, recording.fanout
    sampler: Sampler | None = None

    def counters() -> tuple[int, int]:
        return aggregator.rows_logged(), fanout.accepted_bytes

    if bar is not None:
        bar.received = counters

    def new_config() -> tuple[int, WorkerConfig]:
        number = recording.new_worker()
        aggregator.listen(number, dispatcher.listener)
        if telemetry is not None:
            telemetry.starting(number)
        return number, WorkerConfig(
            recording=joining,
            worker=number,
            environ=dict(os.environ) if environ else None,
            preloaded=preloaded,
            # A task that is ended takes no result along.
            results_wait=limits.task_secs is None and not limits.retries,
            capture=capture,
        )

    def look() -> float:
        if fanout.stalled_secs() > SINK_TIMEOUT_SECS:
            dispatcher.broken(fanout.stuck())
        aggregator.look()
        return dispatcher.look()

    def failed(error: BaseException) -> None:
        dispatcher.broken(error)

    def ended(worker: int, exitcode: int | None) -> None:
        if sampler is not None:
            sampler.worker_ended(worker, exitcode)
        aggregator.worker_died(worker, exitcode)

    supervisor = WorkerSupervisor(
        launcher, new_config, size, ended=ended, failed=failed, has_no_hello=aggregator.is_unknown, look=look
    )
    watchers = [each for each in (bar, telemetry) if each is not None]
    dispatcher = Dispatcher(
        recording.down,
        limits,
        supervisor,
        aggregator.soon,
        PoolObservers(watchers) if len(watchers) > 1 else next(iter(watchers), None),
    )
    if telemetry is not None:
        sources = Sources(
            activities=dispatcher.activities, pid=supervisor.pid, counters=counters, accept=recording.accept_telemetry
        )
        sampler = Sampler(telemetry, recording.new_pool(size, kinds), size, kinds, sources)
        sampler.start()
    try:
        supervisor.start()
    except RuntimeError:
        # The system gives no more threads.
        if sampler is not None:
            sampler.close()
        raise
    return supervisor, dispatcher, sampler


_log = logging.getLogger("mpr")


def abandon(
    dispatcher: Dispatcher,
    supervisor: WorkerSupervisor,
    sampler: Sampler | None,
    recording: SharedRecording,
    owned: bool,
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
    terminate(dispatcher, supervisor, sampler, recording, owned, wait=not dispatcher.is_locked)


def terminate(
    dispatcher: Dispatcher,
    supervisor: WorkerSupervisor,
    sampler: Sampler | None,
    recording: SharedRecording,
    owned: bool,
    *,
    wait: bool = True,
) -> None:
    def end() -> None:
        dispatcher.terminate()
        supervisor.kill()
        if sampler is not None:
            # While the system takes the workers' memory back.
            sampler.close()
        supervisor.abort()
        if owned:
            recording.finish(failed=True)

    run_to_completion(end, wait=wait)
