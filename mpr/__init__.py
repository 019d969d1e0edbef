"""mpr: one Rerun recording out of many processes.

```python
import mpr, rerun as rr

def detect(path):
    rr.log("camera/boxes", rr.Boxes2D(...))

with mpr.Pool("my_app", sinks=[mpr.FileSink(path="run.rrd")]) as pool:
    pool.map(detect, paths)
```

How a row travels: user code -> `producer` -> `outbox` -> `aggregator` -> `file_writer`, and to viewers by `replay_log`,
`live` and `courier`. How a task travels: `pool` -> `dispatcher` (`scheduler`) -> `transport` -> `worker`, and its
result back through the aggregator, behind its rows.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mpr.errors import ConfigError as ConfigError
    from mpr.errors import ConflictError as ConflictError
    from mpr.errors import DeliveryError as DeliveryError
    from mpr.errors import InitializerError as InitializerError
    from mpr.errors import JoinError as JoinError
    from mpr.errors import MissingDependencyError as MissingDependencyError
    from mpr.errors import MprError as MprError
    from mpr.errors import NoViewerError as NoViewerError
    from mpr.errors import PictureError as PictureError
    from mpr.errors import PoolClosedError as PoolClosedError
    from mpr.errors import PoolError as PoolError
    from mpr.errors import PoolTerminatedError as PoolTerminatedError
    from mpr.errors import RecordingClosedError as RecordingClosedError
    from mpr.errors import RecordingError as RecordingError
    from mpr.errors import SinkError as SinkError
    from mpr.errors import TaskError as TaskError
    from mpr.errors import TaskLoadError as TaskLoadError
    from mpr.errors import TaskTimeoutError as TaskTimeoutError
    from mpr.errors import UnpicklableTaskError as UnpicklableTaskError
    from mpr.errors import WorkerDiedError as WorkerDiedError
    from mpr.errors import WorkerStartError as WorkerStartError
    from mpr.errors import WrongProcessError as WrongProcessError
    from mpr.live.statistics import LiveSinkStatistics as LiveSinkStatistics
    from mpr.pool.executor import PoolExecutor as PoolExecutor
    from mpr.pool.executor import TaskFuture as TaskFuture
    from mpr.pool.pool import Pool as Pool
    from mpr.producer.membership import join as join
    from mpr.recording.shared_recording import SharedRecording as SharedRecording
    from mpr.recording.statistics import RecordingStatistics as RecordingStatistics
    from mpr.sinks.arguments import add_arguments as add_arguments
    from mpr.sinks.arguments import from_arguments as from_arguments
    from mpr.sinks.binary_stream import BinaryStreamSink as BinaryStreamSink
    from mpr.sinks.directory import DirectorySink as DirectorySink
    from mpr.sinks.file import FileSink as FileSink
    from mpr.sinks.viewers import GrpcServerSink as GrpcServerSink
    from mpr.sinks.viewers import GrpcSink as GrpcSink
    from mpr.sinks.viewers import SpawnViewerSink as SpawnViewerSink
    from mpr.sinks.viewers import WebViewerSink as WebViewerSink
    from mpr.tasks.current import CurrentTask as CurrentTask
    from mpr.tasks.current import current_task as current_task
    from mpr.tasks.decorator import task as task
    from mpr.telemetry.insights import Insights as Insights
    from mpr.telemetry.insights import SlowTask as SlowTask
    from mpr.telemetry.insights import WorkerInsights as WorkerInsights
    from mpr.worker.capture import LoggingHandler as LoggingHandler

# Loaded on first use, so that `import mpr` needs neither the SDK nor ZeroMQ.
_HOME = {
    "LoggingHandler": "worker.capture",
    "CurrentTask": "tasks.current",
    "current_task": "tasks.current",
    "Insights": "telemetry.insights",
    "SlowTask": "telemetry.insights",
    "WorkerInsights": "telemetry.insights",
    "join": "producer.membership",
    "Pool": "pool.pool",
    "PoolExecutor": "pool.executor",
    "TaskFuture": "pool.executor",
    "SharedRecording": "recording.shared_recording",
    "RecordingStatistics": "recording.statistics",
    "BinaryStreamSink": "sinks.binary_stream",
    "add_arguments": "sinks.arguments",
    "from_arguments": "sinks.arguments",
    "DirectorySink": "sinks.directory",
    "FileSink": "sinks.file",
    "GrpcSink": "sinks.viewers",
    "GrpcServerSink": "sinks.viewers",
    "WebViewerSink": "sinks.viewers",
    "SpawnViewerSink": "sinks.viewers",
    "LiveSinkStatistics": "live.statistics",
    "task": "tasks.decorator",
} | dict.fromkeys(
    (
        "ConfigError",
        "ConflictError",
        "DeliveryError",
        "InitializerError",
        "JoinError",
        "MissingDependencyError",
        "MprError",
        "NoViewerError",
        "PictureError",
        "PoolClosedError",
        "PoolError",
        "PoolTerminatedError",
        "RecordingClosedError",
        "RecordingError",
        "SinkError",
        "TaskError",
        "TaskLoadError",
        "TaskTimeoutError",
        "UnpicklableTaskError",
        "WorkerDiedError",
        "WorkerStartError",
        "WrongProcessError",
    ),
    "errors",
)

__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604  # the names are strings


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'mpr' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"mpr.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
