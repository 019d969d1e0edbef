"""Runs chunks as tasks of Ray."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from mpr.engines.chunk import Answer, Chunk, run_chunk
from mpr.engines.engine import ChunkFuture, Engine
from mpr.engines.options import EngineOptions
from mpr.errors import MissingDependencyError


class RayEngine(Engine):
    """The cluster of Ray to which this process is connected, or a new cluster on this machine.

    Parameters
    ----------
    options:
        The arguments of the pool about the engine. `options.processes` is the number of CPUs of a new cluster (None:
        all CPUs of this machine). `options.options` has the arguments of `ray.remote` for each chunk, such as
        `{"num_gpus": 1}`.
    retries:
        The number of times that Ray runs a chunk again if its worker has died (`max_retries` of Ray). If
        `options.options` has `max_retries`, that number is used instead.

    Raises
    ------
    MissingDependencyError
        If Ray is not installed.
    """

    def __init__(self, options: EngineOptions, retries: int) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingDependencyError("ray", "ray") from error
        self.name: str = "Ray"
        self._ray: Any = ray
        self._has_started = not ray.is_initialized()
        if self._has_started:
            ray.init(num_cpus=options.processes, include_dashboard=False)
        self.size: int = max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._run: Any = ray.remote(run_chunk).options(**{"max_retries": retries, **options.options})

    def submit(self, chunk: Chunk) -> Future[Answer]:
        reference = self._run.remote(chunk)
        future = ChunkFuture(lambda: self._ray.cancel(reference))
        reference.future().add_done_callback(lambda done: future.settle(done.result))
        return future

    def is_death(self, error: BaseException) -> bool:
        lost = self._ray.exceptions
        return isinstance(
            error, (lost.WorkerCrashedError, lost.NodeDiedError, lost.OutOfMemoryError, lost.ObjectLostError)
        )

    def close(self) -> None:
        if self._has_started:
            self._ray.shutdown()
