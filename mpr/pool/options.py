"""Checks the arguments of `mpr.Pool`, and keeps them as one value.

Covers: the arguments about workers, tasks and telemetry, and the check that a given recording can be used.
Does not cover: the arguments of a new recording (`recording/options.py`).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpr.engines.options import EngineOptions
from mpr.errors import ConfigError
from mpr.limits import MIB
from mpr.processes import task_pickling
from mpr.processes.pickling import Portable
from mpr.processes.start import StartMethod, check_processes, check_start_method
from mpr.recording.options import RecordingOptions, Route, SinksLike, check_application_id, check_route
from mpr.recording.shared_recording import SharedRecording, runtime_of
from mpr.scheduler.state import PoolLimits
from mpr.telemetry.rows import TELEMETRY
from mpr.worker.capture import CaptureOptions

if TYPE_CHECKING:
    from rerun.blueprint import BlueprintLike


@dataclass(frozen=True, kw_only=True)
class PoolOptions:
    """The checked arguments of a pool. The class method `check` makes such an object.

    Attributes
    ----------
    size:
        The number of workers at a time.
    start_method:
        The way in which worker processes start: 'forkserver', 'spawn' or 'fork'.
    preload:
        True if a fork server imports the Rerun SDK before it forks.
    initializer:
        The user's initializer, the arguments for it, and `worker_exit`, in the form in which they are sent to each
        worker.
    limits:
        The limits of tasks and workers.
    capture:
        Says whether the output and the `logging` records of workers go into the recording.
    telemetry:
        The kinds of telemetry (rows about the pool) that are recorded: some of 'workers', 'tasks', 'resources' and
        'pool'.
    progress:
        True if the pool shows a progress bar.
    engine:
        The engine that runs the tasks; None if workers of mpr run them.
    """

    size: int
    start_method: StartMethod
    preload: bool
    initializer: Portable
    limits: PoolLimits
    capture: CaptureOptions
    telemetry: frozenset[str]
    progress: bool
    engine: EngineOptions | None

    @classmethod
    def check(
        cls,
        *,
        processes: object,
        initializer: Callable[..., object] | None,
        initargs: Iterable[Any],
        worker_exit: Callable[[], object] | None,
        maxtasksperchild: object,
        start_method: object,
        preload: bool,
        task_timeout: object,
        retries: object,
        maxmemoryperchild: object,
        progress: bool,
        capture_logging: bool,
        capture_output: bool,
        telemetry: object,
        engine: object,
        engine_options: object,
    ) -> PoolOptions:
        """Check the arguments of `mpr.Pool` with the same names, and return them as one object.

        Raises `ConfigError` if a value cannot be used, `TypeError` if the initializer or `worker_exit` is not callable,
        and `UnpicklableTaskError` if one of them cannot be sent to a worker.
        """
        engine_of = EngineOptions.check(
            engine,
            engine_options,
            processes,
            initializer=initializer,
            worker_exit=worker_exit,
            maxtasksperchild=maxtasksperchild,
            maxmemoryperchild=maxmemoryperchild,
            task_timeout=task_timeout,
            start_method=start_method,
            capture_output=capture_output,
        )
        method = check_start_method(start_method)
        limits = PoolLimits(
            tasks=check_maxtasksperchild(maxtasksperchild),
            memory=check_maxmemoryperchild(maxmemoryperchild),
            task_secs=check_task_timeout(task_timeout),
            retries=check_retries(retries),
        )
        for name, function in (("initializer", initializer), ("worker_exit", worker_exit)):
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be callable, got {function!r}")
        kinds = check_telemetry(telemetry)
        portable = Portable((initializer, tuple(initargs), worker_exit))
        if method != "fork":
            task_pickling.check_portable("worker_exit", Portable(worker_exit))
            task_pickling.check_portable("the initializer", portable)
        return cls(
            size=check_processes(processes),
            start_method=method,
            preload=preload,
            initializer=portable,
            limits=limits,
            capture=CaptureOptions(
                logging=bool(capture_logging), output=bool(capture_output), level=logging.getLogger().level
            ),
            telemetry=kinds,
            progress=bool(progress),
            engine=engine_of,
        )


def check_recording(
    recording: SharedRecording | None,
    application_id: str,
    *,
    recording_id: str | None,
    sinks: SinksLike | None,
    blueprint: BlueprintLike | None,
    route: Route,
    telemetry_view: bool,
) -> Callable[[], SharedRecording]:
    """Check the arguments of `mpr.Pool` about its recording. Returns a function that makes a new recording.

    If `recording` is not None, check that the pool can log into `recording`. The pool then does not call the returned
    function. If `recording` is None, check that a new recording can be made with the other arguments.

    Raises
    ------
    ConfigError
        If a value cannot be used, or does not agree with `recording`.
    TypeError
        If arguments of a new recording are given together with `recording`.
    RecordingClosedError, WrongProcessError
        If `recording` is closed, or if another process has made it.
    SinkError
        If `route='direct'` is not possible, because mpr does not know the file format of the SDK.
    """
    if recording is not None and (sinks, recording_id, blueprint) != (None, None, None):
        raise TypeError("give either recording, or sinks, recording_id and blueprint: they belong to a new one")
    if recording is None:
        # Checked before the pool starts a process. The recording checks its arguments again.
        RecordingOptions.check(
            application_id,
            recording_id=recording_id,
            sinks=sinks,
            blueprint=blueprint,
            route=route,
            telemetry_view=telemetry_view,
        )
    else:
        check_application_id(application_id)
        if check_route(route) != "funnel":
            raise ConfigError("give route='direct' to the SharedRecording: it belongs to the recording")
        runtime_of(recording).check_usable()
        if recording.application_id != application_id:
            raise ConfigError(f"the recording is of {recording.application_id!r}, not of {application_id!r}")
    return functools.partial(
        SharedRecording,
        application_id,
        recording_id=recording_id,
        sinks=sinks,
        blueprint=blueprint,
        route=route,
        telemetry_view=telemetry_view,
    )


def check_chunksize(chunksize: int) -> int:
    # Also integers of numpy.
    if not hasattr(chunksize, "__index__") or chunksize < 1:
        raise ConfigError(f"chunksize must be a number of tasks >= 1, got {chunksize!r}")
    return chunksize


def check_maxtasksperchild(limit: object) -> int | None:
    if limit is None or (isinstance(limit, int) and not isinstance(limit, bool) and limit >= 1):
        return limit
    raise ConfigError(f"maxtasksperchild must be None or a number of tasks >= 1, got {limit!r}")


def check_maxmemoryperchild(limit: object) -> int | None:
    if limit is None or (isinstance(limit, int) and not isinstance(limit, bool) and limit >= MIB):
        return limit
    raise ConfigError(f"maxmemoryperchild must be None or a number of bytes, at least {MIB:,}, got {limit!r}")


def check_telemetry(telemetry: object) -> frozenset[str]:
    """Return the kinds of telemetry for the value of the argument `telemetry`.

    True stands for all kinds, and False for none. A str is one kind, and an iterable has several. Raises `ConfigError`
    if the value cannot be used.
    """
    if telemetry is True or telemetry is False:
        return frozenset(TELEMETRY if telemetry else ())
    kinds = [telemetry] if isinstance(telemetry, str) else telemetry
    if isinstance(kinds, Iterable):
        found = list(kinds)
        if all(each in TELEMETRY for each in found):
            return frozenset(found)
    raise ConfigError(f"telemetry must be True, False, or some of {', '.join(map(repr, TELEMETRY))}; got {telemetry!r}")


def check_task_timeout(seconds: object) -> float | None:
    if seconds is None:
        return None
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < float("inf"):
        return float(seconds)
    raise ConfigError(f"task_timeout must be None or a number of seconds > 0, got {seconds!r}")


def check_retries(retries: object) -> int:
    if isinstance(retries, int) and not isinstance(retries, bool) and retries >= 0:
        return retries
    raise ConfigError(f"retries must be a number of times >= 0, got {retries!r}")
