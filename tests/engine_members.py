"""The engines of the matrix (`test_engine_matrix.py`), each in the ways in which a user gives a function to it.

A *member* is one way to use an engine. `map(function, numbers)` calls a function as a user of the engine would.
`run(calls)` runs calls one after another in one worker, which is another process except for threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from tests import support

TIMEOUT_SECS = 60

Call = Callable[[], Any]


class Member(Protocol):
    def map(self, function: Any, numbers: Sequence[int]) -> list[Any]: ...

    def run(self, calls: Sequence[Call]) -> list[Any]: ...


def call(function: Call) -> Any:
    return function()


def call_all(functions: Sequence[Call]) -> list[Any]:
    return [function() for function in functions]


def require(module: str) -> Any:
    """Import a module, or skip the test that needs it."""
    import pytest

    return pytest.importorskip(module, reason=f"{module} is not installed")


# --- executors -------------------------------------------------------------------------------------------------------


class Executor:
    """A `concurrent.futures.Executor` with one worker."""

    def __init__(self, executor: Any) -> None:
        self._executor = executor

    def map(self, function: Any, numbers: Sequence[int]) -> list[Any]:
        return list(self._executor.map(function, numbers))

    def run(self, calls: Sequence[Call]) -> list[Any]:
        return list(self._executor.map(call, calls))


@contextlib.contextmanager
def processes(start_method: str) -> Iterator[Member]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(start_method)) as executor:
        yield Executor(executor)


@contextlib.contextmanager
def threads() -> Iterator[Member]:
    with ThreadPoolExecutor(1) as executor:
        yield Executor(executor)


# --- joblib ----------------------------------------------------------------------------------------------------------


class _Joblib:
    def __init__(self, joblib: Any) -> None:
        self._joblib = joblib

    def map(self, function: Any, numbers: Sequence[int]) -> list[Any]:
        delayed = self._joblib.delayed(function)
        return list(self._joblib.Parallel(n_jobs=2)(delayed(number) for number in numbers))

    def run(self, calls: Sequence[Call]) -> list[Any]:
        (results,) = self._joblib.Parallel(n_jobs=2)([self._joblib.delayed(call_all)(calls)])
        return list(results)


@contextlib.contextmanager
def joblib(backend: str) -> Iterator[Member]:
    module = require("joblib")
    if backend == "ray":
        require("ray.util.joblib").register_ray()
    with module.parallel_config(backend=backend):
        yield _Joblib(module)
    if backend == "loky":
        require("joblib.externals.loky").get_reusable_executor().shutdown(wait=True)


# --- Dask ------------------------------------------------------------------------------------------------------------


class DaskMap:
    def __init__(self, client: Any) -> None:
        self.client = client

    def map(self, function: Any, numbers: Sequence[int]) -> list[Any]:
        return list(self.client.gather(self.client.map(function, numbers, pure=False)))

    def run(self, calls: Sequence[Call]) -> list[Any]:
        return [self.client.submit(each, pure=False).result(TIMEOUT_SECS) for each in calls]


class DaskDelayed(DaskMap):
    def map(self, function: Any, numbers: Sequence[int]) -> list[Any]:
        dask = require("dask")
        return list(dask.compute(*(dask.delayed(function, pure=False)(number) for number in numbers)))

    def run(self, calls: Sequence[Call]) -> list[Any]:
        dask = require("dask")
        return [dask.delayed(each, pure=False)().compute() for each in calls]


class DaskBag(DaskMap):
    def map(self, function: Any, numbers: Sequence[int]) -> list[Any]:
        return list(require("dask.bag").from_sequence(numbers, npartitions=2).map(function).compute())

    def run(self, calls: Sequence[Call]) -> list[Any]:
        return list(require("dask.bag").from_sequence(calls, npartitions=1).map(call).compute())


class _Actor:
    """An actor of Dask or Ray."""

    def __init__(self, function: Any = None) -> None:
        self.function = function

    def apply(self, number: int) -> Any:
        return self.function(number)

    def call(self, function: Call) -> Any:
        return function()


class DaskActor(DaskMap):
    def map(self, function: Any, numbers: Sequence[int]) -> list[Any]:
        actor = self.client.submit(_Actor, function, actor=True, pure=False).result(TIMEOUT_SECS)
        return [actor.apply(number).result(TIMEOUT_SECS) for number in numbers]

    def run(self, calls: Sequence[Call]) -> list[Any]:
        actor = self.client.submit(_Actor, actor=True, pure=False).result(TIMEOUT_SECS)
        return [actor.call(each).result(TIMEOUT_SECS) for each in calls]


DASK: dict[str, Callable[[Any], Member]] = {
    "map": DaskMap,
    "delayed": DaskDelayed,
    "bag": DaskBag,
    "actor": DaskActor,
}


@contextlib.contextmanager
def dask_cluster(workers: int = 1, threads: int = 1) -> Iterator[Any]:
    """Start a cluster, and make its client the current one."""
    distributed = require("distributed")
    options = {"n_workers": workers, "threads_per_worker": threads, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


@contextlib.contextmanager
def dask_from_a_shell(folder: Path) -> Iterator[Any]:
    """Start a scheduler and a worker by their commands, and connect a client to them."""
    distributed = require("distributed")
    file = folder / "scheduler.json"
    command = [str(Path(sys.executable).parent / "dask")]
    options = [f"--scheduler-file={file}", "--no-dashboard"]
    nanny = ["--nworkers=1", "--nthreads=1", f"--local-directory={folder}"]
    with contextlib.ExitStack() as stack:
        for line in (["scheduler", "--port=0", *options], ["worker", *options, *nanny]):
            process = subprocess.Popen([*command, *line], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(process.wait, TIMEOUT_SECS)
            stack.callback(process.terminate)
            support.wait_for(file.exists, TIMEOUT_SECS)
        client = stack.enter_context(distributed.Client(scheduler_file=str(file)))
        client.wait_for_workers(1, timeout=TIMEOUT_SECS)
        yield client


# --- Ray -------------------------------------------------------------------------------------------------------------


class RayTask:
    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def map(self, function: Any, numbers: Sequence[int]) -> list[Any]:
        remote = self._ray.remote(function)
        return list(self._ray.get([remote.remote(number) for number in numbers], timeout=TIMEOUT_SECS))

    def run(self, calls: Sequence[Call]) -> list[Any]:
        return list(self._ray.get(self._ray.remote(call_all).remote(calls), timeout=TIMEOUT_SECS))


class _AsyncActor(_Actor):
    async def apply(self, number: int) -> Any:
        await asyncio.sleep(0)
        return self.function(number)

    async def call(self, function: Call) -> Any:
        result = function()
        return await result if inspect.isawaitable(result) else result


class RayActor:
    def __init__(self, ray: Any, actor: type) -> None:
        self._ray = ray
        self._actor = ray.remote(num_cpus=0)(actor)
        self._caller: Any = None

    def map(self, function: Any, numbers: Sequence[int]) -> list[Any]:
        actor = self._actor.remote(function)
        return list(self._ray.get([actor.apply.remote(number) for number in numbers], timeout=TIMEOUT_SECS))

    def run(self, calls: Sequence[Call]) -> list[Any]:
        self._caller = self._caller or self._actor.remote()
        return [self._ray.get(self._caller.call.remote(each), timeout=TIMEOUT_SECS) for each in calls]


class RayMultiprocessing:
    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def map(self, function: Any, numbers: Sequence[int]) -> list[Any]:
        return list(self._pool.map(function, numbers))

    def run(self, calls: Sequence[Call]) -> list[Any]:
        return list(self._pool.map(call, calls))


def _batch_of(function: Any) -> Any:
    """Return a function of a batch of Ray Data, which calls `function` for each number of the batch."""

    def apply(batch: dict[str, Any]) -> dict[str, Any]:
        return {"result": [pickle.dumps(function(int(number))) for number in batch["item"]]}

    return apply


class _BatchActor:
    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return dict(self.function(batch))


class RayData:
    def __init__(self, ray: Any) -> None:
        self._data = require("ray.data")
        self._data.DataContext.get_current().enable_progress_bars = False

    def _mapped(self, function: Any, numbers: Iterable[int], blocks: int, size: int) -> list[Any]:
        """Return the results of a function of a batch, in the order of the numbers."""
        made = self._data.from_items(list(numbers), override_num_blocks=blocks)
        found = self._map_batches(made, function, size).take_all()
        return [pickle.loads(row["result"]) for row in found]

    def _map_batches(self, data: Any, function: Any, size: int) -> Any:
        return data.map_batches(function, batch_size=size)

    def map(self, function: Any, numbers: Sequence[int]) -> list[Any]:
        return list(self._mapped(_batch_of(function), numbers, 2, 2))

    def run(self, calls: Sequence[Call]) -> list[Any]:
        # The calls are in a closure, because the items of a data set are columns of numbers.
        return self._mapped(_batch_of(lambda number: calls[number]()), range(len(calls)), 1, 1)


class RayDataActors(RayData):
    def _map_batches(self, data: Any, function: Any, size: int) -> Any:
        options = {"batch_size": size, "compute": self._data.ActorPoolStrategy(size=1), "num_cpus": 0}
        return data.map_batches(_BatchActor, fn_constructor_args=(function,), **options)


RAY: dict[str, Callable[[Any], Member]] = {
    "task": RayTask,
    "actor": lambda ray: RayActor(ray, _Actor),
    "async actor": lambda ray: RayActor(ray, _AsyncActor),
}


@contextlib.contextmanager
def ray_data(member: Callable[[Any], Member]) -> Iterator[Member]:
    """Start Ray, and give a member of Ray Data."""
    ray = require("ray")
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    try:
        yield member(ray)
    finally:
        ray.shutdown()


# --- PyTorch ---------------------------------------------------------------------------------------------------------


def _same(value: Any) -> Any:
    return value


class _Dataset:
    def __init__(self, items: Sequence[Call]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        return self._items[index]()


class _Calling:
    """A dataset whose indices are the calls themselves."""

    def __getitem__(self, function: Call) -> Any:
        return function()


class Torch:
    """`torch.utils.data.DataLoader`: `map` has a dataset that calls functions, and `run` has a worker that stays."""

    def __init__(self, start_method: str) -> None:
        self._data = require("torch.utils.data")
        self._options = {
            "batch_size": None,
            "collate_fn": _same,
            "timeout": TIMEOUT_SECS,
            "multiprocessing_context": start_method,
        }
        # Other workers than forked ones import PyTorch, which takes seconds.
        self._workers = 2 if start_method == "fork" else 1
        self._calls: list[Call] = []
        options = {"num_workers": 1, "persistent_workers": True, "sampler": self._calls}
        self._loader = self._data.DataLoader(_Calling(), **options, **self._options)

    def map(self, function: Any, numbers: Sequence[int]) -> list[Any]:
        dataset = _Dataset([functools.partial(function, number) for number in numbers])
        return list(self._data.DataLoader(dataset, num_workers=self._workers, **self._options))

    def run(self, calls: Sequence[Call]) -> list[Any]:
        # A list as the sampler is read again in each epoch.
        self._calls[:] = calls
        return list(self._loader)


class TorchIterable(Torch):
    """The same with an iterable dataset, of which each worker has a copy."""

    def map(self, function: Any, numbers: Sequence[int]) -> list[Any]:
        return self.run([functools.partial(function, number) for number in numbers])

    def run(self, calls: Sequence[Call]) -> list[Any]:
        # Only some environments have PyTorch.
        from tests import engine_iterable

        return list(self._data.DataLoader(engine_iterable.Items(_Dataset(calls)), num_workers=1, **self._options))


# --- MPI -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def mpi() -> Iterator[Member]:
    """The worker of a program that `mpiexec` has started with two processes (`engine_program.py`)."""
    from mpi4py.futures import MPIPoolExecutor

    with MPIPoolExecutor(1) as executor:
        yield Executor(executor)
