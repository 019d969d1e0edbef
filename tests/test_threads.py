"""Threads that are woken, also at the moment when they end."""

from __future__ import annotations

import threading
from multiprocessing import connection as mp_connection
from pathlib import Path

from mpr.threads import WakeupPipe


def test_a_thread_is_woken_as_often_as_it_waits() -> None:
    pipe = WakeupPipe()
    for _ in range(3):
        assert mp_connection.wait([pipe.fileno()], 0) == []
        pipe.wake()
        pipe.wake()
        assert mp_connection.wait([pipe.fileno()], 10) == [pipe.fileno()]
        pipe.clear()
    pipe.close()


def test_a_full_pipe_does_not_block_the_thread_that_wakes() -> None:
    pipe = WakeupPipe()
    for _ in range(100_000):
        pipe.wake()
    assert mp_connection.wait([pipe.fileno()], 0) == [pipe.fileno()]
    pipe.close()


def test_a_late_call_writes_into_no_file_that_has_the_old_number(tmp_path: Path) -> None:
    pipe = WakeupPipe()
    number = pipe.fileno()
    pipe.close()
    # The system gives the lowest free numbers, so these files have the numbers of the pipe.
    files = [open(tmp_path / str(index), "w+b") for index in range(4)]  # noqa: SIM115  # closed below, all of them
    assert number in {file.fileno() for file in files}
    threads = [threading.Thread(target=pipe.wake) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {file.read() for file in files} == {b""}
    for file in files:
        file.close()
