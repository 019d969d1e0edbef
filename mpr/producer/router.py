"""Routes the SDK's calls to this process's producer, or to the task that runs in the calling thread.

A producer *takes over* if it gets every plain logging call of the process from then on. In a *capture*, a producer gets
these calls only while a function of `SharedRecording.wrap` runs (`process_capture.py`). A *guarded* recording is a
shared recording for which `guard` was called: mpr then watches the SDK's calls that change its sink.

Covers: changes of the state (`route_state.py`), and the functions that the wrappers around SDK calls invoke.
Does not cover: joining a recording (`membership.py`), how a task uses its context (`tasks/context.py`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mpr.producer.made_recordings import MadeRecordings
from mpr.producer.route_state import process as _process
from mpr.producer.route_state import thread_state
from mpr.producer.routed import Routes
from mpr.sdk import forks, internal, log_calls, recordings, sink_calls
from mpr.sdk.settings import watch_settings
from mpr.sdk.sink_calls import SinkCall
from mpr.sdk.times import watch_times
from mpr.threads import aside
from mpr.transport.status_page import COUNTED_ROWS
from mpr.user_code import log as _log

if TYPE_CHECKING:
    import rerun as rr

    from mpr.producer.routed import RoutedProducer
    from mpr.sdk.log_calls import Prefix
    from mpr.sdk.recordings import Ids
    from mpr.sdk.settings import Setting
    from mpr.sdk.times import SetTime


def producer() -> RoutedProducer | None:
    """Return the producer that gets every plain logging call of the process; None if there is none."""
    return _process.producer


def has_taken_over(producer: RoutedProducer) -> bool:
    """Return True if `producer` has taken over, and no capture runs."""
    return _process.producer is producer and _process.before is None


def install_times() -> None:
    """Wrap the SDK's functions that set times and settings, so that mpr knows which ones each thread has set."""
    if not _process.times_installed:
        _process.times_installed = True
        watch_times(_note_time)
        watch_settings(_note_setting)


def guard(producer: RoutedProducer) -> None:
    """Watch the SDK's calls that concern the recording whose rows `producer` sends.

    mpr calls `producer.sink_changed` after each call that changes the sink. From now on, the end of a `with stream:`
    block of this recording leaves the sink open.
    """
    install_times()
    _install_sinks()
    _process.guarded[producer.ids] = producer


def _install_sinks() -> None:
    if not _process.sinks_watched:
        _process.sinks_watched = True
        sink_calls.keep_sinks(lambda handle: _guarded(handle, recordings.ids_of(handle)) is not None)
        sink_calls.watch_sinks(_skips_sink, _before_sink, _note_sink)


def install_entries() -> None:
    """Wrap the SDK's logging functions. A second call does nothing.

    mpr then counts each call, lets it wait for credit, and puts the path of its task before its entity paths.
    """
    if not _process.entries_installed:
        _process.entries_installed = True
        _process.missing = tuple(log_calls.install_entries(_entered, _logged, lambda: thread_state.current))


def take_over(producer: RoutedProducer) -> bool:
    """Route every plain logging call of this process to `producer` from now on.

    The caller must also make the recording of `producer` the current one, because the SDK decides by the current
    recording where the rows go. Returns True if mpr could wrap all logging functions that it knows, and else False.
    """
    install_entries()
    install_take_over()
    _process.producer, _process.account = producer, producer.row_account
    _process.lost_rows = None
    return not _process.missing


def capture(producer: RoutedProducer) -> None:
    """Route every plain logging call to `producer` until `end_capture`. A second call replaces the producer."""
    install_entries()
    install_take_over()
    account = _process.account
    if account is not None:
        # From now on, other threads may log to either recording.
        account.stop()
    # No account, because a thread may be within a logging call now. The task's own account counts the rows of its body.
    _process.account = None
    recording = recordings.exchange_global_recording(producer.stream.to_native())
    if _process.before is None:
        if _process.producer is not None:
            # Calls that name the stream of the old producer are counted for the new one, so the old one misses them.
            _process.producer.log_counters.set_sees_all(False)
        _process.before = Routes(_process.producer, account, _process.default_current, recording)
    _process.default_current = None
    _process.producer = producer


def end_capture(threads: Iterable[threading.Thread]) -> None:
    """Restore the routes from before `capture`.

    `threads` began during the capture and still run. If one logs later and no recording is current, mpr warns.
    """
    before, _process.before = _process.before, None
    assert before is not None, "there is a capture"
    _process.producer = before.producer
    recordings.exchange_global_recording(before.recording)
    _process.account, _process.default_current = before.account, before.default_current
    _process.left_threads.update(threads)


def mute(handle: Any) -> None:
    """Prepare this process for tasks whose rows go to the recording of `handle`, which drops them (`muted.py`).

    Although this recording has the ids of a guarded recording, changes of its sink do not count as changes of the
    guarded recording's sink.
    """
    install_entries()
    install_take_over()
    _process.made.add_twin(handle)


def join_lazily(join: Callable[[], object]) -> None:
    """Call `join` at the first call that needs the recording, in this process and in each child that is forked from it.

    Such calls are logging calls, `rr.init`, and calls that show rows, such as in a viewer. `join` calls `take_over` if
    it succeeds. Otherwise `join` is called again at the next such call. From now on, calls such as `rr.save` do not
    change the sinks of the shared recording.
    """
    _process.lazy = join
    install_times()
    _install_sinks()
    install_entries()
    install_take_over()


def install_take_over() -> None:
    """Wrap the SDK's functions that make recordings or choose the current one (`_of_init` is about `rr.init`)."""
    if not _process.taken_over:
        _process.taken_over = True
        forks.leave_parents_recordings()
        recordings.divert_recording_info(_diverted_info)
        # `rr.init` changes the current recording too, so its calls must be watched as well.
        watches_init = recordings.divert_new_recordings(
            _diverted, _note_init, _note_made, _make_current, _switch_off, skips_clean_up=_is_apart
        )
        _process.current_is_watched = recordings.watch_current(_note_current) and watches_init


def current_is_watched() -> bool:
    """Return True if mpr notices each change of the current recording; False if the SDK lacks a function to wrap."""
    return _process.current_is_watched


def note_current(handle: Any) -> None:
    """Note that the recording of `handle` is now current in this thread, and in threads that have chosen no other.

    If mpr does not watch changes of the current recording, the current recording counts as unknown instead.
    """
    thread_state.current = _process.default_current = handle if _process.current_is_watched else None


def expect_current_in_new_threads(handle: Any) -> None:
    """In a worker, note that new threads log to the recording of `handle`, so that mpr can count their rows."""
    _process.current_of_new_threads = handle if _process.current_is_watched else None


def release(producer: RoutedProducer) -> None:
    """Route no more calls to `producer`, because this process leaves the recording, or the recording is closed."""
    before = _process.before
    takes_again = before is not None and before.producer is producer
    if takes_again or has_taken_over(producer):
        _process.lost_rows = (
            f"A process (pid {os.getpid()}) logs to Rerun when it has left the recording, at its very end or after the "
            "recording was closed: its rows are lost. Daemon threads and exit handlers come too late."
        )
    if before is not None and takes_again:
        _process.before = replace(before, producer=None, account=None)
    elif has_taken_over(producer):
        _process.producer = _process.account = None
    if _process.guarded.get(producer.ids) is producer:
        del _process.guarded[producer.ids]


def forked() -> list[Any]:
    """In a forked child, forget the parent process's producers, whose sockets the child cannot use. Return them."""
    parents = list(_process.guarded.values())
    if _process.producer is not None:
        _process.lost_rows = (
            f"A process (pid {os.getpid()}) that a task of mpr has forked logs to Rerun: its rows are lost. Log in the "
            "task, call mpr.join() in the new process, or decorate the function that it runs with @mpr.task."
        )
    _process.producer = _process.account = None
    _process.before = None
    _process.left_threads.clear()
    _process.guarded.clear()
    _process.made = MadeRecordings()
    _process.joining = threading.Lock()
    thread_state.context = None
    return parents


# --- the SDK's calls invoke these ---------------------------------------------------------------------------------


def _entered(size: int, rows: int, recording: Any) -> Prefix | None:
    if internal.thread.is_internal:
        return None
    context = thread_state.context
    if context is not None and context.producer is not None:
        _note_sdk_use()
        context.producer.log_counters.enter(size, rows, recording)
        return context.prefix
    found = _process.producer or _join_now()
    if found is not None:
        if _is_behind():
            _process.run.restore_times(found, thread_state.times)
        found.log_counters.enter(size, rows, recording)
    elif _process.left_threads:
        _warn_of_left_thread(recording)
    return None if context is None else context.prefix


def _logged(rows: int, recording: Any) -> None:
    # Each logging call runs this code, so the usual case comes first, and counts without a call. Rows that mpr itself
    # logs to the shared recording count too, because they come to the parent in the same outboxes.
    handle = thread_state.current if recording is None else recording
    account = _process.account
    if account is not None and handle is account.handle:
        account.counters[COUNTED_ROWS] += rows
    elif (context := thread_state.context) is not None and context.producer is not None:
        account = context.producer.row_account
        if handle is account.handle:
            account.counters[COUNTED_ROWS] += rows
        else:
            context.producer.task_recordings.logged(handle, rows)
    elif _process.producer is not None:
        _process.producer.task_recordings.logged(handle, rows)


def _join_now() -> RoutedProducer | None:
    if _process.lazy is not None:
        if thread_state.joins:
            return None
        with _process.joining:
            if _process.producer is None:
                thread_state.joins = True
                try:
                    with _process.made.kept_current():
                        _process.lazy()
                finally:
                    thread_state.joins = False
                _hand_over_made()
    elif _process.lost_rows is not None:
        message, _process.lost_rows = _process.lost_rows, None
        _log.warning("%s", message)
    return _process.producer


def _warn_of_left_thread(recording: Any) -> None:
    """Warn once if this thread began in a wrapped function that has ended, and its rows reach no recording."""
    thread = threading.current_thread()
    if recording is None and thread in _process.left_threads:
        _process.left_threads.discard(thread)
        if recordings.current_recording()[0] is None:
            text = "thread %r was started while a function of SharedRecording.wrap ran, and logs after its end: rows"
            _log.warning(f"{text} are lost. Wait for the thread in the function.", thread.name)


def _of_this_thread() -> RoutedProducer | None:
    """Return the producer of the task in this thread, or else of the process; None if there is none.

    If the process has no producer, the task's producer is returned only if it drops the task's rows.
    """
    context = thread_state.context
    if context is not None and context.producer is not None and (_process.producer is not None or context.is_muted):
        found: RoutedProducer = context.producer
        return found
    return _process.producer


def _is_apart() -> bool:
    """Return True if `rr.init` in this thread's task must not change the recording of other code.

    This is the case if the task's rows are dropped, or if no producer gets the plain logging calls of the process.
    """
    context = thread_state.context
    return context is not None and context.producer is not None and (_process.producer is None or context.is_muted)


def _of_init() -> RoutedProducer | None:
    """Return the producer whose recording `rr.init` uses in this thread; None if `rr.init` makes a new recording."""
    context = thread_state.context
    return context.producer if context is not None and _is_apart() else _of_this_thread()


def _note_sdk_use() -> None:
    if _process.producer is not None:
        _process.producer.log_counters.sdk_used = True


def _note_current(handle: Any, of_thread: bool) -> None:
    _note_sdk_use()
    if of_thread:
        thread_state.current = _process.default_current if handle is None else handle
        return
    if (context := thread_state.context) is not None and not thread_state.joins:
        context.note_global(handle)
    if _process.account is not None and handle is not _process.account.handle:
        # Threads that have chosen no recording may log to the other recording from now on.
        _process.account.stop()


def _note_time(ids: Ids | None, timeline: str | None, time: tuple[SetTime, Any] | None) -> None:
    # This is `_note_sdk_use` without the call, because user code may set a time before each row.
    if (found := _process.producer) is not None:
        found.log_counters.sdk_used = True
    if ids is None:
        return
    if found is not None and ids == found.ids and _is_behind():
        _process.run.restore_times(found, thread_state.times, lambda: _note_time(ids, timeline, time))
        return
    times = thread_state.times.get(ids)
    if times is None:
        times = thread_state.times[ids] = {}
    if timeline is not None and time is not None:
        times[timeline] = time
    elif timeline is None:
        times.clear()
    else:
        times.pop(timeline, None)


def _is_behind() -> bool:
    """Under `mpr run`, return True if this thread runs no task, and has times from before the last `rr.init`."""
    return _process.lazy is not None and _process.run.is_behind() and thread_state.context is None


def _note_setting(setting: Setting, before: bool) -> None:
    _note_sdk_use()
    owner = thread_state.context or _process.producer
    # Settings of recordings that the task has made itself end with these recordings.
    if owner is not None and owner.settings is not None and setting.recording in (None, owner.ids):
        owner.settings.note(setting, before)


def _diverted() -> rr.RecordingStream | None:
    _note_sdk_use()
    found = _of_init() or (_join_now() if _process.lazy is not None else None)
    return None if found is None else found.stream


def _make_current(stream: rr.RecordingStream) -> None:
    if _is_apart():
        # Other threads log where they logged before.
        recordings.exchange_thread_recording(stream.to_native())
        return
    # `rr.init` has cleaned up, so no recording is current. Other threads log to the process's recording.
    assert _process.producer is not None, "`_of_this_thread` has found a producer"
    recordings.make_current(_process.producer.stream)
    if stream is not _process.producer.stream or not has_taken_over(_process.producer):
        # A wrapped function runs. Only this thread logs to `stream` until the function ends.
        recordings.exchange_thread_recording(stream.to_native())


def _switch_off(handle: Any) -> None:
    # In a task, only the rest of the task logs nothing. After the task, its caller logs as before.
    recordings.choose(handle, of_thread=thread_state.context is not None)


def _hand_over_made() -> None:
    """Under `mpr run`, give the producer the recordings that user code has made before this process joined."""
    if _process.producer is not None:
        _process.producer.task_recordings.until_end = True
        for handle in _process.made.take_waiting():
            _process.producer.task_recordings.made(handle)


def _guarded(handle: Any, ids: Ids | None) -> RoutedProducer | None:
    """Return the producer of the guarded recording with this `handle` and these `ids`; None if there is none.

    Returns None also for another stream that user code has made with the same ids, because it has its own sinks.
    """
    found = _process.guarded.get(ids)
    if found is not None and _process.made.is_twin(thread_state.current if handle is None else handle):
        return None
    return found


def _skips_sink(call: SinkCall) -> bool:
    """Return True if `call` must be skipped, because the options of `mpr run` choose the sinks of the recording.

    For the shared recording, every call is skipped. For a recording of the script itself, only calls that show its
    rows, such as in a viewer, are skipped. A skipped call is logged as a warning, except "disconnect", which only
    flushes the stream. Without `mpr run`, and for "shutdown", no call is skipped.
    """
    if _process.lazy is None or thread_state.joins or call.name == "shutdown":
        return False
    found = _guarded(call.recording, call.ids)
    if found is None:
        if call.is_live and (found := _of_this_thread() or _join_now()) is not None:
            _process.run.skip_viewer(call, thread_state.current if call.recording is None else call.recording, found)
    elif call.name == "disconnect":
        aside(found.write_out)
    else:
        found.notices.sink_skipped(call.name)
    return found is not None


def _note_init(application_id: str | None, recording_id: str | None) -> None:
    found = _of_init()
    if found is not None and _process.lazy is None:
        found.notices.init(application_id, recording_id)
    elif found is not None:
        _process.run.note_init((application_id, recording_id), found, thread_state.times)


def _note_made(inner: Any) -> None:
    _note_sdk_use()
    # The new recording may be the current one of this thread.
    thread_state.current = None
    if recordings.ids_of(inner) in _process.guarded:
        _process.made.add_twin(inner)
    if (found := _of_this_thread()) is not None:
        found.task_recordings.made(inner)
    elif _process.lazy is not None:
        _process.made.add_waiting(inner)


def _diverted_info(call: str, handle: Any) -> tuple[rr.RecordingStream, str] | None:
    found = _of_this_thread()
    # Under `mpr run`, no parent names the recording, so the calls of the script do.
    if found is None or _process.lazy is not None or _guarded(handle, recordings.ids_of(handle)) is not found:
        return None
    name = found.notices.recording_info(call)
    return None if name is None else (found.stream, name)


def _before_sink(call: SinkCall) -> None:
    _note_sdk_use()
    if call.name == "spawn":
        return
    for guarded in _concerned(call):
        guarded.row_account.detached()
    found = _of_this_thread()
    handle = thread_state.current if call.recording is None else call.recording
    if found is None:
        _process.made.got_sink(handle, call.ids)
    elif _guarded(call.recording, call.ids) is not found:
        found.task_recordings.sink_call(call.name, handle)


def _note_sink(call: SinkCall) -> None:
    # `spawn` only starts a viewer. Another call, which is noted too, connects to the viewer.
    if call.name != "spawn":
        for found in _concerned(call):
            found.sink_changed(call.name)


def _concerned(call: SinkCall) -> list[RoutedProducer]:
    """Return the producers of the guarded recordings that `call` concerns; all of them if `call` is `shutdown`."""
    if call.name == "shutdown":
        return list(_process.guarded.values())
    found = _guarded(call.recording, call.ids)
    return [] if found is None else [found]
