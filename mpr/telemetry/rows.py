"""The rows of which a pool's telemetry consists, and the kinds of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from mpr.transport.messages import Result

#: What a pool can record of itself.
TELEMETRY = ("workers", "tasks", "resources", "pool")


@dataclass(slots=True)
class StateRow:
    """From `at_ns` on, a worker is in that state."""

    at_ns: int
    state: str
    worker: int


@dataclass(slots=True)
class Span:
    """One task, or `count` short ones of one function that a worker ran one after another.

    `number` is that of the last one in the pool, `index` in its call, `micros` the time that they have taken together.
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
    #: Whether a state timeline shows it already: it was looked at while it ran.
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
    """A task has failed, or several have."""

    at_ns: int
    function: str
    task: int
    text: str


@dataclass(slots=True)
class Sample:
    """What was measured at one moment; a number for each place of the pool, NaN where no process is."""

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
    """What is to be written, by what it is about; `names` says which workers have had each place, where that is new."""

    state_timelines: dict[int, list[StateRow]] = field(default_factory=dict)
    spans: dict[str, list[Span]] = field(default_factory=dict)
    errors: list[ErrorRow] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
