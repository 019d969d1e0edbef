"""What a worker is started with, importable without the Rerun SDK, which only the worker itself needs."""

from __future__ import annotations

from dataclasses import dataclass

from mpr.transport.connection_info import ConnectionInfo
from mpr.worker.capture import CaptureOptions

#: The entry function of a worker, for a launcher.
MAIN = "mpr.worker.main:main"


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """What a worker is started with.

    Attributes
    ----------
    recording:
        How to join the recording.
    worker:
        Its number in the pool, never used twice.
    environ:
        The parent's environment, for a worker of a fork server, which was started with an older one.
    preloaded:
        Whether the SDK was imported before this process was forked.
    results_wait:
        Whether a result may wait a moment for those of its work item's next tasks; what waits is lost with the worker.
    capture:
        What of itself it brings into the recording.
    """

    recording: ConnectionInfo
    worker: int
    environ: dict[str, str] | None
    preloaded: bool
    results_wait: bool
    capture: CaptureOptions
