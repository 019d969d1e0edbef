"""The kinds of telemetry, and the rows of which it consists. All times are nanoseconds of the monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass, field

from mpr.transport.messages import Result

#: The kinds of telemetry, as in `mpr.Pool(telemetry=...)`.
TELEMETRY = ("workers", "tasks", "resources", "pool")


@dataclass(slots=True)
class StateRow:
    """From `at_ns` on, the worker is in this state."""

    at_ns: int
    state: str
    worker: int


@dataclass(slots=True)
class Span:
    """One task, or several short tasks of one function that a worker ran one after another.

    Attributes
    ----------
    function:
        The name of the task function.
    name:
        The name of the first task.
    begin_ns, end_ns:
        The begin of the first task, and the end of the last.
    worker:
        The number of the worker.
    number:
        The number of the last task in the pool.
    index:
        The index of the last task in its call, or of the first of the tasks whose result came last.
    attempt:
        The attempt of the first task, from 1.
    count:
        The number of tasks.
    micros:
        The microseconds that all tasks ran together.
    rows, data_bytes:
        The rows that the tasks have logged, and the encoded bytes of these.
    shown:
        Whether a state timeline shows the task already, because the sampler has seen it while it ran.
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
        """Add `count` tasks that ended at `end_ns`, after `micros` microseconds."""
        self.end_ns = end_ns
        self.count += count
        self.number, self.index = number, index
        self.micros += micros
        self.rows += result.rows
        self.data_bytes += result.data_bytes


@dataclass(slots=True)
class ErrorRow:
    """One or several tasks have failed."""

    at_ns: int
    function: str
    task: int
    text: str


@dataclass(slots=True)
class Sample:
    """The measurements of one moment.

    `cpu` (percent of a core), `memory` (MB), `threads` and `files` have a number for each place of the pool, which is
    NaN if there is no process. `throughput` is in tasks per second. `rows` and `data_bytes` are sums since the start.
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
    """The rows that are written together.

    State timelines are by their number, spans by the name of the function. `names` says which workers each place has
    had; it is empty if nothing about this is new.
    """

    state_timelines: dict[int, list[StateRow]] = field(default_factory=dict)
    spans: dict[str, list[Span]] = field(default_factory=dict)
    errors: list[ErrorRow] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
