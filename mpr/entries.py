"""The one place that knows private names of the Rerun SDK: what comes before and after its calls where tasks log.

| private name | why | without it |
|---|---|---|
| `rerun_bindings.log_arrow_msg` and the other entries in `_ENTRIES` | in workers, they count what a task logs and wait
  in Python, with no lock held, while the outbox is full | every task is flushed; a slow sink's outbox grows |
| `rerun_bindings.new_recording` | `rr.init` in a task makes the worker's own recording current | its rows are lost |
| `rerun_bindings.flush_and_cleanup_orphaned_recordings` | `rr.init` calls it, and it raises in a forked process |
  `rr.init` raises in workers of `start_method='fork'` |
| `rerun_bindings.send_recording_name`, `send_recording_start_time_nanos` | the name and start of the recording are the
  parent's; a worker's become properties of its own | the last worker's win |
| `rerun_bindings.get_recording_id`, `.binary_stream` | recordings that a task makes are known by the SDK's handle, long
  before there is a public object of them | their rows are lost where they have no sink |
| `rerun_bindings.set_global_data_recording` and its thread-local twin | 0.2 us, where the public function flushes the
  previous recording (97 us); watched, so that only what a task has changed is put right before the next one | the
  public function, before every task |
| `rerun_bindings.set_time_sequence` and the others in `_SET_TIME`, `disable_timeline`, `reset_time` | the SDK does not
  tell which times a thread has set; they are kept to give a caller its own back | times that a task sets stay on the
  rows of its caller |
| `rerun_bindings.finalize_deferred_sinks` | the end of a `with stream:` block would finish the file sink that leads to
  the recording | rows after the block are lost |
| `rerun_bindings.save` and the others in `_SINK_CALLS` | a task that calls `rr.save` or `rr.disconnect` takes the
  worker's sink; it gets it back at the end of the task | the worker's rows are lost from then on |
| `LazyChunkStream._internal`, `UrdfTree._inner` | these send without passing an entry | such a task is flushed only
  where it logs in another way too |

`tests/test_data_path.py` fails when a release of the SDK moves one of them.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from mpr import prefixes

if TYPE_CHECKING:
    import rerun as rr


#: How a time is set again: with `(timeline, value, recording)`.
SetTime: TypeAlias = Callable[..., None]
#: The times of one (thread, recording): how each timeline's is set, and to what.
Times: TypeAlias = dict[str, tuple[SetTime, Any]]


class Prefix(NamedTuple):
    """What comes before the entity paths that a task logs to one recording."""

    path: str
    recording_id: str


# Entries that hand data to a recording.
_ENTRIES = (
    "log_arrow_msg",
    "send_arrow_chunk",
    "send_chunks",
    "log_file_from_path",
    "log_file_from_contents",
    "send_recording_name",
    "send_recording_start_time_nanos",
    "send_blueprint",
)

# What an entry is taken to log where its arguments do not say (bytes).
_UNKNOWN_SIZE = 64 * 1024


def missing_entries() -> list[str]:
    """The logging entries that the installed SDK does not have under the names that mpr knows."""
    import rerun_bindings

    return [name for name in _ENTRIES if not hasattr(rerun_bindings, name)]


def _logged_bytes(components: Any) -> int:
    size = 0
    try:
        # No generator: this is done for each `rr.log`.
        for array in components.values():
            size += array.get_total_buffer_size()
    except AttributeError:
        return _UNKNOWN_SIZE
    return size


def _logged_rows(name: str, components: Any) -> int:
    """How many rows a call of entry `name` logs; 0 where its arguments do not say."""
    if name == "log_arrow_msg":
        return 1
    return len(next(iter(components.values()))) if name == "send_arrow_chunk" and components else 0


def install_entries(entered: Callable[[int, int, Any], Prefix | None]) -> list[str]:
    """Make every logging entry of the SDK in this process call `entered(bytes, rows, recording)` first, and heed the
    prefix that it returns. The recording is the SDK's handle, or None for the current one.

    Returns the names that this release of the SDK does not have.
    """
    import rerun_bindings

    missing = missing_entries()
    for name in _ENTRIES:
        if name not in missing:
            original = getattr(rerun_bindings, name)
            wrap = _wrapped_log if _is_plain_log(original) else functools.partial(_wrapped, name)
            setattr(rerun_bindings, name, wrap(original, entered))
    for owner, attribute in _bypasses():
        setattr(owner, attribute, _watched(attribute, entered))
    return missing


def _wrapped(
    name: str, original: Callable[..., Any], entered: Callable[[int, int, Any], Prefix | None]
) -> Callable[..., Any]:
    import rerun_bindings

    @functools.wraps(original)
    def entry(*args: Any, **kwargs: Any) -> Any:
        components = kwargs.get("components")
        recording = kwargs.get("recording")
        prefix = entered(_logged_bytes(components), _logged_rows(name, components), recording)
        if prefix is not None and rerun_bindings.get_recording_id(recording) == prefix.recording_id:
            args, kwargs = prefixes.with_prefix(name, prefix.path, args, kwargs)
        return original(*args, **kwargs)

    return entry


def _is_plain_log(original: Callable[..., Any]) -> bool:
    """Whether this is the call that `rr.log` makes, in the form that `_wrapped_log` knows."""
    with contextlib.suppress(ValueError):
        return str(inspect.signature(original)) == "(entity_path, components, static_, recording=None)"
    return False


def _wrapped_log(original: Callable[..., Any], entered: Callable[[int, int, Any], Prefix | None]) -> Callable[..., Any]:
    """As `_wrapped`, for `log_arrow_msg`: its arguments are not packed and unpacked again, half a microsecond each."""
    import rerun_bindings

    @functools.wraps(original)
    def entry(entity_path: str, components: Any, static_: bool, recording: Any = None) -> Any:
        size = 0
        try:
            # As `_logged_bytes`; here for the call that this spares.
            for array in components.values():
                size += array.get_total_buffer_size()
        except AttributeError:
            size = _UNKNOWN_SIZE
        prefix = entered(size, 1, recording)
        if prefix is not None and rerun_bindings.get_recording_id(recording) == prefix.recording_id:
            entity_path = prefixes.under(prefix.path, entity_path)
        return original(entity_path, components, static_, recording)

    return entry


def _bypasses() -> Iterable[tuple[type, str]]:
    from rerun.chunk import LazyChunkStream
    from rerun.urdf import UrdfTree

    return ((LazyChunkStream, "_internal"), (UrdfTree, "_inner"))


def _watched(attribute: str, entered: Callable[[int, int, Any], object]) -> property:
    """An attribute that counts as an entry whenever it is read: whoever reads it may be about to send."""

    def get(self: Any) -> Any:
        entered(_UNKNOWN_SIZE, 0, None)
        return self.__dict__[attribute]

    def put(self: Any, value: Any) -> None:
        self.__dict__[attribute] = value

    return property(get, put)


# What sets the time of a (thread, recording), and what takes it away.
_SET_TIME = ("set_time_sequence", "set_time_duration_nanos", "set_time_timestamp_nanos_since_epoch")


def watch_times(noted: Callable[[str | None, str | None, tuple[SetTime, Any] | None], None]) -> None:
    """Call `noted(recording id, timeline, (how, value))` whenever this process sets a time for its thread.

    None for the pair says that the time was taken away, None for the timeline that all were. The SDK keeps the times of
    a (thread, recording) and does not tell them.
    """
    import rerun_bindings

    def watched_set(original: SetTime) -> SetTime:
        @functools.wraps(original)
        def call(timeline: str, value: Any, recording: Any = None) -> None:
            original(timeline, value, recording)
            noted(rerun_bindings.get_recording_id(recording), timeline, (original, value))

        return call

    disable_timeline, reset_time = rerun_bindings.disable_timeline, rerun_bindings.reset_time

    @functools.wraps(disable_timeline)
    def watched_disable(timeline: str, recording: Any = None) -> None:
        disable_timeline(timeline, recording)
        noted(rerun_bindings.get_recording_id(recording), timeline, None)

    @functools.wraps(reset_time)
    def watched_reset(recording: Any = None) -> None:
        reset_time(recording)
        noted(rerun_bindings.get_recording_id(recording), None, None)

    for name in _SET_TIME:
        setattr(rerun_bindings, name, watched_set(getattr(rerun_bindings, name)))
    rerun_bindings.disable_timeline = watched_disable
    rerun_bindings.reset_time = watched_reset


def change_times(native: Any, old: Times, new: Times) -> None:
    """Take the times `old` of this thread and the recording `native` away, and set `new`."""
    import rerun_bindings

    disable_timeline = inspect.unwrap(rerun_bindings.disable_timeline)
    for timeline in old:
        if timeline not in new:
            disable_timeline(timeline, native)
    for timeline, (how, value) in new.items():
        how(timeline, value, native)


def divert_new_recordings(
    diverted: Callable[[], rr.RecordingStream | None],
    noted: Callable[[str | None, str | None], None],
    made: Callable[[Any], None],
) -> None:
    """Let `rr.init` in this process make the stream that `diverted()` returns current instead of a new recording
    without a sink; where that is None, nothing is changed.

    `noted(application_id, recording_id)` hears of each. Recordings that are not made the default stay the user's;
    `made(handle)` hears of them.
    """
    import rerun_bindings

    original = rerun_bindings.new_recording

    @functools.wraps(original)
    def new_recording(*args: Any, **kwargs: Any) -> Any:
        stream = diverted() if kwargs.get("make_default") else None
        if stream is None:
            inner = original(*args, **kwargs)
            if not kwargs.get("make_default") and not _ours.now:
                made(inner)
            return inner
        noted(kwargs.get("application_id"), kwargs.get("recording_id"))
        make_current(stream)
        return stream.inner

    rerun_bindings.new_recording = new_recording
    clean_up = rerun_bindings.flush_and_cleanup_orphaned_recordings

    @functools.wraps(clean_up)
    def flush_and_cleanup_orphaned_recordings() -> None:
        try:
            clean_up()
        except RuntimeError:
            # `rr.init` calls this first, and in a forked process it fails on the recordings of the parent.
            if diverted() is None:
                raise

    rerun_bindings.flush_and_cleanup_orphaned_recordings = flush_and_cleanup_orphaned_recordings


def watch_new_recordings(made: Callable[[str | None], None]) -> None:
    """Call `made(recording id)` of every recording that this process makes from now on."""
    import rerun_bindings

    original = rerun_bindings.new_recording

    @functools.wraps(original)
    def new_recording(*args: Any, **kwargs: Any) -> Any:
        made(recording_id_of(inner := original(*args, **kwargs)))
        return inner

    rerun_bindings.new_recording = new_recording


# What a recording is called and when it began: the call, and the argument of `rr.archetypes.RecordingInfo`.
_RECORDING_INFO = {"send_recording_name": "name", "send_recording_start_time_nanos": "start_time"}


def divert_recording_info(diverted: Callable[[str, str | None], tuple[rr.RecordingStream, str] | None]) -> None:
    """Keep what this process says of a recording as such under a property: it is one of many writers.

    `diverted(call, recording id)` returns the stream and the name of the property; where that is None, nothing is
    changed.
    """
    import rerun_bindings

    def wrapped(call: str, field: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def send(value: Any, recording: Any = None) -> None:
            found = diverted(call, rerun_bindings.get_recording_id(recording))
            if found is None:
                original(value, recording=recording)
                return
            import rerun as rr

            stream, name = found
            stream.send_property(name, rr.archetypes.RecordingInfo(**{field: value}))

        return send

    for call, field in _RECORDING_INFO.items():
        original = getattr(rerun_bindings, call, None)
        if original is not None:
            setattr(rerun_bindings, call, wrapped(call, field, original))


# Calls that give the current recording another sink, or none.
_SINK_CALLS = (
    "save",
    "set_sinks",
    "connect_grpc",
    "serve_grpc",
    "stdout",
    "memory_recording",
    "binary_stream",
    "disconnect",
    "shutdown",
    "spawn",
)


class _Ours(threading.local):
    """Whether the sink call that this thread makes is mpr's own."""

    now = False


_ours = _Ours()


@contextlib.contextmanager
def unwatched() -> Iterator[None]:
    """Within, what this thread does with sinks is mpr's own business."""
    _ours.now = True
    try:
        yield
    finally:
        _ours.now = False


def watch_sinks(
    skips: Callable[[str, str | None], bool],
    changes: Callable[[str, str | None], None],
    changed: Callable[[str, str | None], None],
) -> None:
    """Call `changed(name, recording id)` after each call in this process that may have taken a recording's sink away,
    and `changes` of the same before.

    It is not made at all where `skips` of the same says so. For `shutdown`, which is for all, the id is None.
    """
    import rerun_bindings

    def watched(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if _ours.now:
                return original(*args, **kwargs)
            concerned = None if name == "shutdown" else rerun_bindings.get_recording_id(kwargs.get("recording"))
            if skips(name, concerned):
                return None
            changes(name, concerned)
            try:
                return original(*args, **kwargs)
            finally:
                changed(name, concerned)

        return call

    for name in _SINK_CALLS:
        original = getattr(rerun_bindings, name, None)
        if original is not None:
            setattr(rerun_bindings, name, watched(name, original))


def keep_sinks(is_ours: Callable[[str | None], bool]) -> None:
    """Let `with stream:` leave the sink of a stream alone where `is_ours(recording id)`.

    The SDK finishes file sinks when such a block ends, and what is logged afterwards is lost.
    """
    import rerun_bindings

    original = getattr(rerun_bindings, "finalize_deferred_sinks", None)
    if original is None:
        return

    @functools.wraps(original)
    def finalize_deferred_sinks(recording: Any = None) -> None:
        if not is_ours(rerun_bindings.get_recording_id(recording)):
            original(recording)

    rerun_bindings.finalize_deferred_sinks = finalize_deferred_sinks


def recording_id_of(inner: Any) -> str | None:
    """The id of a recording, by the SDK's own handle of it."""
    import rerun_bindings

    found: str | None = rerun_bindings.get_recording_id(inner)
    return found


def encoded_rows_of(inner: Any) -> Any:
    """Where the SDK puts the encoded rows of a recording from now on, those that it has kept first."""
    import rerun_bindings

    return rerun_bindings.binary_stream(recording=inner)


def disconnect(inner: Any) -> None:
    """Let a recording keep its rows until it is given a sink."""
    import rerun_bindings

    inspect.unwrap(rerun_bindings.disconnect)(recording=inner)


def clean_up_recordings() -> None:
    """Let the SDK end the threads of recordings that nobody holds. There is no current recording afterwards."""
    import rerun_bindings

    rerun_bindings.flush_and_cleanup_orphaned_recordings()


_SET_CURRENT = ("set_thread_local_data_recording", "set_global_data_recording")


def watch_current(changed: Callable[[], None]) -> bool:
    """Call `changed()` whenever somebody but mpr gives this process another current recording.

    Returns whether this release of the SDK lets us: `rr.init` does it by `new_recording`, all else by these two.
    """
    import rerun_bindings

    if not all(hasattr(rerun_bindings, name) for name in _SET_CURRENT):
        return False

    def watched(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            changed()
            return original(*args, **kwargs)

        return call

    for name in _SET_CURRENT:
        setattr(rerun_bindings, name, watched(getattr(rerun_bindings, name)))
    return True


def make_current(stream: rr.RecordingStream) -> None:
    """Make `stream` the recording that plain `rr.log` uses, in every thread that has none of its own."""
    try:
        import rerun_bindings

        inspect.unwrap(rerun_bindings.set_thread_local_data_recording)(None)
        inspect.unwrap(rerun_bindings.set_global_data_recording)(stream.inner)
    except (AttributeError, ImportError, TypeError):
        import rerun as rr

        rr.set_thread_local_data_recording(None)
        rr.set_global_data_recording(stream)


def exchange_thread_recording(native: Any) -> Any:
    """Make the recording `native` (or None) this thread's own; returns what was before."""
    import rerun_bindings

    before = rerun_bindings.get_thread_local_data_recording()
    rerun_bindings.set_thread_local_data_recording(native)
    return before


def exchange_global_recording(native: Any) -> Any:
    """Make the recording `native` (or None) that of all threads that have no own one; returns what was before."""
    import rerun_bindings

    before = rerun_bindings.get_global_data_recording()
    inspect.unwrap(rerun_bindings.set_global_data_recording)(native)
    return before


def current_recording() -> tuple[Any, str | None]:
    """The native recording that plain `rr.log` uses in this thread, and its recording id; (None, None) for none."""
    import rerun_bindings

    native = rerun_bindings.get_data_recording(None)
    return native, None if native is None else rerun_bindings.get_recording_id(native)
