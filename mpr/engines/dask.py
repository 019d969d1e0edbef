"""Runs chunks as tasks of Dask."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future
from typing import Any

from mpr.engines.chunk import Answer, Chunk, run_chunk
from mpr.engines.engine import ChunkFuture, Engine
from mpr.engines.options import EngineOptions
from mpr.errors import ConfigError, MissingDependencyError

# The time after which a new cluster gives a dead worker up. The nannies of the cluster start dead workers again.
_NEVER = "1000 days"


class DaskEngine(Engine):
    """The cluster of a Dask client, or a new cluster on this machine.

    Parameters
    ----------
    options:
        The arguments of the pool about the engine. `options.engine` is the client of the user, or "dask" for the
        current client of this process. If `options.engine` is "dask" and there is no current client, a cluster with
        `options.processes` workers is started (None: one for each CPU). `options.options` has more arguments of
        `Client.submit` for each chunk, such as `{"resources": {"GPU": 1}}`.
    retries:
        The number of times that Dask runs a chunk again if the chunk itself fails, for example because a worker cannot
        unpickle it (`retries` of `Client.submit`). A task that raises is not run again, because `run_chunk` returns its
        error as an outcome. Dask counts deaths of workers separately (`distributed.scheduler.allowed-failures`). If
        `options.options` has `retries`, that number is used instead.

    Raises
    ------
    MissingDependencyError
        If Dask's package `distributed` is not installed.
    ConfigError
        If the client is asynchronous, because its futures cannot be waited for in threads.
    """

    def __init__(self, options: EngineOptions, retries: int) -> None:
        try:
            import distributed
        except ImportError as error:
            raise MissingDependencyError("distributed", "dask") from error
        self.name: str = "Dask"
        self._distributed: Any = distributed
        #: Ends the cluster that this object has started.
        self._started = contextlib.ExitStack()
        self._client: Any = options.engine
        if options.engine == "dask":
            self._client = self._current_client() or self._start(options.processes)
        if self._client.asynchronous:
            raise ConfigError("the Dask client is asynchronous: give a client that was made without asynchronous=True")
        self.size: int = max(1, sum(self._client.nthreads().values()))
        self._options = {"retries": retries, **options.options}

    def _current_client(self) -> Any:
        try:
            return self._distributed.default_client()
        except ValueError:
            return None

    def _start(self, processes: int | None) -> Any:
        import dask.config

        # Some time after the death of a worker, a cluster gives this worker up if it is dead at that moment. A worker
        # whose tasks often end it may be, and the tasks would wait forever for another worker.
        with contextlib.ExitStack() as stack:
            stack.enter_context(dask.config.set({"distributed.deploy.lost-worker-timeout": _NEVER}))
            options = {"n_workers": processes, "threads_per_worker": 1, "dashboard_address": None}
            cluster = stack.enter_context(self._distributed.LocalCluster(**options))
            client = stack.enter_context(self._distributed.Client(cluster, set_as_default=False))
            self._started = stack.pop_all()
        return client

    def submit(self, chunk: Chunk) -> Future[Answer]:
        # `pure=False`, because Dask takes two equal calls of a pure function for one task.
        task = self._client.submit(run_chunk, chunk, pure=False, **self._options)
        future = ChunkFuture(task.cancel)
        task.add_done_callback(lambda done: future.settle(done.result))
        return future

    def is_death(self, error: BaseException) -> bool:
        return isinstance(error, self._distributed.KilledWorker)

    def close(self) -> None:
        self._started.close()
