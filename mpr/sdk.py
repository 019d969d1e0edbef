"""The one place that knows private names of the Rerun SDK, and the calls that need the SDK in the parent.

| private name | why | without it |
|---|---|---|
| `rerun_bindings.log_arrow_msg` and the other entries in `_ENTRIES` | replaced in workers: they count what a task
  logs and wait in Python, with no lock held, while the outbox is full | every task is flushed; a slow sink makes the
  outbox grow |
| `rerun_bindings.new_recording` | `rr.init` in a task makes the worker's own recording current | its rows are lost |
| `rerun_bindings.send_recording_name`, `send_recording_start_time_nanos` | the name and start of the recording are the
  parent's; a worker's become properties of its own | the last worker's win |
| `rerun_bindings.flush_and_cleanup_orphaned_recordings` | `rr.init` calls it, and it raises in a forked process |
  `rr.init` raises in workers of `start_method='fork'` |
| `rerun_bindings.set_global_data_recording` and its thread-local twin | 0.2 us, where the public function flushes the
  previous recording (97 us) | the public function |
| `rerun_bindings.get_recording_id`, `.binary_stream` | recordings that a task makes are known by the SDK's handle, long
  before there is a public object of them | their rows are lost where they have no sink |
| `rerun_bindings.save` and the others in `_SINK_CALLS` | a task that calls `rr.save` or `rr.disconnect` takes the
  worker's sink; it gets it back at the end of the task | the worker's rows are lost from then on |
| `LazyChunkStream._internal`, `UrdfTree._inner` | these send without passing an entry | such a task is flushed only
  where it logs in another way too |

`tests/test_sdk.py` fails when a release of the SDK moves one of them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpr import rrd
from mpr.manifest import CHUNK_ID, OFFSET, SIZE, Manifest, parse

if TYPE_CHECKING:
    import rerun as rr

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
    try:
        return sum(array.get_total_buffer_size() for array in components.values())
    except AttributeError:
        return _UNKNOWN_SIZE


def install_entries(entered: Callable[[int], None]) -> list[str]:
    """Make every logging entry of the SDK in this process call `entered(bytes)` first.

    Returns the names that this release of the SDK does not have.
    """
    import rerun_bindings

    missing = missing_entries()
    for name in _ENTRIES:
        if name not in missing:
            setattr(rerun_bindings, name, _wrapped(getattr(rerun_bindings, name), entered))
    for owner, attribute in _bypasses():
        setattr(owner, attribute, _watched(attribute, entered))
    return missing


def _wrapped(original: Callable[..., Any], entered: Callable[[int], None]) -> Callable[..., Any]:
    @functools.wraps(original)
    def entry(*args: Any, **kwargs: Any) -> Any:
        entered(_logged_bytes(kwargs.get("components")))
        return original(*args, **kwargs)

    return entry


def _bypasses() -> Iterable[tuple[type, str]]:
    from rerun.chunk import LazyChunkStream
    from rerun.urdf import UrdfTree

    return ((LazyChunkStream, "_internal"), (UrdfTree, "_inner"))


def _watched(attribute: str, entered: Callable[[int], None]) -> property:
    """An attribute that counts as an entry whenever it is read: whoever reads it may be about to send."""

    def get(self: Any) -> Any:
        entered(_UNKNOWN_SIZE)
        return self.__dict__[attribute]

    def put(self: Any, value: Any) -> None:
        self.__dict__[attribute] = value

    return property(get, put)


def divert_new_recordings(
    stream: rr.RecordingStream, noted: Callable[[str | None, str | None], None], made: Callable[[Any], None]
) -> None:
    """Let `rr.init` in this process make `stream` current instead of a new recording without a sink.

    `noted(application_id, recording_id)` hears of each. Recordings that are not made the default stay the user's;
    `made(handle)` hears of them.
    """
    import rerun_bindings

    original = rerun_bindings.new_recording

    @functools.wraps(original)
    def new_recording(*args: Any, **kwargs: Any) -> Any:
        if not kwargs.get("make_default"):
            inner = original(*args, **kwargs)
            made(inner)
            return inner
        noted(kwargs.get("application_id"), kwargs.get("recording_id"))
        make_current(stream)
        return stream.inner

    rerun_bindings.new_recording = new_recording
    clean_up = rerun_bindings.flush_and_cleanup_orphaned_recordings

    @functools.wraps(clean_up)
    def flush_and_cleanup_orphaned_recordings() -> None:
        # `rr.init` calls this first, and in a forked process it fails on the recordings of the parent.
        with contextlib.suppress(RuntimeError):
            clean_up()

    rerun_bindings.flush_and_cleanup_orphaned_recordings = flush_and_cleanup_orphaned_recordings


# What a recording is called and when it began: the call, and the argument of `rr.archetypes.RecordingInfo`.
_RECORDING_INFO = {"send_recording_name": "name", "send_recording_start_time_nanos": "start_time"}


def divert_recording_info(stream: rr.RecordingStream, name: str, noted: Callable[[str], None]) -> None:
    """Keep what this process says of the recording as such under the property `name`: it is one of many writers.

    `noted(call)` hears of each. Other recordings are the user's.
    """
    import rerun_bindings

    own = rerun_bindings.get_recording_id(stream.inner)

    def diverted(call: str, field: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def send(value: Any, recording: Any = None) -> None:
            if rerun_bindings.get_recording_id(recording) != own:
                original(value, recording=recording)
                return
            import rerun as rr

            noted(call)
            stream.send_property(name, rr.archetypes.RecordingInfo(**{field: value}))

        return send

    for call, field in _RECORDING_INFO.items():
        original = getattr(rerun_bindings, call, None)
        if original is not None:
            setattr(rerun_bindings, call, diverted(call, field, original))


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
)


def watch_sinks(
    stream: rr.RecordingStream, changed: Callable[[str], None], changes: Callable[[str, str | None], None]
) -> None:
    """Call `changed(name)` after each call in this process that may have taken the sink of `stream` away.

    `changes(name, recording_id)` is called before each such call for another recording. A recording is known by its id:
    the SDK makes a new object for it each time that it is asked.
    """
    import rerun_bindings

    own = rerun_bindings.get_recording_id(stream.inner)

    def watched(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            found = rerun_bindings.get_recording_id(kwargs.get("recording"))
            if found != own:
                changes(name, found)
            try:
                return original(*args, **kwargs)
            finally:
                if name == "shutdown" or found == own:
                    changed(name)

        return call

    for name in _SINK_CALLS:
        original = getattr(rerun_bindings, name, None)
        if original is not None:
            setattr(rerun_bindings, name, watched(name, original))


def recording_id_of(inner: Any) -> str | None:
    """The id of a recording, by the SDK's own handle of it."""
    import rerun_bindings

    found: str | None = rerun_bindings.get_recording_id(inner)
    return found


def encoded_rows_of(inner: Any) -> Any:
    """Where the SDK puts the encoded rows of a recording from now on, those that it has kept first."""
    import rerun_bindings

    return rerun_bindings.binary_stream(recording=inner)


def clean_up_recordings() -> None:
    """Let the SDK end the threads of recordings that nobody holds. There is no current recording afterwards."""
    import rerun_bindings

    rerun_bindings.flush_and_cleanup_orphaned_recordings()


def make_current(stream: rr.RecordingStream) -> None:
    """Make `stream` the recording that plain `rr.log` uses, in every thread that has none of its own."""
    try:
        import rerun_bindings

        rerun_bindings.set_thread_local_data_recording(None)
        rerun_bindings.set_global_data_recording(stream.inner)
    except (AttributeError, ImportError, TypeError):
        import rerun as rr

        rr.set_thread_local_data_recording(None)
        rr.set_global_data_recording(stream)


def forbid_preloaded_servers() -> None:
    """Let what hangs in a child of a fork server that preloaded `rerun` raise instead.

    The threads of the SDK's async runtime do not survive the fork: `CatalogClient` and `Server` never answer.
    """
    import rerun as rr

    def refuse(self: object, *_args: object, **_kwargs: object) -> None:
        raise RuntimeError(
            f"{type(self).__name__} does not work in a worker whose fork server preloaded the Rerun SDK (it would "
            "hang): use mpr.Pool(..., preload=False)"
        )

    rr.catalog.CatalogClient.__init__ = refuse  # type: ignore[method-assign]  # replaced on purpose
    rr.server.Server.__init__ = refuse  # type: ignore[method-assign]  # replaced on purpose


# --- the SDK's own reader and writer, in the parent ---------------------------------------------------------------


def new_stream(application_id: str, recording_id: str, *, send_properties: bool) -> rr.RecordingStream:
    import rerun as rr

    return rr.RecordingStream(application_id, recording_id=recording_id, send_properties=send_properties)


def chunks_of(data: bytes, *, blueprints: bool = True) -> Iterator[Any]:
    """The chunks of every store in `data`, the bytes of a stream with or without a footer."""
    import rerun as rr

    with _ReadableFile(data) as path:
        with warnings.catch_warnings():
            # A stream without a footer is what we mean to read.
            warnings.simplefilter("ignore", rr.error_utils.RerunWarning)
            reader = rr.chunk.RrdReader(path)
        for entry in [*reader.recordings(), *(reader.blueprints() if blueprints else ())]:
            yield from reader.stream(store=entry)


class _ReadableFile:
    """`data` under a path that the SDK's reader can open, without touching a disk where the system allows that."""

    def __init__(self, data: bytes) -> None:
        import tempfile

        if sys.platform == "linux":
            self._fd = os.memfd_create("mpr-reader", os.MFD_CLOEXEC)
            self._path = f"/proc/self/fd/{self._fd}"
            self._unlink = False
        else:
            self._fd, self._path = tempfile.mkstemp(suffix=".rrd")
            self._unlink = True
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def __enter__(self) -> str:
        return self._path

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        if self._unlink:
            os.unlink(self._path)


@functools.cache
def _scratch(pid: int) -> tuple[rr.RecordingStream, rr.BinaryStream, threading.Lock, bytes]:
    """The one stream of process `pid` with which mpr lets the SDK encode; each costs two threads for ever.

    With its store info (the payload of that frame), which the SDK writes once, before all else.
    """
    import rerun as rr

    stream = new_stream("mpr", "mpr", send_properties=False)
    storage = rr.binary_stream(stream)
    data = storage.read(flush=True) or b""
    frames: list[rrd.Frame] = []
    # What an unknown format means is for `format_is_known` to say.
    with contextlib.suppress(rrd.FormatError):
        frames, _ = rrd.scan(lambda at, size: data[at : at + size], rrd.HEADER_SIZE, len(data))
    infos = (data[frame.payload : frame.end] for frame in frames if frame.kind == rrd.SET_STORE_INFO)
    return stream, storage, threading.Lock(), next(infos, b"")


def store_info() -> bytes:
    """A store info, with a store id that is no recording's; empty where logging is switched off."""
    return _scratch(os.getpid())[3]


def encoded_by_sdk(write: Callable[[rr.RecordingStream], None]) -> bytes:
    """The stream (header to footer, no store info) that the SDK makes of what `write` logs; empty for nothing."""
    stream, storage, lock, _ = _scratch(os.getpid())
    with lock:
        stream.reset_time()
        write(stream)
        return storage.read(flush=True) or b""


def encoded_blueprint(application_id: str, blueprint: Any) -> bytes:
    """`blueprint` (as `rr.send_blueprint` takes it) as a whole stream that makes it active and the default."""
    import rerun.blueprint as rrb

    if not isinstance(blueprint, rrb.Blueprint):
        blueprint = rrb.Blueprint(blueprint)
    with _ReadableFile(b"") as path:
        blueprint.save(application_id, path)
        return Path(path).read_bytes()


def viewer_executable() -> str | None:
    """The native viewer: the program in the SDK's package, else one on the PATH; None where there is none.

    The script `rerun` in the SDK's package would be a process more, which leaves the viewer behind when it is killed.
    """
    import importlib.util
    import shutil

    package = importlib.util.find_spec("rerun_cli")
    if package is not None and package.origin is not None:
        program = Path(package.origin).with_name("rerun")
        if program.is_file():
            return str(program)
    return shutil.which("rerun")


def prologue(start_time_nanos: int) -> bytes:
    """A stream with the properties of a recording that began at `start_time_nanos` (since the Unix epoch).

    Its store id is not the recording's yet.
    """
    return encoded_by_sdk(lambda stream: stream.send_recording_start_time_nanos(start_time_nanos))


def warnings_by_sdk(entity_path: str, texts: Iterable[str]) -> bytes:
    """A stream with `texts` as log entries of level WARN, at the present time. Its store id is no recording's."""
    import rerun as rr

    def write(stream: rr.RecordingStream) -> None:
        for text in texts:
            stream.log(entity_path, rr.TextLog(text, level=rr.TextLogLevel.WARN))

    return encoded_by_sdk(write)


def manifest_by_sdk(data: bytes) -> Manifest:
    """The manifest that the SDK itself writes for the chunks in `data` (header, store infos, messages of one store).

    Its store id is not theirs, and its offsets are those of the SDK's own encoding; the chunk ids are those of `data`.
    """
    import rerun as rr

    encoded = encoded_by_sdk(lambda stream: rr.send_chunks(chunks_of(data), recording=stream))
    frames, _ = rrd.scan(lambda at, size: encoded[at : at + size], rrd.HEADER_SIZE, len(encoded))
    if not frames:
        raise rrd.FormatError("the SDK finds no chunk in a stream that has some")
    end = frames[-1]
    return parse(encoded[end.payload : end.end])[0]


def refusal(path: Path) -> str | None:
    """What the SDK's reader has against the manifest of the file at `path`; None where it opens it."""
    import rerun as rr

    try:
        with warnings.catch_warnings():
            # A missing footer is told by what we return.
            warnings.simplefilter("ignore", rr.error_utils.RerunWarning)
            reader = rr.chunk.RrdReader(path)
        for entry in reader.recordings():
            reader.store(store=entry)
    except Exception as error:  # noqa: BLE001  # whatever the SDK raises for a file that it does not like
        return str(error)
    return None


@functools.cache
def format_is_known() -> str | None:
    """Whether re-framing understands what the installed SDK writes: None, or why not.

    Lets the SDK encode two chunks and looks for everything that `rrd.py` and `manifest.py` rely on.
    """
    import rerun as rr

    def write(stream: rr.RecordingStream) -> None:
        stream.set_time("probe", sequence=1)
        stream.log("probe", rr.TextLog("probe"))
        stream.log("probe/static", rr.TextLog("probe"), static=True)

    data = encoded_by_sdk(write)
    if not data:
        # RERUN=off: nothing will be logged, so there is nothing to understand.
        return None
    try:
        rrd.check_header(data[: rrd.HEADER_SIZE])
        frames, _ = rrd.scan(lambda at, size: data[at : at + size], rrd.HEADER_SIZE, len(data))
        end = frames[-1]
        footer = data[end.payload : end.end]
        if end.kind != rrd.END or data[end.start :] != rrd.closing(end.start, [rrd.field(footer, 1)]):
            return "its streams do not end as known"
        chunks = [frame for frame in frames if frame.kind == rrd.ARROW_MSG]
        places = {rrd.chunk_id(data[each.payload : each.end]): (each.payload, each.size) for each in chunks}
        (found,) = parse(footer)
        columns = [found.table[name].to_pylist() for name in (CHUNK_ID, OFFSET, SIZE)]
        if {each: (at, size) for each, at, size in zip(*columns, strict=True)} != places:
            return "its manifests do not say where the chunks are"
    except (rrd.FormatError, KeyError, IndexError, ValueError) as error:
        return str(error)
    return None
