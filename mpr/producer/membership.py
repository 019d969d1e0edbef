"""Knows the recordings of this process: those that it owns, and those that it has joined.

| process | how it comes to its producer |
|---|---|
| has made a `SharedRecording` | `own_recording`: the recording's own producer, only within tasks that run in it |
| a worker of a pool | `take_over` |
| mpr did not start it | `join`, or the first decorated function: by the text that it inherited (`propagation.py`) |
| runs a function of `SharedRecording.wrap` | `attach`: by the text that came with the function |
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
    """Holds the recordings of this process, each by its secret."""

    def __init__(self) -> None:
        # Held while a recording is joined, because two threads must not join it twice.
        self.lock = threading.RLock()
        self.owned: dict[str, tuple[ConnectionInfo, Callable[[], Producer]]] = {}
        self.joined: dict[str, Producer] = {}
        #: The texts that children are given because of them.
        self.active: dict[str, propagation.Propagation] = {}
        #: The worker's producer, whose rows are delivered with the results of its tasks.
        self.worker: Producer | None = None
        #: The texts that could not be joined, with the reason: logged once, and not tried at every call.
        self.refused: dict[str, RecordingError] = {}


_current = _Memberships()
# A forked process must not run the finalizers of what belongs to its parent.
_parents: list[_Memberships] = []


def _forked() -> None:
    global _current
    _parents.append(_current)
    _current = _Memberships()
    for producer in router.forked():
        redirect_stream(producer.stream, functools.partial(_this_process_stream, producer.config))


os.register_at_fork(after_in_child=_forked)


def own_recording(config: ConnectionInfo, producer: Callable[[], Producer]) -> None:
    """Note that this process has made the recording of `config`, and that `producer()` is its producer."""
    _current.owned[config.secret] = (config, producer)
    _let_streams_travel()


def forget_owned(secret: str) -> None:
    """Forget the recording of `secret`, which is closed."""
    _current.owned.pop(secret, None)


def take_over(config: ConnectionInfo, worker: int) -> Producer:
    """Make this process worker number `worker`: all its rows go to the recording, and those of its children."""
    producer = _current.worker = Producer(config, worker)
    router.guard(config.recording_id, producer)
    _let_streams_travel()
    producer.log_counters.set_sees_all(router.take_over(producer))
    _current.joined[config.secret] = producer
    _current.active[config.secret] = propagation.Propagation(connection_info.to_text(config))
    return producer


def close_worker(producer: Producer) -> None:
    """End the work of this process as a worker, and send all its rows on their way."""
    router.release(producer)
    del _current.joined[producer.config.secret]
    producer.close()


def is_worker(producer: Producer) -> bool:
    """Whether `producer` is that of a pool's worker, whose rows are delivered with its results."""
    return producer is _current.worker


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
        if _current.worker is not None:
            return _current.worker.stream
        raise JoinError(
            "there is no recording to join: start this process within 'with mpr.SharedRecording(...) as recording:', "
            f"or with env=recording.environ(), which sets {connection_info.VARIABLE}"
        )
    return _member(connection_info.from_text(text), timeout, takes_over=True).stream


def extracted_producer() -> Producer | None:
    """Return the producer for a decorated function of this process; None if there is no recording to join.

    A recording that cannot be joined counts as none, and the reason is logged once.
    """
    if _current.worker is not None:
        return _current.worker
    text = propagation.extract()
    if text is None:
        return None
    if text in _current.refused:
        return None
    try:
        return _member(connection_info.from_text(text), WELCOME_TIMEOUT_SECS, takes_over=True)
    except RecordingError as error:
        _current.refused[text] = error
        _log.error("%s. Tasks of this process (pid %d) log to its own current recording, if any.", error, os.getpid())
        return None


def attach(config: ConnectionInfo, *, takes_over: bool) -> Producer:
    """Return the producer of this process for the recording of `config`, which it joins if it has not yet.

    With `takes_over`, threads that the task starts log to it too. Raises the errors of `join`.
    """
    return _member(config, WELCOME_TIMEOUT_SECS, takes_over=takes_over)


def join_lazily() -> None:
    """Join the inherited recording as soon as this process logs, and so in each child that it forks. For `mpr run`."""
    router.join_lazily(extracted_producer)


def flush_all() -> None:
    """Announce all rows of this process until now: they reach the sinks also if it is killed."""
    for producer in list(_current.joined.values()):
        try:
            producer.flush()
        except Exception as error:  # noqa: BLE001  # the caller is in the middle of something else, and goes on
            _log.error("rows of this process (pid %d) are not on their way: %r", os.getpid(), error)


def leave_all() -> None:
    """Bring all rows of this process to the recordings, because it ends or becomes another program."""
    for producer in list(_current.joined.values()):
        _leave(_current, producer)


def _let_streams_travel() -> None:
    import rerun as rr

    copyreg.pickle(rr.RecordingStream, _stream_as_argument)


def _stream_as_argument(stream: rr.RecordingStream) -> tuple[Callable[[str], rr.RecordingStream], tuple[str]]:
    """Pickle a stream of a shared recording, which arrives as the receiving process's own stream of that.

    Raises `UnpicklableTaskError` for a stream of any other recording.
    """
    import rerun as rr

    ids = (rr.get_application_id(stream), rr.get_recording_id(stream))
    configs = [config for config, _ in _current.owned.values()] + [each.config for each in _current.joined.values()]
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
    """Return this process's own stream of the recording of `config`."""
    return _member(config, WELCOME_TIMEOUT_SECS, takes_over=False).stream


def _member(config: ConnectionInfo, timeout_secs: float, *, takes_over: bool) -> Producer:
    with _current.lock:
        owner = _current.owned.get(config.secret)
        if owner is not None:
            return owner[1]()
        producer = _current.joined.get(config.secret)
        if producer is None or producer.lost:
            producer = _joined(config, timeout_secs)
        if takes_over and _current.worker is None and router.producer() is not producer:
            producer.log_counters.set_sees_all(router.take_over(producer))
            recordings.make_current(producer.stream)
        return producer


def _joined(config: ConnectionInfo, timeout_secs: float) -> Producer:
    _leave_the_closed()
    producer = Producer(config, 0, timeout_secs)
    router.guard(config.recording_id, producer)
    _let_streams_travel()
    # A forked process has inherited the times of its parent.
    producer.stream.reset_time()
    _current.active[config.secret] = propagation.Propagation(connection_info.to_text(config))
    _current.joined[config.secret] = producer
    _leave_at_the_end(producer)
    # A child of `multiprocessing` that joins while it unpickles its arguments forgets its finalizers before it begins.
    util.register_after_fork(producer, _leave_at_the_end)
    return producer


def _leave_at_the_end(producer: Producer) -> None:
    """Leave at the end of this process: children of `multiprocessing` run finalizers then, other processes at exit.

    This finalizer is the last.
    """
    if _current.joined.get(producer.config.secret) is producer:
        util.Finalize(None, _leave_behind_threads, (_current, producer), exitpriority=-100)


def _leave_behind_threads(memberships: _Memberships, producer: Producer) -> None:
    """Leave when no thread is left that keeps this process alive; `multiprocessing` waits for those later."""
    these = (threading.main_thread(), threading.current_thread())
    others = [each for each in threading.enumerate() if not each.daemon and each not in these]

    def wait_and_leave() -> None:
        for each in others:
            each.join()
        _leave(memberships, producer)

    if others:
        threading.Thread(target=wait_and_leave, name="mpr-leaver", daemon=False).start()
    else:
        _leave(memberships, producer)


def _leave_the_closed() -> None:
    """Leave recordings that are closed, because a worker of another engine lives longer than they do."""
    for producer in list(_current.joined.values()):
        if producer is not _current.worker and not ipc_folder.is_owned(producer.config.folder):
            _leave(_current, producer)


def _leave(memberships: _Memberships, producer: Producer) -> None:
    """Bring all rows of this process to the recording, because it ends."""
    if memberships is not _current or memberships.joined.get(producer.config.secret) is not producer:
        return
    router.release(producer)
    memberships.joined.pop(producer.config.secret, None)
    memberships.active.pop(producer.config.secret).close()
    producer.leave()
