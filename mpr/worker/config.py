"""Defines the settings with which a worker starts. The parent can import this module without the Rerun SDK."""

from __future__ import annotations

from dataclasses import dataclass

from mpr.transport.connection_info import ConnectionInfo
from mpr.worker.capture import CaptureOptions

#: The entry function of a worker, for a launcher.
MAIN = "mpr.worker.main:main"


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """The settings of one worker.

    Attributes
    ----------
    recording:
        The values that the worker needs to join the recording.
    worker:
        The worker's number. No other worker of the pool gets this number, not even a worker that replaces this one.
    environ:
        The parent's environment variables, for a worker of a fork server, because the server may have older values.
        None if the worker keeps the environment that it inherited.
    preloaded:
        True if the worker is forked from a process that has imported the SDK, else False.
    results_wait:
        True if a result may wait about 0.01 s for results of later tasks of the same work item. If the worker dies
        meanwhile, the result is lost, and the task counts as one that the worker had not ended.
    capture:
        Which log records and output of the worker go into the recording.
    """

    recording: ConnectionInfo
    worker: int
    environ: dict[str, str] | None
    preloaded: bool
    results_wait: bool
    capture: CaptureOptions
