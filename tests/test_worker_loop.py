"""The loop of a worker: which functions it remembers, and what a task is that cannot be loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mpr
from mpr.processes import task_pickling
from mpr.transport.function_cache import FUNCTIONS_KEPT
from mpr.transport.messages import CALL, Function, Skipped, Stop, Tasks
from mpr.transport.status_page import StatusPage, StatusPageReader
from mpr.worker.loop import WorkerLoop


class _Producer:
    """Gives the loop some messages, and keeps its answers."""

    def __init__(self, page: StatusPage, messages: list[Any]) -> None:
        self.status_page = page
        self._messages = messages
        self.sent: list[Any] = []
        self.spent = False

    @property
    def inbox(self) -> Any:
        return self

    def next_message(self, _before_waiting: Any) -> Any:
        return self._messages.pop(0)

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def send_results(self) -> None: ...

    def write_out(self) -> int:
        return 0


@pytest.fixture
def page(tmp_path: Path) -> Iterator[StatusPage]:
    made = StatusPage(tmp_path)
    yield made
    made.close()


def _digest(number: int) -> bytes:
    return number.to_bytes(4, "big")


def test_a_function_counts_as_used_though_its_work_item_was_taken_back(page: StatusPage, tmp_path: Path) -> None:
    reader = StatusPageReader(page.address, tmp_path)
    reader.revoke(1)
    messages: list[Any] = [Function(_digest(number), b"code") for number in range(FUNCTIONS_KEPT)]
    messages += [Tasks(1, 1, CALL, 0, 0, 1, 0, _digest(0), [b""]), Function(_digest(1000), b"code"), Stop()]
    producer: Any = _Producer(page, messages)
    worker = WorkerLoop(producer, None, waits=False)  # type: ignore[arg-type]  # no task runs
    worker.run()
    assert producer.sent == [Skipped(1)]
    # The parent has used the first function, too, so both have dropped the second one.
    assert worker._functions.use(_digest(0)) == b"code"
    assert worker._functions.use(_digest(1)) is None
    reader.close()


def test_arguments_that_cannot_be_loaded_are_an_error_that_says_so() -> None:
    with pytest.raises(mpr.TaskLoadError, match=r"cannot load the arguments of a task: .*UnpicklingError"):
        task_pickling.load_arguments([b"no pickle"])
