"""Profile a worker and the parent, to see where the time goes. Writes `benchmarks/profiles/*.txt`; needs py-spy.

For each profile, py-spy samples one process of a real run, with its native code. A profile has three lists. The first
has the share of each thread in all samples. The second (self) has the share of samples in which a function itself ran.
The third (total) has the share in which the function or one that it had called ran. If the kernel or code without a
name runs, this counts as its caller. Threads that wait are left out.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import mpr
from benchmarks import common, small_tasks, works

_FOLDER = Path(__file__).parent / "profiles"
# Samples per second.
_RATE = 200
# A thread in one of these functions waits. py-spy does not always recognize this, so such samples are left out here.
_WAITING = ("lock_PyThread_acquire_lock", "wait (threading.py", "Sockets.receive", "poll (")
_SHOWN = 25
_NAME_MAX = 120
# For each name of a profile: what is logged (see `works.py`), and a number of rows that takes some seconds.
_WORKS = {"images": (works.NOISY, 500), "scalars": (works.SCALARS, 40_000), "entities": (works.ENTITIES, 5_000)}


def _pid(number: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def _log(work: str, rows: int, worker: int) -> int:
    return len(works.prepare(work, worker)(rows))


def _small_tasks(pool: mpr.Pool) -> None:
    pool.map(small_tasks.log_row, range(5_000), chunksize=1)


def _work(name: str, pool: mpr.Pool) -> None:
    work, rows = _WORKS[name]
    pool.map(functools.partial(_log, work, rows), range(2), chunksize=1)


def _py_spy() -> str:
    found = shutil.which("py-spy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if found is None:
        raise SystemExit("py-spy is not installed: pip install --group bench")
    return found


def _profile(name: str, of_parent: bool, run: Callable[[mpr.Pool], None], *, until_closed: bool = False) -> None:
    """Profile a worker or the parent of a pool, and write the profile to the file `<name>.txt`.

    Parameters
    ----------
    of_parent:
        Whether to profile the parent. Otherwise, a worker is profiled.
    run:
        The function that lets the pool work.
    until_closed:
        Whether to profile the time in which the pool is closed, after `run`. Otherwise, the time of `run` is profiled.
    """
    with common.scratch() as folder:
        raw = folder / "samples.txt"
        pool = mpr.Pool("benchmark", 2, sinks=[folder / "out.rrd"])
        worker = pool.map(_pid, range(8), chunksize=1)[0]
        if until_closed:
            run(pool)
        pid = os.getpid() if of_parent else worker
        options = ["--rate", str(_RATE), "--native", "--threads", "--format", "raw", "--output", str(raw)]
        spy = subprocess.Popen(
            [_py_spy(), "record", "--pid", str(pid), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # py-spy needs this time to attach to the process.
        time.sleep(2)
        begin = time.perf_counter()
        if not until_closed:
            run(pool)
        else:
            pool.close()
            pool.join()
        secs = time.perf_counter() - begin
        spy.send_signal(2)
        spy.wait(60)
        pool.close()
        pool.join()
        stacks = raw.read_text().splitlines()
    _FOLDER.mkdir(exist_ok=True)
    title = f"{name}: {'the parent' if of_parent else 'a worker'}, {secs:.1f} s at {_RATE} samples/s"
    (_FOLDER / f"{name}.txt").write_text(_text(title, stacks))
    print(f"{name}: {sum(int(line.rpartition(' ')[2]) for line in stacks)} samples")


def _text(title: str, stacks: list[str]) -> str:
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    threads: Counter[str] = Counter()
    for line in stacks:
        frames, _, count = line.rpartition(" ")
        names = [_short(frame) for frame in frames.split(";") if not frame.startswith("0x")]
        if not names or any(each.startswith(_WAITING) for each in names):
            continue
        own[names[-1]] += int(count)
        for each in set(names):
            whole[each] += int(count)
        thread = next((each for each in names if each.startswith("thread")), "the main thread")
        threads[thread] += int(count)
    total = max(1, sum(own.values()))
    lines = [title, "made by: python -m benchmarks.profiles", ""]
    for heading, found in (("threads", threads), ("self", own), ("total", whole)):
        lines += [f"share  {heading}"]
        lines += [f"{100 * count / total:5.1f}  {each}" for each, count in found.most_common(_SHOWN)]
        lines += [""]
    return "\n".join(lines)


def _short(frame: str) -> str:
    """Return a frame without the parts that differ from run to run: folders, and the ids of processes and threads."""
    if frame.startswith("thread"):
        _, _, name = frame.partition(":")
        return f"thread{name or ' without a name'}".replace('"', "")
    name, _, place = frame.partition(" (")
    if len(name) > _NAME_MAX:
        # The compiler gives some functions of Rust names that are very long.
        name = f"{name[:_NAME_MAX]}..."
    return f"{name} ({Path(place).name}" if place else name


def main() -> None:
    names = ("images", "scalars")
    for name in names:
        _profile(f"worker-{name}", False, functools.partial(_work, name))
    for name in names:
        _profile(f"parent-{name}", True, functools.partial(_work, name))
    _profile("worker-small-tasks", False, _small_tasks)
    _profile("parent-small-tasks", True, _small_tasks)
    _profile("parent-close-entities", True, functools.partial(_work, "entities"), until_closed=True)


if __name__ == "__main__":
    main()
