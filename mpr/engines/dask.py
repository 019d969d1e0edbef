"""Runs chunks as tasks of Dask."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from mpr.engines.chunk import Answer, Chunk, run_chunk
from mpr.engines.engine import ChunkFuture, Engine
from mpr.errors import ConfigError, MissingDependencyError


class DaskEngine(Engine):
    """The cluster of a Dask client, or a new one on this machine.

    Parameters
    ----------
    client:
        The client of the user; None for the current client of this process. If there is none, a cluster is started.
    processes:
        The number of workers of a new cluster; None for the number of CPUs. A running cluster keeps its number.
    options:
        Options of `Client.submit` for each chunk, such as `{"resources": {"GPU": 1}}`.
    retries:
        The number of times that Dask runs a chunk again if it has failed (`retries` of `Client.submit`). In addition,
        Dask runs tasks again whose worker has died, as its configuration says
        (`distributed.scheduler.allowed-failures`).

    Raises
    ------
    MissingDependencyError
        If Dask's package `distributed` is not installed.
    ConfigError
        If the client is asynchronous, because its futures cannot be waited for in threads.
    """

    def __init__(self, client: Any, processes: int | None, options: Mapping[str, Any], retries: int) -> None:
        try:
            import distributed
        except ImportError as error:
            raise MissingDependencyError("distributed", "dask") from error
        self.name = "Dask"
        self._distributed: Any = distributed
        self._cluster: Any = None
        self._client: Any = client or self._current_client() or self._start(processes)
        if self._client.asynchronous:
            raise ConfigError("the Dask client is asynchronous: give a client that was made without asynchronous=True")
        self.size = max(1, sum(self._client.nthreads().values()))
        self._options = {"retries": retries, **options}

    def _current_client(self) -> Any:
        try:
            return self._distributed.default_client()
        except ValueError:
            return None

    def _start(self, processes: int | None) -> Any:
        self._cluster = self._distributed.LocalCluster(
            n_workers=processes, threads_per_worker=1, dashboard_address=None
        )
        return self._distributed.Client(self._cluster, set_as_default=False)

    def submit(self, chunk: Chunk) -> Future[Answer]:
        # `pure=False`, because Dask takes two equal calls of a pure function for one task.
        task = self._client.submit(run_chunk, chunk, pure=False, **self._options)
        future = ChunkFuture(task.cancel)
        task.add_done_callback(lambda done: future.settle(done.result))
        return future

    def is_death(self, error: BaseException) -> bool:
        return isinstance(error, self._distributed.KilledWorker)

    def close(self) -> None:
        if self._cluster is not None:
            self._client.close()
            self._cluster.close()
