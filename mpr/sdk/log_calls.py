"""Wraps the SDK's calls that hand data to a recording. The wrappers count rows, and put prefixes before entity paths.

An entry is a function of the SDK's native module (`rerun_bindings`) through which data reaches a recording. A handle is
the SDK's object that stands for one recording. A chunk is a table with rows of one entity. The outbox is a file in
memory with the rows of a process that the parent has not yet taken.

Covers: all entries.
Does not cover: the use of the counts (`producer/router.py`), and calls that change a sink (`sink_calls.py`).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

from mpr.sdk import internal, private_names, recordings


class Prefix(NamedTuple):
    """A path that mpr puts before the entity paths of a task's rows, if they go to the recording with the ids `ids`."""

    path: str
    ids: recordings.Ids


Entered: TypeAlias = Callable[[int, int, Any], Prefix | None]
Logged: TypeAlias = Callable[[int, Any], None]
Current: TypeAlias = Callable[[], Any]

_ROW_ENTRIES = ("log_arrow_msg", "send_arrow_chunk")
_FILE_ENTRIES = ("log_file_from_path", "log_file_from_contents")
_PATHLESS_ENTRIES = ("send_recording_name", "send_recording_start_time_nanos", "send_blueprint")

# The size in bytes that mpr assumes for a call if its arguments do not show the size.
_UNKNOWN_SIZE = 64 * 1024


def install_entries(entered: Entered, logged: Logged, current: Current) -> list[str]:
    """Make each entry of the SDK in this process call `entered` before it logs, and `logged` afterwards.

    Returns the names of entries that this SDK release does not have. An entry that takes chunks calls `entered` and
    `logged` for each chunk, so that `entered` can wait between two chunks. If mpr itself calls such an entry, or if the
    SDK lacks `send_chunks`, the entry calls `entered` once, and does not call `logged`.

    Parameters
    ----------
    entered:
        Called as `entered(bytes, rows, recording)`. `bytes` is the size of the data; 64 KiB if the size is not known.
        `rows` is 0 if the number is not known. `recording` is a handle, or None for the current recording. If `entered`
        returns a `Prefix` for this recording, the entry puts this prefix before the entity paths.
    logged:
        Called as `logged(rows, recording)` if the SDK has taken rows whose number is known.
    current:
        Returns the handle that mpr has noted for the current recording of this thread; None if mpr has noted none.
    """
    hooks = _Hooks(entered, logged, current, recordings.ids_function())
    wrappers: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
        name: functools.partial(_wrapped, name, hooks) for name in (*_ROW_ENTRIES, *_FILE_ENTRIES, *_PATHLESS_ENTRIES)
    }
    if _is_plain_log(private_names.find("log_arrow_msg")):
        wrappers["log_arrow_msg"] = functools.partial(_wrapped_log, hooks)
    wrappers |= {name: functools.partial(_wrapped_chunks, name, hooks) for name in _CHUNKS_OF}
    return [name for name, wrapper in wrappers.items() if not private_names.wrap(name, wrapper)]


class _Hooks(NamedTuple):
    """Holds the functions that a wrapper of an entry calls.

    `entered`, `logged` and `current` are arguments of `install_entries`. `ids_of` returns the ids of the recording with
    a handle.
    """

    entered: Entered
    logged: Logged
    current: Current
    ids_of: Callable[[Any], recordings.Ids | None]

    def enter(self, size: int, rows: int, recording: Any) -> str | None:
        """Call `entered`, and return the path to put before the entity paths; None if these paths stay as they are.

        `size` is the number of bytes, `rows` is the number of rows, and `recording` is a handle or None.
        """
        prefix = self.entered(size, rows, recording)
        if prefix is not None and self.ids_of(recording) == prefix.ids:
            return prefix.path
        return None


# --- entries that take rows or files --------------------------------------------------------------------------------


def _logged_bytes(components: Any) -> int:
    """Return the size in bytes of the Arrow arrays in `components`, or 64 KiB if the size is not known."""
    size = 0
    try:
        # A loop is used, because it is faster than a generator, and each `rr.log` runs this code.
        for array in components.values():
            size += array.get_total_buffer_size()
    except AttributeError:
        return _UNKNOWN_SIZE
    return size


def _logged_rows(name: str, components: Any) -> int:
    """Return the number of rows that a call of the entry `name` with the argument `components` logs.

    Returns 0 if the number is not known, or if there are no components.
    """
    if not components:
        # The SDK drops a row without components, with a warning.
        return 0
    if name == "log_arrow_msg":
        return 1
    return len(next(iter(components.values()))) if name == "send_arrow_chunk" else 0


def _wrapped(name: str, hooks: _Hooks, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a wrapper of `original`, the entry `name`. It calls `entered` before, and `logged` afterwards.

    `logged` is called only if the number of rows is known. The wrapper accepts any arguments, because a release of the
    SDK may change the parameters of the entry.
    """

    @functools.wraps(original)
    def entry(*args: Any, **kwargs: Any) -> Any:
        components = kwargs.get("components")
        recording = kwargs.get("recording")
        rows = _logged_rows(name, components)
        prefix = hooks.enter(_logged_bytes(components), rows, recording)
        if prefix is not None:
            args, kwargs = _with_prefix(name, prefix, args, kwargs)
        result = original(*args, **kwargs)
        if rows:
            hooks.logged(rows, recording)
        return result

    return entry


def _with_prefix(name: str, prefix: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the arguments `args` and `kwargs` of the entry `name`, changed so that its entity paths get `prefix`.

    The arguments of an entry without entity paths are returned as they are.
    """
    if name in _ROW_ENTRIES:
        return (under(prefix, args[0]), *args[1:]), kwargs
    if name in _FILE_ENTRIES:
        own = kwargs.get("entity_path_prefix")
        return args, {**kwargs, "entity_path_prefix": prefix if own is None else under(prefix, own)}
    return args, kwargs


def _is_plain_log(original: Callable[..., Any] | None) -> bool:
    """Return True if `original` has exactly the parameters of the wrapper that `_wrapped_log` makes.

    `original` is `log_arrow_msg`, the entry that `rr.log` calls, or None if this release of the SDK does not have it.
    """
    with contextlib.suppress(ValueError, TypeError):
        return str(inspect.signature(original)) == "(entity_path, components, static_, recording=None)"  # type: ignore[arg-type]  # None raises TypeError
    return False


def _wrapped_log(hooks: _Hooks, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a faster wrapper of `original`, which is `log_arrow_msg`, the entry that `rr.log` calls.

    Use this instead of `_wrapped` if `_is_plain_log` returns True. This wrapper names the parameters instead of
    accepting any arguments, which saves 0.5 us for each `rr.log`.
    """
    entered, logged, _, ids_of = hooks

    @functools.wraps(original)
    def entry(entity_path: str, components: Any, static_: bool, recording: Any = None) -> Any:
        size = 0
        try:
            # This repeats the loop of `_logged_bytes`, because a call of that function would slow each `rr.log` down.
            for array in components.values():
                size += array.get_total_buffer_size()
        except AttributeError:
            size = _UNKNOWN_SIZE
        prefix = entered(size, 1, recording)
        if prefix is not None and ids_of(recording) == prefix.ids:
            entity_path = under(prefix.path, entity_path)
        result = original(entity_path, components, static_, recording)
        if components:
            # Without components, the SDK has dropped the row, with a warning.
            logged(1, recording)
        return result

    return entry


# --- entries that take chunks ---------------------------------------------------------------------------------------


def _chunks_given(given: Any) -> Iterable[Any]:
    """Return the chunks in `given`, the first argument of `send_chunks`: one chunk or an iterable of chunks."""
    return [given] if hasattr(given, "with_entity_path") else given


#: For each entry that takes chunks, a function that returns the chunks of its first argument.
_CHUNKS_OF: dict[str, Callable[[Any], Iterable[Any]]] = {
    "send_chunks": _chunks_given,
    "LazyChunkStreamInternal.send_to_recording": iter,
    "_UrdfTreeInternal.log": lambda tree: tree.stream(),
}


def _wrapped_chunks(name: str, hooks: _Hooks, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a wrapper of `original`, the entry `name`, which takes chunks.

    The wrapper sends the chunks one by one, and calls the functions in `hooks` for each, so that the entry can wait
    between two chunks. If mpr itself calls the entry, or if the SDK lacks `send_chunks`, the wrapper sends all chunks
    at once, and does not call `logged`.
    """
    chunks_of = _CHUNKS_OF[name]
    # For `send_chunks`, `original` may be a wrapper of the pytest plugin (`copies.py`), which must be called, too.
    send = original if name == "send_chunks" else private_names.original("send_chunks")

    @functools.wraps(original)
    def entry(given: Any, recording: Any = None) -> Any:
        if internal.thread.is_internal or send is None:
            hooks.enter(_UNKNOWN_SIZE, 0, recording)
            return original(given, recording)
        target = recording
        if recording is None:
            # The current recording is looked up now, because the code that makes the chunks may change it. The SDK
            # returns a new object for each call, so the hooks get the object that mpr has noted, if it is the same.
            target, ids = recordings.current_recording()
            recording = hooks.current()
            if recording is None or hooks.ids_of(recording) != ids:
                recording = target
        for chunk in chunks_of(given):
            rows = chunk.num_rows
            prefix = hooks.enter(chunk.to_record_batch().nbytes, rows, recording)
            sent = chunk if prefix is None else chunk.with_entity_path(under(prefix, chunk.entity_path))
            send(sent, recording=target)
            hooks.logged(rows, recording)
        return None

    return entry


def under(prefix: str, path: str) -> str:
    """Return the entity path `path` with `prefix` before it.

    Paths of recording properties and of mpr itself get no prefix. A slash at the beginning of `path` is dropped.
    """
    path = path.removeprefix("/")
    # Viewers look for the rows at these paths, so the paths are fixed.
    return path if path.partition("/")[0] in ("__properties", "mpr") else f"{prefix}/{path}"
