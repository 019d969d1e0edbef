"""Finds the slowest tasks, and describes their arguments.

Covers: which tasks are the slowest, and unpickling their arguments without importing or calling code of the user.
Does not cover: how long a task took (`worker_timeline.py`).
"""

from __future__ import annotations

import heapq
import io
import itertools
import pickle
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from mpr.telemetry.insights import SlowTask, size_text
from mpr.transport.messages import CALL, STAR
from mpr.transport.packing import Buffer
from mpr.user_code import writable

# The number of slow tasks that are kept.
_SLOWEST = 10
# The size (bytes) above which arguments are not described.
_ARGUMENTS_BYTES = 1024 * 1024
# The length (characters) above which a description is cut.
_REPR_LENGTH = 200


class Arguments(Protocol):
    """The attributes of a work item that have the arguments of its tasks.

    `payload` is a pickle, followed by its out-of-band buffers. `mode` says how a function gets its arguments: `CALL`,
    `STAR` or another mode of `transport/messages.py`.
    """

    mode: int
    payload: Sequence[Buffer]


@dataclass(eq=False, slots=True)
class SlowTasks:
    """Keeps the 10 slowest tasks. `describe` turns their arguments into text."""

    #: (duration in microseconds, number, task). It is a heap, so the shortest of these durations comes first.
    _heap: list[tuple[int, int, SlowTask]] = field(default_factory=list)
    #: The tasks that are not described yet, as (work item, index of the task in the work item). The keys are the
    #: numbers in `_heap`.
    _undescribed: dict[int, tuple[Arguments, int]] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def wants(self, micros: int) -> bool:
        """Return True if a task that took `micros` microseconds is one of the 10 slowest tasks until now."""
        return len(self._heap) < _SLOWEST or micros > self._heap[0][0]

    def add(self, micros: int, slow: SlowTask, work_item: Arguments, task: int) -> None:
        """Keep the task `slow`, which took `micros` microseconds. Call this only if `wants` has returned True.

        `work_item` has the arguments of the task, and `task` is the index of the task in `work_item`. If this object
        then has 11 tasks, it drops the fastest one.
        """
        number = next(self._numbers)
        self._undescribed[number] = work_item, task
        heapq.heappush(self._heap, (micros, number, slow))
        if len(self._heap) > _SLOWEST:
            self._undescribed.pop(heapq.heappop(self._heap)[1], None)

    def describe(self) -> None:
        """Turn the arguments of the tasks that were added since the last call into text.

        The arguments are then released, because they may need much memory.
        """
        if self._undescribed:
            self._heap = [(micros, number, self._described(number, slow)) for micros, number, slow in self._heap]
            self._undescribed.clear()

    def _described(self, number: int, slow: SlowTask) -> SlowTask:
        found = self._undescribed.get(number)
        return slow if found is None else replace(slow, arguments=describe_arguments(*found))

    def slowest(self) -> tuple[SlowTask, ...]:
        """Return the slowest tasks, at most 10. The slowest task comes first."""
        return tuple(each for _, _, each in sorted(self._heap, reverse=True))


def describe_arguments(work_item: Arguments, task: int) -> str:
    """Return the arguments of the task with the index `task` in `work_item`, as a text of up to 200 characters.

    If all arguments of `work_item` together are larger than 1 MiB, return their size in parentheses. If they cannot be
    unpickled, return the name of the error in parentheses.
    """
    size = sum(len(part) for part in work_item.payload)
    if size > _ARGUMENTS_BYTES:
        return f"({size_text(size)})"
    try:
        item = view(work_item.payload)[task]
        if work_item.mode == STAR:
            item = ((), item) if isinstance(item, dict) else (item, {})
        positional, keywords = item if work_item.mode in (CALL, STAR) else ((item,), {})
        parts = [*map(_shortened, positional), *(f"{key}={_shortened(value)}" for key, value in keywords.items())]
    except Exception as error:  # noqa: BLE001  # a pickle of an unforeseen kind may raise anything
        return f"({type(error).__name__} while they were described)"
    return _cut(writable(", ".join(itertools.islice(parts, 10))))


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 60


def _shortened(value: Any) -> str:
    return " ".join(_REPR.repr(value).split())


def _cut(text: str) -> str:
    return text if len(text) <= _REPR_LENGTH else text[: _REPR_LENGTH - 3] + "..."


def view(payload: Sequence[Buffer]) -> Any:
    """Unpickle `payload` without importing or calling code of the user, and return the object.

    Each class and function in the pickle is replaced by a class of stand-ins (`_StandIn`). `payload` is a pickle,
    followed by its out-of-band buffers. Raises the errors of `pickle.loads`.
    """
    return _StandInUnpickler(io.BytesIO(payload[0]), buffers=payload[1:]).load()


class _StandIn:
    """Stands for an object that a class or a function in a pickle would make.

    Its `repr` has the name of the class or function, and the arguments. Calling or changing a stand-in has no effect.
    """

    _name = ""
    _arguments: tuple[Any, ...] = ()

    def __new__(cls, *arguments: Any, **_keywords: Any) -> _StandIn:
        made = super().__new__(cls)
        made._arguments = arguments
        return made

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def __call__(self, *_args: Any, **_kwargs: Any) -> _StandIn:
        return self

    def append(self, _item: Any) -> None: ...

    extend = add = update = append

    def __repr__(self) -> str:
        return f"{self._name}({', '.join(map(repr, self._arguments))})" if self._arguments else f"<{self._name}>"


class _StandInUnpickler(pickle.Unpickler):
    """Unpickles without imports: each class or function in the pickle is replaced by a subclass of `_StandIn`."""

    def find_class(self, module: str, name: str, /) -> Any:
        return type("_StandIn", (_StandIn,), {"_name": f"{module.partition('.')[0]}.{name.rpartition('.')[2]}"})
