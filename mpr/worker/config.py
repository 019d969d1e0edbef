"""Holds the settings with which a worker starts. It can be imported without the Rerun SDK, for the parent."""

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
        How to join the recording.
    worker:
        Its id in the pool; no other worker of the pool ever gets the same.
    environ:
        The parent's environment, for a worker of a fork server, which was started with an older one.
    preloaded:
        Whether the SDK was imported before this process was forked.
    results_wait:
        Whether a result may wait a moment for those of the next tasks of its work item. If the worker dies, results
        that wait are lost.
    capture:
        Which of its own log records and output it writes into the recording.
    """

    recording: ConnectionInfo
    worker: int
    environ: dict[str, str] | None
    preloaded: bool
    results_wait: bool
    capture: CaptureOptions
