"""Watches the settings of the SDK that outlive a task, and sets them back to the values from before the task.

In strict mode, a call of the SDK raises its errors instead of logging them.

| setting | belongs to | a task sets it by |
|---|---|---|
| strict mode | the process | `rr.set_strict_mode`, `rr.init(strict=...)`, `rr.script_setup` |
| the timelines `log_time` and `log_tick` | a recording | `rr.set_log_time_enabled`, `rr.set_log_tick_enabled` |
| strict mode of one call | a thread | `rr.log(..., strict=...)` and the like |
| the stream of a `with stream:` that was not left | a thread | `stream.__enter__()` |

The SDK itself sets back the strict mode of one call at the end of the call, but not if the same function was called
again within this call.

Covers: the settings in the table.
Does not cover: times (`times.py`), current recordings (`recordings.py`) and sinks (`sink_calls.py`).
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

from mpr.sdk import private_names, recordings

# The SDK's functions that switch a timeline of a recording on or off. Each has the variable with the default, and the
# default without the variable.
_LOG_TIMELINES = {
    "set_log_time_enabled": ("RERUN_LOG_TIME", True),
    "set_log_tick_enabled": ("RERUN_LOG_TICK", False),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """Describes a setting of the SDK, and says how to read and set it.

    `name` is the name of the setting, `read` returns its present value, and `put` sets its value. Two objects are equal
    if they have the same `name` and `recording`.
    """

    name: str
    #: The ids of the recording to which the setting belongs; None if it belongs to the process.
    recording: recordings.Ids | None
    read: Callable[[], bool] = field(compare=False)
    put: Callable[[bool], object] = field(compare=False)


# For each setting that tasks have changed: the tasks that have changed it, the last one at the end. Several tasks may
# run at the same time in several threads, and a task of a worker may call a decorated function, which is a task too.
_changed: dict[Setting, list[ChangedSettings]] = {}
os.register_at_fork(after_in_child=_changed.clear)


class ChangedSettings:
    """Holds the settings that one task has changed, so that they can be set back.

    A task that is a generator runs in several steps. Any other task is one step.
    """

    def __init__(self) -> None:
        # The settings that the task has changed, each with its value before this step.
        self._before: dict[Setting, bool] = {}
        #: The values that the task has set in earlier steps.
        self.own: dict[Setting, bool] = {}

    def has_changed(self) -> bool:
        """Return True if the task has changed a setting, in this step or in an earlier one."""
        return bool(self._before or self.own)

    def note(self, setting: Setting, before: bool) -> None:
        """Remember that the task changes `setting`, whose value was `before`.

        Only the first change of a setting in each step is remembered.
        """
        if setting not in self._before:
            self._before[setting] = before
            _changed.setdefault(setting, []).append(self)

    def redo(self) -> None:
        """Set the values from the task's earlier steps again. Call this when a step begins."""
        for setting, value in self.own.items():
            self.note(setting, setting.read())
            setting.put(value)

    def undo(self) -> None:
        """Set each changed setting back to the value from before this step, and keep the task's value for `redo`.

        Call this when a step has ended.

        If another running task has changed a setting after this task, this setting is set back only at the end of the
        step of the other task.
        """
        while self._before:
            setting, before = self._before.popitem()
            self.own[setting] = setting.read()
            tasks = _changed.get(setting, [])
            later: list[ChangedSettings] = []
            if self in tasks:
                later = tasks[tasks.index(self) + 1 :]
                tasks.remove(self)
            if later:
                later[0]._before[setting] = before
            else:
                setting.put(before)
            if not tasks:
                _changed.pop(setting, None)

    def keep(self) -> None:
        """Let all settings stay as they are now, so that `undo` and `redo` do not change them."""
        for setting in self._before:
            _changed.pop(setting, None)
        self._before.clear()
        self.own.clear()


def watch_settings(noted: Callable[[Setting, bool], None]) -> None:
    """Call `noted(setting, old value)` before a call of the SDK sets strict mode, `log_time` or `log_tick`.

    A function that this release of the SDK lacks, or has in another form, is not watched.
    """
    _watch_strict_mode(noted)
    _watch_log_timelines(noted)


def _watch_strict_mode(noted: Callable[[Setting, bool], None]) -> None:
    import rerun as rr

    watched: Any = rr.set_strict_mode
    # A test may have replaced the function by an object of another type.
    names = getattr(watched, "__globals__", {})
    if "_strict_mode" not in names or list(inspect.signature(watched).parameters) != ["mode"]:
        return
    original = FunctionType(watched.__code__, names)
    setting = Setting("strict mode", None, lambda: names["_strict_mode"], original)

    def set_strict_mode(mode: bool) -> None:
        noted(setting, setting.read())
        original(mode)

    # The code is exchanged, and not the function, because programs have imported the function by its name.
    names[_call_watched.__code__.co_names[0]] = set_strict_mode
    watched.__code__ = _call_watched.__code__


def _call_watched(mode: bool) -> None:
    _mpr_set_strict_mode(mode)  # type: ignore[name-defined]  # noqa: F821  # a name in `rerun.error_utils`


def _watch_log_timelines(noted: Callable[[Setting, bool], None]) -> None:
    # The SDK has no function that returns these values, so the last ones are noted.
    known: dict[tuple[str, recordings.Ids], bool] = {}
    # A forked process has a stream of its own for the recording, with the values of the environment.
    os.register_at_fork(after_in_child=known.clear)

    def watched(name: str, original: Callable[..., None], *, variable: str, default: bool) -> Callable[..., None]:
        @functools.wraps(original)
        def call(enabled: bool, recording: Any = None) -> None:
            handle = recording if recording is not None else recordings.current_recording()[0]
            ids = None if handle is None else recordings.ids_of(handle)
            if ids is None:
                return original(enabled, recording=recording)
            key = (name, ids)

            def put(value: bool) -> None:
                known[key] = value
                original(value, recording=handle)

            def read() -> bool:
                return known.get(key, _flag(variable, default))

            noted(Setting(name, ids, read, put), read())
            return put(enabled)

        return call

    for name, (variable, default) in _LOG_TIMELINES.items():
        private_names.wrap(name, functools.partial(watched, name, variable=variable, default=default))


def _flag(variable: str, default: bool) -> bool:
    """Return the environment variable `variable` as a bool, by the rules of the SDK.

    Returns `default` if the variable is not set, or has a text that the SDK does not know.
    """
    text = os.environ.get(variable, "").strip().lower()
    return text in ("1", "true", "yes", "on") or (default and text not in ("0", "false", "no", "off"))


def reset_thread() -> None:
    """Set back two settings of this thread: the strict mode of one call, and the stream of a `with stream:` block.

    A task may have left them changed. No call of the SDK may be running in this thread, because the call would lose its
    own strict mode.
    """
    strict_mode, stream = _thread_settings()
    if strict_mode is not None:
        strict_mode.strict_mode = None
    if stream is not None:
        stream.set(None)


@functools.cache
def _thread_settings() -> tuple[Any, Any]:
    """Return the two objects of the SDK that hold a thread's strict mode of one call, and its stream of a `with` block.

    An object that this release of the SDK lacks is None.
    """
    import rerun as rr
    from rerun import recording_stream

    strict_mode = getattr(rr.set_strict_mode, "__globals__", {}).get("_rerun_exception_ctx")
    return strict_mode, getattr(recording_stream, "active_recording_stream", None)


def strict_mode_of_environment() -> bool:
    """Return True if the environment variable `RERUN_STRICT` now says that a new process begins in strict mode."""
    return _flag("RERUN_STRICT", False)


def follow_environment(before: bool) -> None:
    """Set strict mode as the environment variable `RERUN_STRICT` says, unless the program has set strict mode itself.

    Call this after the environment variables have changed. `before` is the value that `strict_mode_of_environment`
    returned before. If strict mode now has another value, the program has set it.
    """
    import rerun as rr

    if rr.strict_mode() == before:
        rr.set_strict_mode(strict_mode_of_environment())
