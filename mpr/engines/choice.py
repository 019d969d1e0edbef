"""Finds the engine that a user means by the argument `engine` of a pool."""

from __future__ import annotations

from concurrent.futures import Executor

from mpr.engines.engine import Engine
from mpr.engines.options import EngineOptions
from mpr.errors import ConfigError


def open_engine(options: EngineOptions, retries: int) -> Engine:
    """Return the engine for the arguments `options` and `retries` of a pool.

    With "ray" or "dask", this is the engine that this process uses already, or a new one on this machine. Raises
    `ConfigError` if the arguments cannot be used, and `MissingDependencyError` if the package of the engine is not
    installed.
    """
    engine = options.engine
    if options.processes is not None and engine not in ("ray", "dask"):
        raise ConfigError("processes cannot be used with this engine, because it has its own number of workers")
    if engine == "ray":
        from mpr.engines.ray import RayEngine

        return RayEngine(options, retries)
    # Asked by the name of the module, because a program without Dask must not import it.
    if engine == "dask" or type(engine).__module__.startswith("distributed."):
        from mpr.engines.dask import DaskEngine

        return DaskEngine(options, retries)
    if isinstance(engine, Executor):
        from mpr.engines.executor import ExecutorEngine

        return ExecutorEngine(engine, options, retries)
    raise ConfigError(
        f"engine must be 'ray', 'dask', a dask.distributed.Client or a concurrent.futures.Executor, got {engine!r}"
    )
