"""Tasks for the tests, in a module that workers can import."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing.util
import os
import resource
import signal
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import psutil
import rerun as rr
import rerun.blueprint as rrb

from mpr.rrd import framing
from tests import support


def log_number(number: int) -> int:
    rr.set_time("step", sequence=number)
    rr.log("n", rr.Scalars(float(number)))
    return number


def add(left: int, right: int = 0) -> int:
    return left + right


def square(number: int) -> int:
    return number * number


def pid(_: object = None) -> int:
    return os.getpid()


def log_and_raise(number: int) -> int:
    log_number(number)
    raise ValueError(f"task {number} failed")


def log_and_exit(number: int) -> None:
    log_number(number)
    raise SystemExit(3)


def log_and_die(number: int) -> None:
    """Log, and be killed when the row has left the SDK."""
    _log_and_flush(number)
    os.kill(os.getpid(), signal.SIGKILL)


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(number: int, marker: Path) -> int:
    """Kill the worker the first time that a task with this marker runs."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return log_number(number)


def refuse_the_second(marker: Path) -> None:
    """Fail in all workers but the first, as their initializer."""
    marker.touch(exist_ok=False)


def wait_for_footer_at_exit(path: Path, marker: Path) -> None:
    """Let this process wait at its exit until the file at `path` is finished, and then make `marker`."""

    def wait() -> None:
        support.wait_for(lambda: framing.is_finished(path))
        marker.touch()

    log_number(0)
    multiprocessing.util.Finalize(None, wait, exitpriority=0)


def log_images(worker: int, count: int, shape: tuple[int, int, int] = (480, 640, 3)) -> int:
    random = np.random.default_rng(worker)
    picture = random.integers(0, 255, shape, dtype=np.uint8)
    for number in range(count):
        rr.set_time("step", sequence=number)
        picture[0, 0, 0] = number % 256
        rr.log(f"image/{worker}", rr.Image(picture))
    return count


def log_everything(index: int) -> int:
    """Log everything that the SDK can log, with times and without, so that two runs log the same cells."""
    base = f"task/{index}"
    rr.set_time("frame", sequence=index)
    rr.set_time("sensor", duration=0.5 * index)
    rr.log(f"{base}/image", rr.Image(np.full((4, 6, 3), index, dtype=np.uint8)))
    rr.log(f"{base}/jpeg", rr.Image(np.zeros((16, 16, 3), dtype=np.uint8)).compress())
    rr.log(f"{base}/depth", rr.DepthImage(np.full((4, 6), index, dtype=np.uint16)))
    rr.log(f"{base}/segments", rr.SegmentationImage(np.full((4, 6), index, dtype=np.uint8)))
    rr.log(f"{base}/boxes", rr.Boxes2D(mins=[[index, 1]], sizes=[[2, 3]], labels=["a"]))
    rr.log(f"{base}/strips", rr.LineStrips3D([[[0, 0, 0], [1, 1, index]]]))
    rr.log(f"{base}/points", rr.Points3D([[index, 2, 3], [4, 5, 6]], colors=[[255, 0, 0], [0, 255, 0]]))
    rr.log(f"{base}/transform", rr.Transform3D(translation=[1, 2, index]))
    rr.log(f"{base}/text", rr.TextLog(f"task {index}", level=rr.TextLogLevel.WARN))
    rr.log(f"{base}/document", rr.TextDocument("# static"), static=True)
    rr.log(f"{base}/any", rr.AnyValues(answer=42, name=f"n{index}"))
    rr.log(f"{base}/mesh", rr.Mesh3D(vertex_positions=[[0, 0, 0], [1, 0, 0], [0, 1, 0]]))
    rr.log(f"{base}/asset", rr.Asset3D(contents=b"not really a model", media_type="model/gltf-binary"))
    rr.log(f"{base}/tensor", rr.Tensor(np.arange(24).reshape(2, 3, 4)))
    rr.log(f"{base}/video", rr.VideoStream(codec=rr.VideoCodec.H264, sample=b"\x00\x00\x00\x01\x67" + bytes([index])))
    rr.log(f"{base}/unicode/ünï", rr.TextLog("ß"))
    steps = np.arange(10)
    rr.send_columns(
        f"{base}/columns",
        indexes=[rr.TimeColumn("step", sequence=steps)],
        columns=rr.Scalars.columns(scalars=np.sin(steps + index)),
    )
    rr.reset_time()
    rr.log(f"{base}/timeless", rr.Scalars(1.0))
    rr.send_property(f"task_{index}", rr.AnyValues(seed=index))
    return index


def log_at_sequence() -> None:
    rr.set_time("when", sequence=1)
    rr.log("a", rr.Scalars(1.0))


def log_at_duration() -> None:
    rr.set_time("when", duration=1.0)
    rr.log("b", rr.Scalars(1.0))


def set_a_time(_: int) -> None:
    rr.set_time("only_first", sequence=1)
    rr.log("first", rr.Scalars(1.0))


def log_without_time(_: int) -> None:
    rr.log("second", rr.Scalars(2.0))


def log_slowly_or_die(number: int) -> int:
    """Run longer than results of a work item wait for each other. A negative number kills the worker after a flush."""
    if number < 0:
        log_and_die(number)
    time.sleep(0.02)
    return log_number(number)


def count_threads_and_files(_: int) -> int:
    return threading.active_count() + len(os.listdir("/proc/self/task")) + len(os.listdir("/proc/self/fd"))


def count_threads(number: int) -> int:
    log_number(number)
    return len(os.listdir("/proc/self/task"))


def init_then_log(number: int) -> int:
    rr.init("somebody_else", recording_id="another")
    return log_number(number)


def log_from_thread(number: int) -> int:
    thread = threading.Thread(target=log_number, args=(number,))
    thread.start()
    thread.join()
    return number


def wait_for_file(path: Path) -> None:
    """Return when `path` exists; the test decides when."""
    deadline = time.monotonic() + 60
    # `Path.exists` handles an exception of its own, which would be shown with that of Ctrl-C.
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.005)


def log_then_wait(number: int, started: Path, go_on: Path) -> int:
    log_number(number)
    started.touch()
    wait_for_file(go_on)
    return number


def log_images_and_measure(worker: int, count: int) -> int:
    """Log images, and return by how many bytes the peak of this process's memory grew meanwhile."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    log_images(worker, count)
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def log_plain_image(color: tuple[int, int, int]) -> None:
    rr.log("plain", rr.Image(np.full((90, 120, 3), color, dtype=np.uint8)), static=True)


def send_blueprint(index: int) -> None:
    rr.send_blueprint(rrb.Blueprint(rrb.TextLogView(origin=f"of/worker/{index}")))


def name_recording(index: int) -> None:
    rr.send_recording_name(f"as task {index} says")
    rr.send_recording_start_time_nanos(index)


def send_own_property(index: int) -> None:
    rr.send_property(f"worker_{index}", rr.AnyValues(seed=index))


def pid_after_meeting(place: Path, count: int) -> int:
    """Return when `count` processes are in this task."""
    place.mkdir(exist_ok=True)
    (place / str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(list(place.iterdir())) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(place)
        time.sleep(0.002)
    log_number(os.getpid())
    return os.getpid()


def send_chunks_of(path: Path) -> None:
    rr.send_chunks(rr.chunk.RrdReader(path).stream())


def log_file(path: Path) -> None:
    rr.log_file_from_path(path)


def make_catalog_client() -> None:
    rr.catalog.CatalogClient("rerun+http://127.0.0.1:1")


def make_server() -> None:
    rr.server.Server().shutdown()


def save_then_log(number: int, path: Path) -> int:
    """Log before and after `rr.save`, which takes the rows after it for itself."""
    log_number(number)
    rr.save(path)
    return log_number(number + 1)


def big_result(number: int) -> Any:
    """Return a result that is quickly made and too large for a status page."""
    log_number(number)
    return np.zeros(20_000_000, np.uint8)


def add_in_place(array: Any) -> Any:
    array += 1
    return array


def fork_and_log(number: int) -> int:
    """Log a number, log images in a forked child, and return the exit code of the child."""
    log_number(number)
    child = os.fork()
    if child == 0:
        try:
            log_images(9, 5)
        finally:
            os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fork_and_leave(number: int, how: str) -> tuple[str, int, int]:
    """Log a number, and let a forked child leave the task.

    Returns which process returns, the process id of the child, and its exit code.
    """
    child = os.fork()
    if child == 0:
        if how == "exit":
            sys.exit(7)
        if how == "raise":
            raise ValueError("in the forked child")
        return "child", 0, 0
    log_number(number)
    return "parent", child, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def leave_a_child_and_die(folder: Path) -> None:
    """Die while a child that was forked here lives on, until the test allows it to end."""
    child = os.fork()
    if child == 0:
        wait_for_file(folder / "child may end")
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


def log_some(number: int, rows: int) -> tuple[int, int]:
    for row in range(rows):
        log_number(number * rows + row)
    return number, os.getpid()


def log_to_saved_recording(number: int, path: Path) -> int:
    own = rr.RecordingStream("own", recording_id=f"own-{number}")
    own.save(path / f"own-{number}.rrd")
    own.log("n", rr.Scalars(float(number)))
    own.disconnect()
    return log_number(number)


def disconnect_between(number: int) -> int:
    log_number(number)
    rr.disconnect()
    return log_number(number + 1)


@rr.shutdown_at_exit
def log_and_shut_down(number: int) -> int:
    rr.init("upstreams_way")
    return log_number(number)


_state: dict[str, Any] = {}


def remember(value: Any) -> None:
    _state["value"] = value


def recall(_: object = None) -> Any:
    return _state.get("value")


def raise_in_initializer() -> None:
    rr.log("n", rr.Scalars(-1.0))
    raise LookupError("no model here")


def die_quietly() -> None:
    raise LookupError("no model here")


def die_in_initializer() -> None:
    os._exit(7)


def log_then_sleep(number: int) -> None:
    _log_and_flush(number)
    time.sleep(1000)


def log_then_hold_the_gil(number: int) -> None:
    """Wait in native code that never lets another thread of Python run."""
    _log_and_flush(number)
    ctypes.PyDLL(None).sleep(1000)


def _log_and_flush(number: int) -> None:
    log_number(number)
    stream = rr.get_global_data_recording()
    assert stream is not None
    stream.flush()


def sleep(secs: float) -> float:
    time.sleep(secs)
    return secs


def raise_if_odd(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


_kept: list[Any] = []


def log_and_keep(number: int, megabytes: int) -> int:
    """Log, and keep `megabytes` megabytes of memory for ever."""
    log_number(number)
    _kept.append(np.ones(megabytes * 1024 * 1024, np.uint8))
    return os.getpid()


def log_and_keep_much(number: int) -> int:
    return log_and_keep(number, 700)


def resident_bytes() -> int:
    """Return how much memory of this process is in RAM."""
    return psutil.Process().memory_info().rss


def log_to_unsaved_recording(number: int) -> int:
    """Log rows before, in and after a recording that gets no sink."""
    log_number(number)
    own = rr.RecordingStream("own app", recording_id=f"own/{number}")
    own.set_time("step", sequence=number)
    own.log("n", rr.Scalars(float(number)))
    with own:
        log_number(100 + number)
    return log_number(200 + number)


def log_to_unsaved_recording_and_die(rows: int) -> None:
    """Log `rows` rows to a recording without a sink and one row to a recording with a sink, and die."""
    own = rr.RecordingStream("own app", recording_id="dies")
    saved = rr.RecordingStream("own app", recording_id="saved")
    saved.memory_recording()
    saved.log("n", rr.Scalars(0.0))
    for row in range(rows):
        own.log("n", rr.Scalars(float(row)))
    os.kill(os.getpid(), signal.SIGKILL)


@rr.thread_local_stream("episode")
def log_episode(number: int) -> str:
    log_number(number)
    return str(rr.get_recording_id())


_streams: dict[str, Any] = {}


def log_to_kept_recording(number: int) -> None:
    """Log to a recording that lives in the worker from task to task, and disconnect it now and then."""
    if not _streams:
        _streams["stream"] = rr.RecordingStream("kept", recording_id="kept")
    stream = _streams["stream"]
    stream.log("n", rr.Scalars(float(number)))
    if number % 3 == 0:
        stream.disconnect()
    stream.log("n", rr.Scalars(1000.0 + number))


def log_images_to_unsaved_recording(count: int) -> int:
    """Log images to a recording without a sink, and return by how many bytes the peak of this process's memory grew."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    picture = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    own = rr.RecordingStream("images", recording_id="images")
    for number in range(count):
        own.set_time("step", sequence=number)
        picture[0, 0, 0] = number % 256
        own.log("image", rr.Image(picture))
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


class Tracked:
    """An object that is counted in each process that unpickles it."""

    alive: ClassVar[weakref.WeakSet[Tracked]] = weakref.WeakSet()

    def __init__(self, number: int) -> None:
        self.number = number

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        Tracked.alive.add(self)


def keep_alive(tracked: Tracked) -> int:
    return tracked.number


def count_tracked() -> int:
    return len(Tracked.alive)


def damage_outbox(number: int) -> int:
    """Write bytes that are no message behind the rows of this worker."""
    log_number(number)
    stream = rr.get_global_data_recording()
    assert stream is not None
    stream.flush()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(link).startswith("/memfd:mpr-outbox"):
                with open(link, "ab") as file:
                    file.write(b"\xff" * 64)
    return number


def log_noise(number: int, megabytes: int) -> int:
    """Log one row of `megabytes` megabytes that cannot be compressed."""
    rr.set_time("step", sequence=number)
    rr.log("noise", rr.Tensor(np.tile(np.frombuffer(os.urandom(1024 * 1024), np.uint8), megabytes)))
    return number


def log_some_images(number: int) -> int:
    for step in range(5):
        rr.set_time("step", sequence=step)
        rr.log(f"image/{number}", rr.Image(np.full((240, 320, 3), step, np.uint8)))
    return number


def log_episode_and_count_threads(number: int) -> int:
    log_episode(number)
    return len(os.listdir("/proc/self/task"))


def hang_at_exit() -> None:
    """Let this process hang at its end, in native code that never lets another thread of Python run."""
    multiprocessing.util.Finalize(None, ctypes.PyDLL(None).sleep, args=(1000,), exitpriority=50)
