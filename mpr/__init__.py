"""Collects the rows of many processes in one Rerun recording.

```python
import mpr, rerun as rr

def detect(path):
    rr.log("camera/boxes", rr.Boxes2D(...))

with mpr.Pool("my_app", sinks=mpr.FileSink("run.rrd")) as pool:
    pool.map(detect, paths)
```

The rest of this page is a map for readers of the code. It uses these words:

- Parent: the process that has made the pool or the recording. It writes the rows to the sinks (with
  `route="direct"`, workers do so themselves).
- Sink: a destination of rows, such as a file or a viewer.
- Worker: a process of a pool, which runs tasks. A task is one call of a function in a worker.
- Producer: a process that logs. It is a worker, another process that has joined the recording, or the parent.
- Outbox: a file in memory, into which a producer writes its rows, and from which the parent reads them.

```
                 user code, mpr run, Ray and the like, pytest
   pool ── results ◄───────────────┐            recording (SharedRecording) ── blueprint
    │ tasks                        │                │
 scheduler ◄── results ── aggregator ──► sinks ──► rrd ──► file      live ──► viewers
    │                          ▲ rows, then results
 ═══╪══════════════ transport ═╪═══════════════════════════════════ process border
    ▼                          │
  worker ──► tasks ──► producer ◄── rr.log (sdk)          telemetry looks at scheduler and workers
```

There are five groups of packages, and six modules that any package may import.

For users:

- `pool`: the calls of `mpr.Pool`, their results, `imap`, the executor, the progress bar
- `recording`: `mpr.SharedRecording`, and the parts of a recording from start to end
- `run`: `mpr run`; `pytest_plugin`: the plugin; `cli.py`: the command line

In the parent:

- `scheduler`: chooses a worker for each task; lets tasks fail or run again if a worker dies or a time limit passes
- `engines`: lets another engine (Ray, Dask, an executor) run the tasks of a pool, in place of `scheduler`
- `aggregator`: receives the messages of all producers, and gives rows to the sinks and results to the scheduler
- `sinks`: files, folders, streams and viewers, as users name them; `live`: the processes that feed viewers

In any process that logs:

- `worker`: the main loop of a worker; it runs tasks and captures their output
- `tasks`: decorated and wrapped functions; `tasks/context.py` sets the recording, the prefix and the times of a task
- `producer`: joins a recording, routes the SDK's calls to this recording, and sends the rows to the parent

Used by the packages above:

- `transport`: messages, sockets, and memory that two processes share
- `processes`: start methods, and pickling; `processes/task_pickling.py` packs functions, arguments, results, exceptions
- `datasets`: folders with a recording per task: fields of arguments, names of files, the manifest, skipped tasks
- `rrd`: the file format; `sdk`: everything that depends on a release of the Rerun SDK

For display: `telemetry` (rows about pools), `blueprint`, `compare` (two recordings), `picture` (a recording as image).

The floor is six modules that import nothing of mpr except each other:

- `errors.py`, `limits.py`
- `threads.py`: waiting without locks, so that a handler of a signal may call mpr; steps that run in another thread
- `files.py`: temporary files, files in memory; `failpoints.py`: failures that a test causes
- `user_code.py`: code of a user in threads of mpr, and the logger

The way of a row: `rr.log` -> `sdk/log_calls.py` -> `producer/router.py` -> `producer/outbox_writer.py`, which waits
while the outbox is full -> `transport/outbox.py` and `transport/sockets.py` -> `aggregator/intake.py` ->
`aggregator/fanout.py` -> `sinks/file_router.py` -> `rrd/writer.py`.

The way of a task: `pool/pool.py` -> `scheduler/dispatcher.py`, for which `scheduler/assignment.py` chooses a worker ->
`transport/sockets.py` -> `worker/loop.py`. The way of its result: `worker/loop.py` -> `processes/task_pickling.py` ->
`producer/result_sender.py` -> `transport/sockets.py` -> `aggregator/intake.py` -> `scheduler/dispatcher.py` ->
`pool/results.py`. A result arrives after the rows of its task.

Where to look:

- Where does a row wait when the disk is slow? `rr.log` itself waits, in `producer/outbox_writer.py`
  (`wait_for_credit`). Rows that were logged before wait in the outbox (`transport/outbox.py`).
- What happens to the tasks of a killed worker, and which are retried? `scheduler/worker_death.py`. Tasks that it had
  not begun go back to the queue in `scheduler/worker_events.py`.
- Which worker gets which task, and how many tasks wait in a worker? `scheduler/assignment.py`. How far does `imap` read
  its input ahead? `pool/imap.py`.
- Which tasks does `DirectorySink(resume=True)` skip? `datasets/data_set.py` (`expect`) decides. `pool/calls.py` and
  `pool/imap.py` give these tasks the result `mpr.SKIPPED`. Where is the file of a task named? `datasets/naming.py`.
- Have all logged rows arrived? `producer/row_account.py` counts in each process, `aggregator/row_balance.py` compares.
  If a worker has died, `aggregator/intake.py` (`salvage`) reads its last count, has it compared, and logs and notes
  the rows that are lost. `rrd/verify.py` checks a finished file.
- When may a result go to its caller? `aggregator/intake.py` (`_settle`) passes it to the scheduler when the sinks have
  its rows. Then `scheduler/delivery.py` passes its outcomes to the caller.
- Where does the error of a task get its note? `tasks/call_modes.py` (`note`) makes the text in the worker, and
  `processes/task_pickling.py` (`load_exception`) adds it in the parent. Outside of pools, `tasks/execution.py` adds it.
- Where is the text of an error made? Often in its class in `errors.py`, such as `WorkerDiedError`.
- Which results and rows of a dead worker are still read? `aggregator/intake.py` and `transport/result_journal.py`.
  `aggregator/aggregator.py` notices that a process is gone, and decides when its rows are read.
- What happens if the bytes of a worker are damaged? `rrd/checks.py` checks its stream, and `transport/shared_file.py`
  its memory files. `aggregator/guard.py` then stops using anything that this worker sends.
- Which code runs first in a worker? `processes/launcher.py` or `processes/zygote.py`, then `worker/main.py`.
- Which rows does a viewer get that starts late? The rows of `live/replay_log.py`. If the viewer reconnects,
  `live/exporter_handle.py` starts another process (`live/exporter.py`), which connects and sends all these rows again.
- In which order do the parts of a pool or a recording start and end, and what limits each step?
  `pool/worker_runtime.py`, `recording/runtime.py`.
- How does a process join a recording? `producer/membership.py`. What changes in a process of another engine while a
  wrapped function runs? `producer/process_capture.py`.
- An engine (Ray, Dask) runs a task again. Why are its rows there only once? `tasks/engine_task.py` knows the task,
  `aggregator/complete_tasks.py` remembers the complete ones, `producer/muted.py` drops rows.
- Where does the index of a task come from? `producer/task_indices.py`, or its pool (`scheduler/work_item.py`).
- Which private names of the SDK are used? `sdk/private_names.py` lists them, and finds and wraps them for the other
  modules of `sdk`.
- What is at the end of a file? `rrd/footer.py` makes it, `rrd/writer.py` writes it, `rrd/recover.py` adds it later.
- Which code keeps an error in a user's `repr`, exception or callback from ending a thread of mpr? `user_code.py`, and
  `scheduler/outcomes.py` for results. Callbacks have a thread of their own (`scheduler/callbacks.py`).
- Which tests does the pytest plugin record, and which recordings does it keep? `pytest_plugin/recording/retention.py`.
- How does mpr open and make files, also in memory? `files.py`. How large may something be, and how long may a step
  take? `limits.py`.

Which package may import which: `tests/test_layers.py` has the table and enforces it. The rows of the table are ordered:
a package imports only packages above its own row. The docstring of each package says what the package covers and which
packages it may import.

Where something new goes:

- A durable sink is one file in `sinks/`, with a value class and its writer. The interface is `sinks/base.py`, and
  `sinks/binary_stream.py` is an example. A sink that a process of its own feeds is a `LiveSink` in `sinks/viewers.py`.
  A public sink needs its lines in this module, and a line in `sinks/parse.py` if users may name it by a word.
- A kind of telemetry row is a class in `telemetry/rows.py`, a method in `telemetry/collector.py`, and its encoding in
  `telemetry/encoder.py`. `telemetry/tracker.py` or `telemetry/sampler.py` makes the rows.
- An engine that runs the tasks of a pool is one file in `engines/`, with a subclass of `Engine` (`engines/engine.py`),
  and a line in `engines/choice.py`. Functions that users give to an engine start in `tasks/wrapped.py`.
- An endpoint other than `ipc://`, such as tcp, starts in `transport/sockets.py` (`_bind`), beside the local one.
- A start method is one file in `processes/`, with a subclass of `Launcher`, and a line in `processes/start.py`.
- A difference of a new Rerun SDK goes into `sdk/`; a difference of its file format goes into `rrd/compat.py`.

Public names are those of `mpr.__all__`, their public attributes, and `mpr.picture.render`. All other names are
internal: they may change in any release.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mpr.datasets.query import read_runs as read_runs
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
    from mpr.pool.skipped import SKIPPED as SKIPPED
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

# The module of each public name. A module is imported when one of its names is used first. So `import mpr` alone
# imports neither the SDK nor ZeroMQ.
_HOME = {
    "LoggingHandler": "worker.capture",
    "CurrentTask": "tasks.current",
    "current_task": "tasks.current",
    "Insights": "telemetry.insights",
    "SlowTask": "telemetry.insights",
    "WorkerInsights": "telemetry.insights",
    "join": "producer.membership",
    "Pool": "pool.pool",
    "SKIPPED": "pool.skipped",
    "PoolExecutor": "pool.executor",
    "TaskFuture": "pool.executor",
    "SharedRecording": "recording.shared_recording",
    "RecordingStatistics": "recording.statistics",
    "read_runs": "datasets.query",
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
