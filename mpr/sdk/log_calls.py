"""Wraps the logging calls of the SDK, to count what a task logs and to put the task's prefix before entity paths."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class Prefix(NamedTuple):
    """A path that mpr puts before all entity paths that a task logs to one recording."""

    path: str
    recording_id: str


# The SDK's functions that hand data to a recording. They are called entries here.
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

# The size in bytes that mpr assumes for a call if its arguments do not show the size.
_UNKNOWN_SIZE = 64 * 1024


def missing_entries() -> list[str]:
    """Return the names of entries that the installed SDK does not have."""
    import rerun_bindings

    return [name for name in _ENTRIES if not hasattr(rerun_bindings, name)]


def _logged_bytes(components: Any) -> int:
    """Return the size in bytes of the Arrow arrays in `components`, or `_UNKNOWN_SIZE` if there are no such arrays."""
    size = 0
    try:
        # A loop is used, because it is faster than a generator, and each `rr.log` runs this code.
        for array in components.values():
            size += array.get_total_buffer_size()
    except AttributeError:
        return _UNKNOWN_SIZE
    return size


def _logged_rows(name: str, components: Any) -> int:
    """Return how many rows a call of entry `name` logs; 0 if the arguments do not show the number."""
    if not components:
        # The SDK drops a row without components, with a warning.
        return 0
    if name == "log_arrow_msg":
        return 1
    return len(next(iter(components.values()))) if name == "send_arrow_chunk" else 0


def install_entries(entered: Callable[[int, int, Any], Prefix | None], logged: Callable[[int, Any], None]) -> list[str]:
    """Make each entry of the SDK in this process call `entered` before it logs, and `logged` afterwards.

    The calls are `entered(bytes, rows, recording)` and `logged(rows, recording)`. `logged` is called only if the SDK
    has taken rows, and only if their number is known. `recording` is the SDK's handle of a recording, or None for the
    current one. If `entered` returns a prefix, the entry puts this prefix before the entity paths.

    The classes of `_bypasses` call `entered` too. Returns the names of entries that this SDK release does not have.
    """
    import rerun_bindings

    missing = missing_entries()
    for name in _ENTRIES:
        if name not in missing:
            original = getattr(rerun_bindings, name)
            wrap = _wrapped_log if _is_plain_log(original) else functools.partial(_wrapped, name)
            setattr(rerun_bindings, name, wrap(original, entered, logged))
    for owner, attribute in _bypasses():
        setattr(owner, attribute, _watched(attribute, entered))
    return missing


def _wrapped(
    name: str,
    original: Callable[..., Any],
    entered: Callable[[int, int, Any], Prefix | None],
    logged: Callable[[int, Any], None],
) -> Callable[..., Any]:
    """Return a wrapper of the entry `name` that calls `entered` before and `logged` after `original`.

    The entry may have any parameters.
    """
    import rerun_bindings

    @functools.wraps(original)
    def entry(*args: Any, **kwargs: Any) -> Any:
        components = kwargs.get("components")
        recording = kwargs.get("recording")
        rows = _logged_rows(name, components)
        prefix = entered(_logged_bytes(components), rows, recording)
        if prefix is not None and rerun_bindings.get_recording_id(recording) == prefix.recording_id:
            args, kwargs = with_prefix(name, prefix.path, args, kwargs)
        result = original(*args, **kwargs)
        if rows:
            logged(rows, recording)
        return result

    return entry


def _is_plain_log(original: Callable[..., Any]) -> bool:
    """Return whether `original` is `log_arrow_msg`, the entry that `rr.log` calls, with the expected parameters.

    The parameters must be those of the wrapper that `_wrapped_log` makes.
    """
    with contextlib.suppress(ValueError):
        return str(inspect.signature(original)) == "(entity_path, components, static_, recording=None)"
    return False


def _wrapped_log(
    original: Callable[..., Any],
    entered: Callable[[int, int, Any], Prefix | None],
    logged: Callable[[int, Any], None],
) -> Callable[..., Any]:
    """Return a faster wrapper of `log_arrow_msg`, the entry that `rr.log` calls.

    The wrapper calls `entered` before and `logged` after `original`, as the wrappers that `_wrapped` makes.
    `_wrapped` takes any arguments. Packing and unpacking them costs 0.5 us for each `rr.log`. This wrapper costs less,
    because it names the parameters of `log_arrow_msg`. So this wrapper works only if `log_arrow_msg` has exactly these
    parameters.
    """
    import rerun_bindings

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
        if prefix is not None and rerun_bindings.get_recording_id(recording) == prefix.recording_id:
            entity_path = under(prefix.path, entity_path)
        result = original(entity_path, components, static_, recording)
        if components:
            # Without components, the SDK has dropped the row, with a warning.
            logged(1, recording)
        return result

    return entry


def _bypasses() -> Iterable[tuple[type, str]]:
    """Return the SDK's classes that send data without an entry, each with the attribute by which it sends."""
    from rerun.chunk import LazyChunkStream
    from rerun.urdf import UrdfTree

    return ((LazyChunkStream, "_internal"), (UrdfTree, "_inner"))


def _watched(attribute: str, entered: Callable[[int, int, Any], object]) -> property:
    """Return a property for `attribute` that calls `entered` each time when code reads the attribute.

    The reason is that code which reads this attribute may then send data.
    """

    def get(self: Any) -> Any:
        entered(_UNKNOWN_SIZE, 0, None)
        return self.__dict__[attribute]

    def put(self: Any, value: Any) -> None:
        self.__dict__[attribute] = value

    return property(get, put)


def with_prefix(name: str, prefix: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the arguments of the entry `name`, with `prefix` before every entity path in them."""
    if name in ("log_arrow_msg", "send_arrow_chunk"):
        return (under(prefix, args[0]), *args[1:]), kwargs
    if name in ("log_file_from_path", "log_file_from_contents"):
        own = kwargs.get("entity_path_prefix")
        return args, {**kwargs, "entity_path_prefix": prefix if own is None else under(prefix, own)}
    if name == "send_chunks":
        chunks = [args[0]] if hasattr(args[0], "with_entity_path") else args[0]
        return ((each.with_entity_path(under(prefix, each.entity_path)) for each in chunks), *args[1:]), kwargs
    return args, kwargs


def under(prefix: str, path: str) -> str:
    """Return `path` with `prefix` before it. Paths of properties and of mpr itself get no prefix."""
    path = path.removeprefix("/")
    # Paths of properties and of mpr get no prefix, because viewers look for these rows at fixed paths.
    return path if path.partition("/")[0] in ("__properties", "mpr") else f"{prefix}/{path}"
