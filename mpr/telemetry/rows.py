"""Defines the kinds of telemetry, and the rows that are recorded.

Times are in nanoseconds of the monotonic clock. The docstring of the package explains places, state timelines, spans
and samples.

Covers: the fields of the rows.
Does not cover: making rows (`tracker.py`), encoding them (`encoder.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mpr.transport.messages import Result

#: The kinds of telemetry, which users choose by `mpr.Pool(telemetry=...)`. They are, in this order: the states
#: of workers, the spans and errors of tasks, what workers use (CPU, memory), and counts of the whole pool.
TELEMETRY = ("workers", "tasks", "resources", "pool")


@dataclass(slots=True)
class StateRow:
    """Says that the worker with the number `worker` has the state `state` from `at_ns` on.

    `at_ns` is in nanoseconds of the monotonic clock. `state` is the name of a task, the name of a function (for a span
    of several tasks), or a state from `blueprint/telemetry_names.py`.
    """

    at_ns: int
    state: str
    worker: int


@dataclass(slots=True)
class Span:
    """One row about one task, or about several short tasks of one function that a worker ran one after another.

    Attributes
    ----------
    function:
        The name of the task function.
    name:
        The name of one of the tasks.
    begin_ns, end_ns:
        The start of the first task, and the end of the last task.
    worker:
        The number of the worker.
    number:
        The number of the last task in the pool, from 0.
    index:
        The position of the last task in its `map`, such as 3 for the fourth task. In a call that is no `map`, it is
        equal to `number`.
    attempt:
        The attempt of the task in `name`, from 1.
    count:
        The number of tasks in the span.
    micros:
        The sum of the durations of all tasks, in microseconds.
    rows, data_bytes:
        The number of rows that the tasks have logged, and the encoded bytes of these rows.
    shown:
        True if a state timeline has shown the task while it ran.
    """

    function: str
    name: str
    begin_ns: int
    end_ns: int
    worker: int
    number: int
    index: int
    attempt: int
    count: int
    micros: int
    rows: int
    data_bytes: int
    shown: bool = False

    def extend(self, end_ns: int, count: int, number: int, index: int, micros: int, result: Result) -> None:
        """Add `count` tasks to the span. Together they took `micros` microseconds, and the last one ended at `end_ns`.

        `number` and `index` belong to the last task. `result` has the numbers of rows and bytes of these tasks.
        """
        self.end_ns = end_ns
        self.count += count
        self.number, self.index = number, index
        self.micros += micros
        self.rows += result.rows
        self.data_bytes += result.data_bytes


@dataclass(slots=True)
class ErrorRow:
    """Says that tasks of one function have failed at the time `at_ns`.

    `task` is the number of the first of these tasks in the pool. `text` has the name of this task and the traceback.
    `function` is empty in the row that only says how many errors have no row of their own.
    """

    at_ns: int
    function: str
    task: int
    text: str


@dataclass(slots=True)
class Sample:
    """Holds the measurements of one moment.

    Attributes
    ----------
    at_ns:
        The time of the measurements in nanoseconds of the monotonic clock.
    cpu, memory, threads, files:
        For each place of the pool: the processor time (percent of a core), memory (MB), number of threads, and number
        of open files of the worker there. NaN if unknown.
    throughput:
        The number of tasks per second that got their outcome since the last sample.
    waiting, running:
        The number of submitted tasks that neither run nor have an outcome, and the number of tasks that run.
    rows:
        The number of rows that all processes have logged since the start of the recording.
    data_bytes:
        The number of bytes that the sinks have accepted since the start of the recording.
    """

    at_ns: int
    cpu: list[float]
    memory: list[float]
    threads: list[float]
    files: list[float]
    throughput: float
    waiting: int
    running: int
    rows: int
    data_bytes: int


@dataclass(slots=True)
class Rows:
    """Holds the rows that are written together.

    The keys of `state_timelines` are the numbers of the state timelines. The keys of `spans` are names of functions.
    `names` has the name of the chart line of each place, such as "worker 1, 4"; empty if no worker has started since
    the last write.
    """

    state_timelines: dict[int, list[StateRow]] = field(default_factory=dict)
    spans: dict[str, list[Span]] = field(default_factory=dict)
    errors: list[ErrorRow] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
