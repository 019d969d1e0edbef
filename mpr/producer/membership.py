"""Which recordings this process is a producer of: those it owns, and those it has joined.

| process | how it comes to its producer |
|---|---|
| the one that made a `SharedRecording` | `own_recording`: the recording's own producer, only within tasks that run
here |
| a worker of a pool | `take_over` |
| one that mpr did not start | `join`, or the first decorated function: by what it inherited (`propagation.py`) |
| one that runs what `SharedRecording.wrap` made | `attach`: by what came with the function |
"""

from __future__ import annotations

import copyreg
import functools
import logging
import os
import threading
from multiprocessing import util
from typing import TYPE_CHECKING

from mpr.errors import JoinError, RecordingError, UnpicklableTaskError
from mpr.producer import propagation, router
from mpr.producer.producer import WELCOME_TIMEOUT_SECS, Producer
from mpr.sdk import recordings
from mpr.sdk.forks import redirect_stream
from mpr.transport import connection_info, ipc_folder
from mpr.transport.connection_info import ConnectionInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    import rerun as rr


_log = logging.getLogger("mpr")


class _Memberships:
    """The recordings of this process, each by its secret."""

    def __init__(self) -> None:
        # Held while a recording is joined: two threads must not join it twice.
        self.lock = threading.RLock()
        self.owned: dict[str, tuple[ConnectionInfo, Callable[[], Producer]]] = {}
        self.joined: dict[str, Producer] = {}
        #: What children are given because of them.
        self.active: dict[str, propagation.Propagation] = {}
        #: The worker's own, which is delivered with the result of its task.
        self.worker: Producer | None = None
        #: What could not be joined, with the reason: said once, and not tried at every call.
        self.refused: dict[str, RecordingError] = {}


_here = _Memberships()
# A forked process must not run the finalizers of what belongs to its parent.
_parents: list[_Memberships] = []


def _forked() -> None:
    global _here
    _parents.append(_here)
    _here = _Memberships()
    for producer in router.forked():
        redirect_stream(producer.stream, functools.partial(_this_process_stream, producer.config))


os.register_at_fork(after_in_child=_forked)


def own_recording(config: ConnectionInfo, producer: Callable[[], Producer]) -> None:
    """This process has made the recording of `config`; `producer()` is its producer here."""
    _here.owned[config.secret] = (config, producer)
    _let_streams_travel()


def forget_owned(secret: str) -> None:
    """The recording of `secret` is closed."""
    _here.owned.pop(secret, None)


def take_over(config: ConnectionInfo, worker: int) -> Producer:
    """Make this process worker number `worker`: all that it logs goes to the recording, and so for its children."""
    producer = _here.worker = Producer(config, worker)
    router.guard(config.recording_id, producer)
    _let_streams_travel()
    producer.log_counters.set_sees_all(router.take_over(producer))
    _here.joined[config.secret] = producer
    _here.active[config.secret] = propagation.Propagation(connection_info.to_text(config))
    return producer


def close_worker(producer: Producer) -> None:
    """This process is no worker any more: all that it has logged is on its way."""
    router.release(producer)
    del _here.joined[producer.config.secret]
    producer.close()


def is_worker(producer: Producer) -> bool:
    """Whether `producer` is that of a pool's worker, whose results bring its rows along."""
    return producer is _here.worker


def join(timeout: float = WELCOME_TIMEOUT_SECS) -> rr.RecordingStream:
    """Join the recording that this process inherited: from here on, plain `rr.log` goes there.

    For a process that mpr did not start: a `multiprocessing.Process`, a `subprocess` with the environment
    `SharedRecording.environ()` or one that was started within the recording's `with` block, a forked child. A second
    call does nothing, and so does one in a worker of `mpr.Pool`. Rows are in every durable sink when the process has
    ended, other than by a signal or `os._exit`, or when a function decorated with `@mpr.task` has returned.

    Parameters
    ----------
    timeout:
        How many seconds the recording's process may take to answer.

    Returns
    -------
    The stream that is current now.

    Raises
    ------
    JoinError
        If there is nothing to join, or what was inherited is of another version, forged, or gets no answer.
    RecordingClosedError
        If the recording is closed, or its process has ended.
    """
    text = propagation.extract()
    if text is None:
        if _here.worker is not None:
            return _here.worker.stream
        raise JoinError(
            "there is no recording to join: start this process within 'with mpr.SharedRecording(...) as recording:', "
            f"or with env=recording.environ(), which sets {connection_info.VARIABLE}"
        )
    return _member(connection_info.from_text(text), timeout, takes_over=True).stream


def extracted_producer() -> Producer | None:
    """The producer for a decorated function of this process; None where there is nothing to join.

    What cannot be joined is said once, and is nothing to join.
    """
    if _here.worker is not None:
        return _here.worker
    text = propagation.extract()
    if text is None:
        return None
    if text in _here.refused:
        return None
    try:
        return _member(connection_info.from_text(text), WELCOME_TIMEOUT_SECS, takes_over=True)
    except RecordingError as error:
        _here.refused[text] = error
        _log.error("%s. Tasks of this process (pid %d) log to its own current recording, if any.", error, os.getpid())
        return None


def attach(config: ConnectionInfo, *, takes_over: bool) -> Producer:
    """The producer of this process for the recording of `config`, which it joins where it has not yet.

    With `takes_over`, threads that the task starts log to it too. Raises what `join` raises.
    """
    return _member(config, WELCOME_TIMEOUT_SECS, takes_over=takes_over)


def join_lazily() -> None:
    """Join what this process inherited as soon as it logs, and so in each child that it forks. For `mpr run`."""
    router.join_lazily(extracted_producer)


def flush_all() -> None:
    """Announce all that this process has logged until now: it reaches the sinks also where the process is killed."""
    for producer in list(_here.joined.values()):
        try:
            producer.flush()
        except Exception as error:  # noqa: BLE001  # the caller is in the middle of something else, and goes on
            _log.error("rows of this process (pid %d) are not on their way: %r", os.getpid(), error)


def leave_all() -> None:
    """This process ends, or becomes another program: bring all that it has logged to the recordings."""
    for producer in list(_here.joined.values()):
        _leave(_here, producer)


def _let_streams_travel() -> None:
    import rerun as rr

    copyreg.pickle(rr.RecordingStream, _stream_as_argument)


def _stream_as_argument(stream: rr.RecordingStream) -> tuple[Callable[[str], rr.RecordingStream], tuple[str]]:
    """How a stream of a shared recording is pickled: it arrives as the receiving process's own stream of that.

    Raises `UnpicklableTaskError` for a stream of any other recording.
    """
    import rerun as rr

    ids = (rr.get_application_id(stream), rr.get_recording_id(stream))
    configs = [config for config, _ in _here.owned.values()] + [each.config for each in _here.joined.values()]
    for config in configs:
        if ids == (config.application_id, config.recording_id):
            return _stream_that_came, (connection_info.to_text(config),)
    raise UnpicklableTaskError(
        f"a RecordingStream of {ids[0]!r} ({ids[1]}) cannot be sent to another process: only one of a shared recording "
        "can, such as mpr.SharedRecording(...).stream. Make this one in the process that logs to it"
    )


def _stream_that_came(text: str) -> rr.RecordingStream:
    return _this_process_stream(connection_info.from_text(text))


def _this_process_stream(config: ConnectionInfo) -> rr.RecordingStream:
    """This process's own stream of the recording of `config`."""
    return _member(config, WELCOME_TIMEOUT_SECS, takes_over=False).stream


def _member(config: ConnectionInfo, timeout_secs: float, *, takes_over: bool) -> Producer:
    with _here.lock:
        owner = _here.owned.get(config.secret)
        if owner is not None:
            return owner[1]()
        producer = _here.joined.get(config.secret)
        if producer is None or producer.lost:
            producer = _joined(config, timeout_secs)
        if takes_over and _here.worker is None and router.producer() is not producer:
            producer.log_counters.set_sees_all(router.take_over(producer))
            recordings.make_current(producer.stream)
        return producer


def _joined(config: ConnectionInfo, timeout_secs: float) -> Producer:
    _leave_the_closed()
    producer = Producer(config, 0, timeout_secs)
    router.guard(config.recording_id, producer)
    _let_streams_travel()
    # A forked process has inherited times.
    producer.stream.reset_time()
    _here.active[config.secret] = propagation.Propagation(connection_info.to_text(config))
    _here.joined[config.secret] = producer
    _leave_at_the_end(producer)
    # A child of multiprocessing that joins while it unpickles its arguments forgets its finalizers before it begins.
    util.register_after_fork(producer, _leave_at_the_end)
    return producer


def _leave_at_the_end(producer: Producer) -> None:
    """Children of multiprocessing run finalizers at their end, and other processes at exit. Ours is the last."""
    if _here.joined.get(producer.config.secret) is producer:
        util.Finalize(None, _leave_behind_threads, (_here, producer), exitpriority=-100)


def _leave_behind_threads(memberships: _Memberships, producer: Producer) -> None:
    """Leave when no thread is left for which this process does not end; multiprocessing's children wait later."""
    thread_state = (threading.main_thread(), threading.current_thread())
    others = [each for each in threading.enumerate() if not each.daemon and each not in thread_state]

    def wait_and_leave() -> None:
        for each in others:
            each.join()
        _leave(memberships, producer)

    if others:
        threading.Thread(target=wait_and_leave, name="mpr-leaver", daemon=False).start()
    else:
        _leave(memberships, producer)


def _leave_the_closed() -> None:
    """Let go of recordings that are closed: a worker of another engine lives longer than they."""
    for producer in list(_here.joined.values()):
        if producer is not _here.worker and not ipc_folder.is_owned(producer.config.folder):
            _leave(_here, producer)


def _leave(memberships: _Memberships, producer: Producer) -> None:
    """This process ends: bring all that it has logged to the recording."""
    if memberships is not _here or memberships.joined.get(producer.config.secret) is not producer:
        return
    router.release(producer)
    memberships.joined.pop(producer.config.secret, None)
    memberships.active.pop(producer.config.secret).close()
    producer.leave()
