"""Lists the private names of the Rerun SDK that mpr uses, and looks them up.

A private name is a function of `rerun_bindings`, the native module of the SDK, or a method of one of its classes. A
release of the SDK may rename or remove private names. So the other modules of mpr get them from this module. If a
release lacks a name, mpr still runs, with the loss that the list names (`Private.without`).

In the list, a handle is the object of the native module that stands for one recording. The outbox is a file in memory
with the rows of a process that the parent has not yet taken. A task is flushed if mpr waits at the end of the task
until the SDK has encoded the rows.

Covers: the list, finding and wrapping a function of the list, and the tested releases of the SDK.
Does not cover: the wrappers (`log_calls.py`, `sink_calls.py` and others).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mpr.user_code import log as _log


class Private(NamedTuple):
    """Says why mpr uses a private name (`use`), and what happens if a release of the SDK lacks it (`without`)."""

    use: str
    without: str


#: The first release of the SDK that mpr works with, and the first later release that mpr was not tested with.
TESTED_FROM, TESTED_BELOW = (0, 39), (0, 42)

_ENTRY = Private(
    "in workers, a wrapper counts what a task logs, and waits while the outbox is full. It waits in Python, where it "
    "holds no lock",
    "every task is flushed; these calls do not wait for a slow sink, and get no entity path prefix",
)
_TIME = Private(
    "the SDK has no function that returns the times of a thread. So mpr notes each time that is set, to restore the "
    "times of a task's caller",
    "times that a decorated function sets stay on the rows of its caller",
)
_SETTING = Private(
    "mpr notes which settings a task changes, to restore them behind the task",
    "such a setting of a task holds for the next tasks of its worker",
)
_SINK = Private(
    "a task that calls it takes the sink of the worker away. The worker gets the sink back at the end of the task. "
    "Under 'mpr run' the call is skipped",
    "what a worker logs after this call, also in later tasks, is not in the recording",
)
_PLUGIN = Private(
    "the pytest plugin writes its own rows with it, because a test may replace the public function",
    "the pytest plugin records no tests",
)
_CURRENT = Private(
    "a call takes 0.2 us. The public function takes 97 us, because it flushes the previous recording",
    "the public function is called",
)
_WATCHED_CURRENT = Private(
    f"{_CURRENT.use}. The calls are also watched, so that a worker resets the current recording only if a task has "
    "changed it",
    "the public function is called before every task, and mpr counts no rows after a task has changed the recording",
)
_HANDLE = Private(
    "a recording that a task makes has a handle long before there is a public object for it",
    "the public function is called with an object that has only this handle",
)

#: The list. A dot separates a class of the native module from its method.
NAMES: dict[str, Private] = {
    "log_arrow_msg": _ENTRY,
    "send_arrow_chunk": _ENTRY,
    "send_chunks": _ENTRY,
    "LazyChunkStreamInternal.send_to_recording": _ENTRY,
    "_UrdfTreeInternal.log": _ENTRY,
    "log_file_from_path": _ENTRY,
    "log_file_from_contents": _ENTRY,
    "send_blueprint": _ENTRY,
    "send_recording_name": Private(
        f"{_ENTRY.use}. The name that a worker sets becomes a property of the worker",
        "every task is flushed; the name that the last worker sets wins",
    ),
    "send_recording_start_time_nanos": Private(
        f"{_ENTRY.use}. The start that a worker sets becomes a property of the worker",
        "every task is flushed; the start that the last worker sets wins",
    ),
    "new_recording": Private(
        "a wrapper lets 'rr.init' in a task make the worker's own recording current, and notes recordings of tasks",
        "the rows that a task logs after 'rr.init', or to a recording of its own without a sink, are lost",
    ),
    "flush_and_cleanup_orphaned_recordings": Private(
        "'rr.init' calls it. It raises in a forked process, because the process still has its parent's recordings",
        "'rr.init' raises in workers of start_method='fork'; the threads of ended recordings stay",
    ),
    "get_recording_id": _HANDLE,
    "get_application_id": _HANDLE,
    "binary_stream": Private(f"{_HANDLE.use}. {_SINK.use}", f"{_HANDLE.without}; {_SINK.without}"),
    "disconnect": _SINK,
    "get_data_recording": _CURRENT,
    "get_global_data_recording": _CURRENT,
    "get_thread_local_data_recording": _CURRENT,
    "set_global_data_recording": _WATCHED_CURRENT,
    "set_thread_local_data_recording": _WATCHED_CURRENT,
    "set_time_sequence": _TIME,
    "set_time_duration_nanos": _TIME,
    "set_time_timestamp_nanos_since_epoch": _TIME,
    "disable_timeline": _TIME,
    "reset_time": _TIME,
    "set_log_time_enabled": _SETTING,
    "set_log_tick_enabled": _SETTING,
    "finalize_deferred_sinks": Private(
        "the SDK calls it at the end of a 'with stream:' block. There, it would finish the sink that leads to mpr",
        "rows that a task logs after such a block of the shared recording's stream are lost, and the pool fails",
    ),
    "flush": _PLUGIN,
    "is_enabled": Private(
        "in a recorded test, the SDK's calls that change a sink get the answer that they get without the plugin",
        "such a call in a recorded test without 'rr.init' does nothing, but without the SDK's warning",
    ),
    "escape_entity_path_part": _PLUGIN,
    "new_property_entity_path": _PLUGIN,
    "save": _SINK,
    "set_sinks": _SINK,
    "connect_grpc": _SINK,
    "serve_grpc": _SINK,
    "stdout": _SINK,
    "memory_recording": _SINK,
    "set_callback_sink": _SINK,
    "shutdown": _SINK,
    "spawn": Private("under 'mpr run' the call is skipped", "a viewer opens, and stays empty under 'mpr run'"),
    "serve_web_viewer": Private("under 'mpr run' the call is skipped", "a page opens, and stays empty under 'mpr run'"),
}


def _owner(name: str) -> tuple[Any, str]:
    """Return the module or class that has the private name `name`, and the name of the attribute in it.

    The returned class is None if the SDK does not have this class. Raises `KeyError` if `name` is not in `NAMES`.
    """
    import rerun_bindings

    if name not in NAMES:
        raise KeyError(f"{name} is not in the list of private names")
    of_class, dot, attribute = name.rpartition(".")
    return (getattr(rerun_bindings, of_class, None) if dot else rerun_bindings), attribute


def find(name: str) -> Any:
    """Return the function that now has the private name `name`. It may be a wrapper.

    Returns None if the SDK has no such function. Raises `KeyError` if `name` is not in `NAMES`.
    """
    owner, attribute = _owner(name)
    return getattr(owner, attribute, None)


@functools.cache
def original(name: str) -> Any:
    """Return the SDK's own function with the private name `name`, without the wrappers that `functools.wraps` has made.

    Returns None if the SDK has no such function. The function is looked up in the first call, and kept.
    """
    found = find(name)
    return None if found is None else inspect.unwrap(found)


def wrap(name: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> bool:
    """Replace the function with the private name `name` by `wrapper(function)`.

    Returns False, and changes nothing, if the SDK has no such function, else True.
    """
    found = find(name)
    if found is not None:
        owner, attribute = _owner(name)
        setattr(owner, attribute, wrapper(found))
    return found is not None


def functions() -> dict[str, Any]:
    """Return the present functions of the list, or mpr's wrappers of them, by their private names.

    Names that the SDK lacks are left out.
    """
    return {name: found for name in NAMES if (found := find(name)) is not None}


def put_back(functions: Mapping[str, Any]) -> None:
    """Set each private name that is a key of `functions` to its value, a function that had this name before."""
    for name, function in functions.items():
        owner, attribute = _owner(name)
        setattr(owner, attribute, function)


def missing() -> list[str]:
    """Return the private names that the installed SDK does not have."""
    return [name for name in NAMES if find(name) is None]


def untested_version() -> str | None:
    """Return the version of the installed SDK if mpr was not tested with it, else None."""
    import rerun

    version: str = rerun.__version__
    first = tuple(int(part) if part.isdigit() else 0 for part in version.split(".")[:2])
    return None if TESTED_FROM <= first < TESTED_BELOW else version


def tested_versions() -> str:
    """Return the releases that mpr was tested with, as a text such as "0.39 to 0.41"."""
    return f"{TESTED_FROM[0]}.{TESTED_FROM[1]} to {TESTED_BELOW[0]}.{TESTED_BELOW[1] - 1}"


@functools.cache
def warn_once() -> None:
    """Log a warning if mpr was not tested with the installed SDK, and another one if the SDK lacks private names.

    A second call in the same process does nothing.
    """
    version, gone = untested_version(), missing()
    if version is not None:
        _log.warning(
            "mpr was tested with rerun-sdk %s, and this is %s: 'mpr doctor' says what differs",
            tested_versions(),
            version,
        )
    if gone:
        _log.warning(
            "this rerun-sdk lacks functions that mpr uses (%s): 'mpr doctor' says what follows", ", ".join(gone)
        )
