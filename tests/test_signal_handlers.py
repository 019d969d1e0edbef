"""A handler of a signal calls mpr, at every line of mpr that the main thread comes to.

A handler runs in the main thread, between any two of its instructions. If the main thread held a lock there that the
handler's call needs, the program would wait for ever. The call under test runs in a program of its own, which is given
up after a while.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import mpr
from tests import functions, support, tasks

_LIMIT_SECS = 30

_PROGRAM = """
import itertools, signal, sys
from pathlib import Path
import mpr, rerun as rr
from tests import functions, tasks

package = str(Path(mpr.__file__).parent)

def at_line(call, line, handler):
    '''Do `call`, and call `handler` at the `line`-th line of mpr (0: at each); False where there are fewer.'''
    count = 0
    def trace(frame, event, _):
        nonlocal count
        if not frame.f_code.co_filename.startswith(package):
            return None
        if event == "line":
            count += 1
            if line in (0, count):
                # Another signal of the same kind does not interrupt the handler.
                sys.settrace(None)
                handler()
                sys.settrace(trace)
        return trace
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return count >= line

CALLS = {
    "submit": lambda recording, pool: pool.submit(tasks.log_number, 1).result(),
    "apply_async": lambda recording, pool: pool.apply_async(tasks.log_number, (1,)).get(),
    "map": lambda recording, pool: pool.map(tasks.log_number, [1, 1], chunksize=1),
    "imap": lambda recording, pool: list(pool.imap(tasks.log_number, [1, 1])),
    "cancel": lambda recording, pool: pool.submit(tasks.log_number, 1).cancel(running=True),
    "insights": lambda recording, pool: pool.insights(),
    "log": lambda recording, pool: recording.stream.log("x", rr.Scalars([0.0] * 200_000)),
    "flush": lambda recording, pool: recording.flush(),
    "task": lambda recording, pool: functions.log_number(1),
    "stats": lambda recording, pool: recording.stats(),
    "end of pool": lambda recording, pool: (pool.close(), pool.join()),
    "terminate": lambda recording, pool: pool.terminate(),
    "close": lambda recording, pool: recording.close(),
}

def new(folder, number):
    recording = mpr.SharedRecording("app", sinks=folder / f"{number}.rrd")
    recording.__enter__()
    return recording, mpr.Pool("app", 1, recording=recording)

def end(recording, pool):
    try:
        pool.close()
        pool.join()
    except mpr.MprError:
        pass
    recording.close()

def interrupted(folder, name, call, called, lines):
    handled = 0
    def handler():
        nonlocal handled
        handled += 1
        try:
            called(recording, pool)
        except (mpr.MprError, ValueError):
            pass
    for line in lines:
        recording, pool = new(folder, f"{name}-{line}")
        try:
            is_there = at_line(lambda: call(recording, pool), line, handler)
        except (mpr.MprError, ValueError):
            is_there = True
        end(recording, pool)
        if not is_there:
            break
    assert handled, "nothing was tested"

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for pair in sys.argv[3:]:
        print(pair, flush=True)
        call, called = pair.split("/")
        lines = [0] if sys.argv[2] == "every" else itertools.count(1, 7)
        interrupted(folder, f"{call}-{called}", CALLS[call], CALLS[called], lines)
    print("done")
"""

_WORK = ("submit", "apply_async", "map", "imap", "cancel", "insights", "log", "flush", "task", "stats")
_ENDS = ("end of pool", "terminate", "close")


@pytest.mark.parametrize(
    ("lines", "calls", "handlers"),
    [
        pytest.param("every", _WORK, ("submit",), id="work-submit"),
        pytest.param(
            "every",
            ("submit", "imap", "log", "flush", "task"),
            ("log", "flush", "task"),
            id="work-log",
            marks=pytest.mark.slow,
        ),
        pytest.param("each", ("submit", "imap", "log", "flush", "task"), ("terminate", "close"), id="work-end"),
        pytest.param("each", _ENDS, ("terminate", "close"), id="end-end", marks=pytest.mark.slow),
    ],
)
def test_a_handler_at_any_line_of_a_call_may_call_mpr(
    lines: str, calls: tuple[str, ...], handlers: tuple[str, ...], tmp_path: Path
) -> None:
    """`every`: the handler runs at every line of one call. `each`: a new call for each of the lines, seven apart."""
    pairs = [f"{call}/{handler}" for call in calls for handler in handlers]
    ran = support.run_python(_PROGRAM, tmp_path, lines, *pairs, timeout=240)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split("\n") == [*pairs, "done", ""]
    for path in tmp_path.glob("*.rrd"):
        support.check_file(path)


def test_a_handler_of_a_worker_that_waits_for_its_next_task_may_call_a_decorated_function(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", initializer=functions.log_at_signal) as pool:
        pid = pool.apply(tasks.pid)
        for number in range(5):
            os.kill(pid, signal.SIGUSR1)
            # The worker comes back from the handler, and takes its next task.
            assert pool.apply_async(tasks.log_number, (number,)).get(_LIMIT_SECS) == number
    support.check_file(tmp_path / "run.rrd")
    assert set(support.numbers(tmp_path / "run.rrd")) == {*range(5), 100}


@pytest.mark.parametrize("log", [functions.log_100, functions.log_past_a_roll, functions.end_own_recording])
def test_a_handler_of_a_worker_that_sends_a_result_may_log(log: Callable[[], object], tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, initializer=functions.log_while_sending, initargs=(log,)) as pool:
        assert pool.apply_async(functions.log_own_and_number, (1,)).get(_LIMIT_SECS) == 1
    support.check_file(path)
    numbers = support.numbers(path)
    assert set(numbers) == {1, 100}
    assert numbers[100] >= 5


_FIRST_CALL = """
import os, signal, sys
import mpr

@mpr.task
def double(number):
    return 2 * number

class Signals:
    '''Sends this process a signal while a module is being imported that a task needs.'''
    def find_spec(self, name, path=None, target=None):
        if name in ("numpy", "rerun.sinks", "mpr.producer.router") and name not in sent:
            sent.append(name)
            os.kill(os.getpid(), signal.SIGUSR1)

def handler(number, frame):
    handled.append(double(21))
    if sys.argv[1] == "raises":
        raise TimeoutError

sent, handled, late = [], [], 0
sys.meta_path.insert(0, Signals())
signal.signal(signal.SIGUSR1, handler)
for _ in range(9):
    try:
        assert double(1) == 2
    except TimeoutError:
        late += 1
assert len(sent) >= 1 and set(handled) == {42}, (sent, handled)
print(late >= 1)
"""


@pytest.mark.parametrize("way", ["returns", "raises"])
def test_a_handler_in_the_first_call_of_a_decorated_function_may_call_it(way: str) -> None:
    """The first call imports the SDK. Some of its modules cannot be imported again if a handler ends the import."""
    ran = support.run_python(_FIRST_CALL, way, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [str(way == "raises")]
