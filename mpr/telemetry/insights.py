"""Defines the result of `mpr.Pool.insights()`: how the workers have spent their time, and the slowest tasks.

Covers: the classes of the result, and its text as a table.
Does not cover: finding the times (`worker_timeline.py`) and the slowest tasks (`slow_tasks.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

_SHARES = ("start_up", "init", "waiting", "working", "flushing")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInsights:
    """Holds the times (seconds) and counts of one worker.

    Attributes
    ----------
    worker, pid:
        The number of the worker, and its process id. The process id is 0 if the worker was never ready for a task.
    ended:
        'runs' if the worker still runs, and 'ended' if it has ended as usual. If it has died, the cause, such as 'lost
        (SIGKILL)' or 'lost (code 3)'.
    tasks, rows, data_bytes:
        How many tasks have ended, how many rows these tasks have logged, and the size of these rows in encoded bytes.
    start_up_secs:
        The time from the start of the process to the call of the initializer.
    init_secs:
        The time in the initializer.
    waiting_secs:
        The time without a task.
    working_secs:
        The time in tasks, including `held_back_secs`.
    flushing_secs:
        The time in which the worker waited after its tasks until the SDK had encoded their rows. With an engine, the
        worker waited until the sinks had these rows.
    held_back_secs:
        The time in which `rr.log` waited for slow sinks.
    """

    worker: int
    pid: int
    ended: str
    tasks: int
    rows: int
    data_bytes: int
    start_up_secs: float
    init_secs: float
    waiting_secs: float
    working_secs: float
    flushing_secs: float
    held_back_secs: float

    @property
    def total_secs(self) -> float:
        """The time in seconds from the start of the worker until its end, or until the call of `insights`."""
        return float(sum(getattr(self, f"{each}_secs") for each in _SHARES))

    def share(self, name: str) -> float:
        """Return the part of `total_secs` that the worker has spent on `name`, from 0 to 1.

        `name` is 'start_up', 'init', 'waiting', 'working' or 'flushing'.
        """
        return float(getattr(self, f"{name}_secs")) / (self.total_secs or 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowTask:
    """Describes one of the slowest tasks.

    Attributes
    ----------
    task:
        The name of the task: 'detect[3]' for the fourth task of a `map`, 'detect #7' for a single call that is task
        number 7 of the pool.
    worker:
        The number of the worker that ran the task.
    attempt:
        The number of this run of the task, counted from 1.
    seconds:
        The duration of the task in seconds. With `chunksize` above 1, it may include short tasks that ran just before.
    rows, data_bytes:
        The number of rows that the task (and the included short tasks) has logged, and the encoded bytes of these rows.
    arguments:
        The arguments as a text of up to 200 characters. If they are larger than 1 MiB or cannot be unpickled, their
        size or the name of the error, in parentheses.
    """

    task: str
    worker: int
    attempt: int
    seconds: float
    rows: int
    data_bytes: int
    arguments: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Insights:
    """Says how the workers of a pool spent their time, and which tasks were slowest. `str(insights)` is a table.

    Attributes
    ----------
    workers:
        The workers that the pool has had, in the order of their numbers.
    slowest:
        The slowest tasks, at most 10. The slowest task comes first.
    """

    workers: tuple[WorkerInsights, ...] = ()
    slowest: tuple[SlowTask, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the insights as a dict for JSON. The keys "workers" and "slowest" have lists of dicts."""
        return {
            "workers": [asdict(each) for each in self.workers],
            "slowest": [asdict(each) for each in self.slowest],
        }

    def __str__(self) -> str:
        heads = ("worker", "start-up", "init", "waiting", "working", "flushing", "lives", "tasks", "rows", "bytes", "")
        lines = [[str(each.worker), *_cells(each), _if_lost(each)] for each in self.workers]
        parts = [_table([heads, *lines, ["all", *_cells(_sum(self.workers)), ""]])]
        if self.slowest:
            slow = [
                [each.task, f"{each.seconds:.3f} s", str(each.worker), f"{each.rows:,}", size_text(each.data_bytes)]
                for each in self.slowest
            ]
            table = _table([("slowest task", "took", "worker", "rows", "bytes"), *slow]).split("\n")
            arguments = ["arguments", *(each.arguments for each in self.slowest)]
            parts.append("\n".join(f"{line}  {text}" for line, text in zip(table, arguments, strict=True)))
        return "\n\n".join(parts)


def _cells(worker: WorkerInsights) -> list[str]:
    shares = [f"{worker.share(each):.1%}" for each in _SHARES]
    return [
        *shares,
        f"{worker.total_secs:.2f} s",
        f"{worker.tasks:,}",
        f"{worker.rows:,}",
        size_text(worker.data_bytes),
    ]


def _if_lost(worker: WorkerInsights) -> str:
    return worker.ended if worker.ended.startswith("lost") else ""


def _sum(workers: Sequence[WorkerInsights]) -> WorkerInsights:
    numbers = ("tasks", "rows", "data_bytes", *(f"{each}_secs" for each in _SHARES), "held_back_secs")
    totals: dict[str, Any] = {name: sum(getattr(each, name) for each in workers) for name in numbers}
    return WorkerInsights(worker=0, pid=0, ended="", **totals)


def size_text(count: float) -> str:
    """Return a size of `count` bytes as text with a unit, such as '1.5 kB'."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _table(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = (
        "  ".join(
            [line[0].ljust(widths[0]), *(each.rjust(width) for each, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )
    return "\n".join(row.rstrip() for row in rows)
