"""Keeps the recordings of this process: those that the process has made, and those that it has joined.

| process | how the process gets its producer |
|---|---|
| has made a `SharedRecording` | `own_recording` stores a function that returns it |
| is a worker of a pool | `take_over` |
| has inherited a recording | `join`, the first call of a decorated function, or `join_lazily` for `mpr run` |
| runs a function of `SharedRecording.wrap` | `attach`: by the connection info that came with the function |
| uses a stream that came as an argument | by the connection info that came with the stream |

A process of the second or third row makes the recording its current one until it leaves the recording. A process of the
fourth row does so only while such a function, a *wrapped function*, runs (`process_capture.py`). A process of the last
row keeps its current recording.

A process inherits a recording if the process that started it has passed it the connection info (`propagation.py`).

Covers: joining, leaving at the end of the process, forks, and sending a stream to another process as an argument.
Does not cover: the connection of one recording (`producer.py`), which call logs to which recording (`router.py`).
"""

from __future__ import annotations

import copyreg
import functools
import os
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from multiprocessing import util
from typing import TYPE_CHECKING

from mpr.errors import JoinError, RecordingError, UnpicklableTaskError
from mpr.limits import JOIN_PATIENCE_SECS
from mpr.producer import exits, muted, propagation, router
from mpr.producer.process_capture import ProcessCaptures
from mpr.producer.producer import WELCOME_TIMEOUT_SECS, Producer
from mpr.sdk import recordings
from mpr.sdk.forks import redirect_stream
from mpr.threads import aside, check_threads
from mpr.transport import connection_info, ipc_folder
from mpr.transport.connection_info import ConnectionInfo
from mpr.user_code import log as _log

if TYPE_CHECKING:
    from collections.abc import Callable

    import rerun as rr

# For a recording that has failed to answer before: the longest wait of each later try, and the time between two tries
# (seconds).
_AGAIN_SECS = 5.0
_NEXT_TRY_SECS = 10.0


class _Memberships:
    """Holds the recordings that this process has made, has joined, or could not join.

    The keys of `owned`, `joined` and `active` are the secrets of the recordings.
    """

    def __init__(self) -> None:
        # Held while a recording is joined, because two threads must not join the same recording.
        self.lock = threading.RLock()
        self.owned: dict[str, tuple[ConnectionInfo, Callable[[], Producer]]] = {}
        self.joined: dict[str, Producer] = {}
        #: Gives children of this process the connection info of a recording to which all plain logging calls go.
        self.active: dict[str, propagation.Propagation] = {}
        self.captures = ProcessCaptures()
        #: The producer of a worker; None in other processes. The rows of a task are delivered with its result.
        self.worker: Producer | None = None
        #: The inherited connection infos by which no recording could be joined, with the reasons. None is tried again.
        self.refused: dict[str, RecordingError] = {}
        #: Whether this process has waited for a recording that did not answer, and when to try that again.
        self.has_waited = False
        self.next_try = 0.0


_current = _Memberships()
# The memberships of parent processes, in a forked process. They are kept, so that the forked process does not run the
# finalizers of its parent's objects.
_parents: list[_Memberships] = []


def _forked() -> None:
    global _current
    _parents.append(_current)
    _current = _Memberships()
    for producer in router.forked():
        redirect_stream(producer.stream, functools.partial(_this_process_stream, producer.config))


os.register_at_fork(after_in_child=_forked)


def own_recording(config: ConnectionInfo, producer: Callable[[], Producer]) -> None:
    """Note that this process has made the recording of `config`. `producer()` returns the producer of this process."""
    _current.owned[config.secret] = (config, producer)
    _let_streams_travel()


def forget_owned(secret: str) -> None:
    """Forget the recording with this `secret`, which this process has made, because the recording is closed."""
    _current.owned.pop(secret, None)


def take_over(config: ConnectionInfo, worker: int) -> Producer:
    """Make this process worker number `worker` of the recording of `config`. Return the worker's producer.

    From now on, all plain logging calls of the process go to this recording, and its children inherit the recording.
    Raises the errors of `Producer`.
    """
    producer = _current.worker = Producer(config, worker)
    router.guard(producer)
    _let_streams_travel()
    producer.log_counters.set_sees_all(router.take_over(producer))
    router.expect_current_in_new_threads(producer.stream.to_native())
    _current.joined[config.secret] = producer
    _current.active[config.secret] = propagation.Propagation(connection_info.to_text(config))
    return producer


def close_worker(producer: Producer) -> None:
    """Send all rows of this worker that were not sent yet, and close `producer`. If it is `spent`, the process ends."""
    router.release(producer)
    del _current.joined[producer.config.secret]
    producer.close()


def is_worker(producer: Producer) -> bool:
    """Return True if this process is a worker of a pool, and `producer` is the worker's producer."""
    return producer is _current.worker


def join(timeout: float = WELCOME_TIMEOUT_SECS) -> rr.RecordingStream:
    """Join the recording that this process inherited. From now on, `rr.log` logs to this recording.

    Call this in a `multiprocessing.Process`, a subprocess or a forked child. The process has inherited the recording if
    one of these conditions is true:

    - It was started within the `with` block of the `mpr.SharedRecording`.
    - It was started with the environment `SharedRecording.environ()`.
    - It was started by a worker of `mpr.Pool`, or by another process after that process has joined the recording.

    If this process has made the recording, or logs to it already, `join` only returns the stream. While a function of
    `SharedRecording.wrap` runs in this process, `rr.log` still logs to the recording of that function.

    The rows are in every durable sink (such as a file) when this process has ended, unless a signal or a crash has
    ended it, or the last rows could not be delivered. In the last case, an error is logged to the logger `mpr`. The
    rows of a function that is decorated with `@mpr.task` are in these sinks when the function returns.

    Parameters
    ----------
    timeout:
        The longest wait for an answer of the process that has made the recording, in seconds.

    Returns
    -------
    The stream of the recording.

    Raises
    ------
    JoinError
        If this process has inherited no recording, or if no answer comes within `timeout`. If the recording belongs to
        another machine, container or user. If the inherited connection info (the variable `MPR_RECORDING`) is damaged,
        or was made by another version of mpr. If gevent or eventlet has replaced the threads of this process.
    RecordingClosedError
        If the recording is closed, or the process that has made it has ended.
    """
    text = propagation.extract()
    if text is None:
        if _current.worker is not None:
            return _current.worker.stream
        raise JoinError(
            "there is no recording to join: start this process within 'with mpr.SharedRecording(...) as recording:', "
            f"or with env=recording.environ(), which sets {connection_info.VARIABLE}"
        )
    return muted.stream_of(_member(connection_info.from_text(text), timeout, takes_over=True))


def extracted_producer() -> Producer | None:
    """Return the producer for a decorated function of this process; None if there is no recording to join.

    Joins the inherited recording if necessary. Raises `JoinError` if the recording is open but cannot be joined, for
    example because its process does not answer for 120 s (`JOIN_PATIENCE_SECS`), or for 5 s at a later call. If another
    `RecordingError` prevents joining, logs it once, and returns None at this call and at later ones.
    """
    if _current.worker is not None:
        return _current.worker
    text = _current.captures.inherited_text()
    if text is None:
        return None
    if text in _current.refused:
        return None
    config = None
    try:
        config = connection_info.from_text(text)
        patience = _AGAIN_SECS if _current.has_waited else JOIN_PATIENCE_SECS
        return _member(config, patience, takes_over=True)
    except RecordingError as error:
        if isinstance(error, JoinError) and config is not None and ipc_folder.is_owned(config.folder):
            _current.has_waited = True
            raise
        _current.refused[text] = error
        _log.error("%s. Tasks of this process (pid %d) log to its own current recording, if any.", error, os.getpid())
        return None


def attach(config: ConnectionInfo) -> Producer:
    """Return this process's producer for the recording of `config`. Joins the recording if necessary.

    Plain logging calls still go where they went before; only `capture` changes that. Raises the errors of `join`.
    """
    return _member(config, JOIN_PATIENCE_SECS, takes_over=False)


def capture(producer: Producer, *, is_muted: bool = False) -> AbstractContextManager[None]:
    """Return a context manager that sends all plain logging calls of this process to the recording of `producer`.

    If the process always logs to this recording, or has made it, the context manager does nothing. In a worker of
    another recording, and if `is_muted` is True, it only makes children of this process inherit the recording. If
    blocks for two recordings run at once, the logging calls go to the recording of the first (`process_capture.py`).
    """
    config = producer.config
    if config.secret in _current.owned or config.secret in _current.active:
        return nullcontext()
    return _current.captures.hold(producer, routes=_current.worker is None and not is_muted)


def join_lazily() -> None:
    """Make this process, and each child that it forks, join the inherited recording when it first uses Rerun.

    `router.join_lazily` says which calls join. Only `mpr run` uses this.
    """
    router.join_lazily(_joined_or_lost)
    exits.protect(has_joined, leave_all)


def _joined_or_lost() -> Producer | None:
    """Return the result of `extracted_producer`. If it raises `JoinError`, return None.

    The first such error is logged and reported to the parent. A script under `mpr run` must not fail because of the
    recording. For 10 s (`_NEXT_TRY_SECS`) after a failure, calls return None at once.
    """
    if time.monotonic() < _current.next_try:
        return None
    try:
        return extracted_producer()
    except JoinError as error:
        is_first, _current.next_try = not _current.next_try, time.monotonic() + _NEXT_TRY_SECS
        if is_first:
            config = connection_info.from_text(propagation.extract() or "")
            _log.error("%s. What this process (pid %d) logs is lost, until it can join.", error, os.getpid())
            ipc_folder.note_loss(config.folder, f"process {os.getpid()} could not join in time: rows of it are lost")
        return None


def flush_all() -> None:
    """Announce all rows of this process, because the process may be killed soon. An error is only logged."""
    for producer in list(_current.joined.values()):
        try:
            # Aside, because a handler of a signal may run a task, whose delivery needs the locks of the flush.
            aside(producer.flush)
        except Exception as error:  # noqa: BLE001  # the caller is in the middle of something else, and goes on
            _log.error("rows of this process (pid %d) are not on their way: %r", os.getpid(), error)


def leave_all() -> None:
    """Deliver all rows of this process to the recordings that it has joined, and leave them, because the process ends.

    A worker does not leave the recording of its pool.
    """
    for producer in list(_current.joined.values()):
        if producer is not _current.worker:
            _leave(_current, producer)


def has_joined() -> bool:
    """Return True if this process has joined a recording other than as a worker, and has not left it."""
    return any(producer is not _current.worker for producer in list(_current.joined.values()))


def _let_streams_travel() -> None:
    import rerun as rr

    copyreg.pickle(rr.RecordingStream, _stream_as_argument)


def _stream_as_argument(stream: rr.RecordingStream) -> tuple[Callable[[str], rr.RecordingStream], tuple[str]]:
    """Return how to pickle `stream`: the function that the receiving process calls, and its arguments.

    The function returns the receiving process's own stream of the same recording. Raises `UnpicklableTaskError` if
    `stream` does not have the ids of a recording that this process has made or joined.
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
    """Return this process's own stream of the recording of `config`. Joins the recording if necessary.

    Raises the errors of `join`.
    """
    return muted.stream_of(_member(config, WELCOME_TIMEOUT_SECS, takes_over=False))


def _member(config: ConnectionInfo, timeout_secs: float, *, takes_over: bool) -> Producer:
    with _current.lock:
        owner = _current.owned.get(config.secret)
        if owner is not None:
            return owner[1]()
        producer = _current.joined.get(config.secret)
        if producer is None or producer.lost or not ipc_folder.is_owned(config.folder):
            producer = _joined(config, timeout_secs)
        if takes_over and _current.worker is None:
            with _current.captures.lock:
                _take_over_if_free(producer)
        return producer


def _take_over_if_free(producer: Producer) -> None:
    # If a wrapped function runs, plain `rr.log` logs to the recording of that function until the function ends. So no
    # other recording takes over before that.
    if _current.captures or router.has_taken_over(producer):
        return
    producer.log_counters.set_sees_all(router.take_over(producer))
    _make_current(producer)
    secret = producer.config.secret
    if secret not in _current.active:
        _current.active[secret] = propagation.Propagation(connection_info.to_text(producer.config))


def make_current(producer: Producer | muted.MutedProducer) -> bool:
    """Make the recording of `producer` the current one if `router.has_taken_over(producer)`, and return True.

    Otherwise, change nothing and return False.
    """
    with _current.captures.lock:
        if not router.has_taken_over(producer):
            return False
        _make_current(producer)
        return True


def _make_current(producer: Producer | muted.MutedProducer) -> None:
    recordings.make_current(producer.stream)
    router.note_current(producer.stream.to_native())


def _joined(config: ConnectionInfo, timeout_secs: float) -> Producer:
    check_threads(JoinError)
    _leave_the_closed()
    producer = Producer(config, 0, timeout_secs)
    router.guard(producer)
    _let_streams_travel()
    # Reset, because a forked process has inherited the times of its parent.
    producer.stream.reset_time()
    _current.joined[config.secret] = producer
    exits.protect(has_joined, leave_all)
    _leave_at_the_end(producer)
    # A child of `multiprocessing` may join while it unpickles its arguments. After that, `multiprocessing` drops all
    # finalizers in the child, and calls the functions of `register_after_fork`. So one of these functions registers the
    # finalizer again.
    util.register_after_fork(producer, _leave_at_the_end)
    return producer


def _leave_at_the_end(producer: Producer) -> None:
    """Register a finalizer of `multiprocessing` that leaves the recording of `producer` at the end of this process.

    It has a low priority, so it runs after most other finalizers. Does nothing if this process has left the recording.
    """
    if _current.joined.get(producer.config.secret) is producer:
        util.Finalize(None, _leave_behind_threads, (_current, producer), exitpriority=-100)


def _leave_behind_threads(memberships: _Memberships, producer: Producer) -> None:
    """Leave the recording of `producer` as soon as all other non-daemon threads of this process have ended.

    If there are any, a new thread waits for them, because `multiprocessing` itself waits for them only after this
    finalizer. `memberships` is the state of the process that has joined.
    """
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
    """Leave all recordings that are gone, because a process of an engine may live longer than a recording.

    Do not leave the recording of a worker's pool, or a recording whose wrapped function runs in this process.
    """
    for producer in list(_current.joined.values()):
        is_over = producer is not _current.worker and not ipc_folder.is_owned(producer.config.folder)
        # The stream of a function that runs must keep its sink, because without a sink the SDK keeps rows in memory.
        if is_over and not _current.captures.is_captured(producer):
            _leave(_current, producer)


def _leave(memberships: _Memberships, producer: Producer) -> None:
    """Deliver all rows of this process to the recording of `producer`, and leave it. A `RecordingError` is only logged.

    Does nothing if this process has left the recording before, or was forked after `memberships` was made.
    """
    if memberships is not _current or memberships.joined.get(producer.config.secret) is not producer:
        return
    router.release(producer)
    memberships.joined.pop(producer.config.secret, None)
    if (active := memberships.active.pop(producer.config.secret, None)) is not None:
        active.close()
    producer.leave()
