"""Checks the arguments of a pool about the engine that runs its tasks, and keeps them as one value."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from mpr.errors import ConfigError
from mpr.processes.start import check_processes

#: What `mpr.Pool(engine=...)` takes. `Any` stands for the client of Dask, which may not be installed.
EngineLike: TypeAlias = Literal["ray", "dask"] | Executor | Any


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """The checked arguments of a pool about the engine that runs its tasks. `check` makes this object.

    Attributes
    ----------
    engine:
        "ray", "dask", a client of Dask, or an executor.
    processes:
        The number of workers of an engine that the pool starts; None for the engine's own number.
    options:
        The `engine_options` of `mpr.Pool`: the engine's options for each chunk of tasks.
    """

    engine: object
    processes: int | None
    options: Mapping[str, Any]

    @classmethod
    def check(cls, engine: object, options: object, processes: object, **others: object) -> EngineOptions | None:
        """Check `engine`, `engine_options` and `processes` of `mpr.Pool`. Returns None if `engine` is None.

        `others` are arguments of `mpr.Pool` that are only for workers of mpr. Raises `ConfigError` if one of them is
        set together with an engine, if `options` is given without an engine, or if a value cannot be used.
        """
        if engine is None:
            if options is not None:
                raise ConfigError("engine_options are for an engine: give engine=, too")
            return None
        for name, value in others.items():
            if value:
                raise ConfigError(f"{name} cannot be used with an engine, because the workers are the engine's")
        if options is not None and not isinstance(options, Mapping):
            raise ConfigError(f"engine_options must be a dict with str as keys, got {options!r}")
        count = None if processes is None else check_processes(processes)
        return cls(engine=engine, processes=count, options=options or {})
