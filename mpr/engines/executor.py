"""Runs chunks in an executor of `concurrent.futures`, or of a library that has the same interface."""

from __future__ import annotations

import os
from concurrent.futures import BrokenExecutor, Executor, Future

from mpr.engines.chunk import Answer, Chunk, run_chunk
from mpr.engines.engine import Engine
from mpr.engines.options import EngineOptions
from mpr.errors import ConfigError


class ExecutorEngine(Engine):
    """An executor of the user, which mpr does not shut down.

    Parameters
    ----------
    executor:
        The executor.
    options, retries:
        The arguments of the pool about the engine, and the pool's argument `retries`.

    Raises
    ------
    ConfigError
        If `options.options` is not empty or `retries` is not 0, because executors accept neither.
    """

    runs_again = False

    def __init__(self, executor: Executor, options: EngineOptions, retries: int) -> None:
        self.name: str = type(executor).__name__
        # The executors of Python, loky and mpi4py have this attribute.
        self.size: int = getattr(executor, "_max_workers", None) or os.cpu_count() or 1
        self._executor = executor
        if options.options:
            names = ", ".join(options.options)
            raise ConfigError(f"engine_options are for Ray and Dask: {self.name} has none, got {names}")
        if retries:
            raise ConfigError(f"retries={retries} cannot be used, because {self.name} does not run a task again")

    def submit(self, chunk: Chunk) -> Future[Answer]:
        return self._executor.submit(run_chunk, chunk)

    def is_death(self, error: BaseException) -> bool:
        return isinstance(error, BrokenExecutor)

    def close(self) -> None:
        """Do nothing, because the executor is the user's."""
