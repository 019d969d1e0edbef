"""Real engines: wrapped functions have all rows, and plain tasks of the same workers see what is theirs."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mpr
from mpr.engines.chunk import Chunk, key_of, run_chunk
from mpr.processes import task_pickling
from mpr.transport import connection_info
from mpr.transport.messages import EACH, RETURNED
from tests import engine_work, guests, support

_OWN = ("own", None)
_ROOT = Path(__file__).parent.parent


def _check(run: Callable[..., Any], wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    """Run plain and wrapped functions in one worker. `run(function, *args)` returns the result of a call there."""
    assert run(guests.current) == (None, None)
    run(guests.begin_own, tmp_path / "own.rrd")
    for name in ("first", "second"):
        with mpr.SharedRecording("app", sinks=tmp_path / f"{name}.rrd", recording_id=name) as recording:
            wrapped = wrap(recording.wrap(guests.work))
            assert [run(wrapped, number) for number in range(3)] == [(name, True)] * 3
            assert run(guests.log_own, 3) == _OWN
            assert run(wrapped, 4) == (name, True)
        assert run(guests.log_own, 5) == _OWN
        assert run(guests.log_decorated, 6) == ""
        with pytest.raises(Exception, match="is closed, or its process has ended"):
            run(wrapped, 7)
        support.check_file(tmp_path / f"{name}.rrd")
        for entity in ("/n", "/thread"):
            assert support.numbers(tmp_path / f"{name}.rrd", entity) == Counter([0, 1, 2, 4])
    with support.whole_frames_of(tmp_path / "own.rrd") as copy:
        assert support.numbers(copy) == Counter([3, 5, 6] * 2)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers import the tests."""
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


@pytest.mark.usefixtures("environment")
def test_dask(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:

        def run(function: Any, *args: Any) -> Any:
            return client.submit(function, *args, pure=False).result(60)

        _check(run, lambda wrapped: wrapped, tmp_path)


@pytest.fixture
def ray(environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    module = pytest.importorskip("ray", reason="Ray is not installed")
    # Without this, Ray writes a token into the home of the user.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    module.init(num_cpus=1, include_dashboard=False)
    yield module
    module.shutdown()


def test_ray(ray: Any, tmp_path: Path) -> None:
    remote: dict[Any, Any] = {}

    def run(function: Any, *args: Any) -> Any:
        if function not in remote:
            remote[function] = ray.remote(function)
        return ray.get(remote[function].remote(*args), timeout=60)

    _check(run, lambda wrapped: wrapped, tmp_path)


def test_ray_generators_and_actors(ray: Any, tmp_path: Path) -> None:
    class Actor:
        def __init__(self, function: Any) -> None:
            self.function = function

        def call(self, number: int) -> Any:
            return self.function(number)

        async def wait(self, number: int) -> Any:
            return await self.function(number)

    make = ray.remote(num_cpus=0)(Actor)
    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd", recording_id="run") as recording:
        found = ray.remote(recording.wrap(guests.steps)).remote(3)
        assert [ray.get(each, timeout=60) for each in found] == [0, 1, 2]
        plain, waiting = make.remote(recording.wrap(guests.work)), make.remote(recording.wrap(guests.later))
        assert ray.get([plain.call.remote(number) for number in (3, 4)], timeout=60) == [("run", True)] * 2
        assert ray.get([waiting.wait.remote(number) for number in (5, 6)], timeout=60) == ["run"] * 2
    support.check_file(tmp_path / "run.rrd")
    assert support.numbers(tmp_path / "run.rrd") == Counter(range(7))
    assert support.numbers(tmp_path / "run.rrd", "/thread") == Counter([3, 4, 5, 6])


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")  # Ray Data warns of its own settings
def test_ray_actors_of_a_wrapped_class(ray: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:

        @ray.remote(num_cpus=0)
        @recording.wrap
        class Local(engine_work.Counter):
            @ray.method(num_returns=2)
            def two(self, number: int) -> tuple[int, int]:
                self.add(number)
                return number, self.total

            def own(self) -> Any:
                return guests.current()

        local, module = Local.remote(0), ray.remote(num_cpus=0)(recording.wrap(engine_work.Counter)).remote(10)
        # One after another, because an actor with a coroutine keeps no order.
        assert ray.get(local.add.remote(1), timeout=60) == 1
        assert ray.get(list(local.two.remote(2)), timeout=60) == [2, 3]
        assert ray.get(local.later.remote(3), timeout=60) == 3
        assert [ray.get(each) for each in local.steps.options(num_returns="streaming").remote(4)] == [4]
        assert ray.get(module.add.remote(11), timeout=60) == 21
        # Ray calls a plain function in the process of the actor.
        assert ray.get(local.__ray_call__.remote(lambda _actor: guests.current()), timeout=60) == (None, None)
        assert ray.get(local.own.remote(), timeout=60)[0] == recording.recording_id
        data = pytest.importorskip("ray.data")
        items = data.from_items(list(range(20, 24)), override_num_blocks=2)
        mapped = items.map_batches(recording.wrap(engine_work.CountBatches), fn_constructor_args=(30,), concurrency=1)
        assert sorted(row["item"] for row in mapped.take_all()) == [20, 21, 22, 23]
    with pytest.raises(Exception, match="is closed, or its process has ended"):
        ray.get(module.add.remote(12), timeout=60)
    support.check_file(path)
    assert support.numbers(path) == Counter([*range(5), 10, 11, *range(20, 24), 30])


# --- tasks that run again -------------------------------------------------------------------------------------------


def _attempts(path: Path) -> dict[str, Counter[int]]:
    """Return the numbers that each attempt has logged."""
    return {name: support.numbers(path, f"/attempt/{name}") for name in ("1", "2", "3")}


def _once(*tasks: int) -> Counter[int]:
    return Counter(engine_work.numbers_of(*tasks))


class _Dask:
    """A cluster of Dask on this machine, whose workers can be killed."""

    def __init__(self, workers: int, threads: int) -> None:
        distributed = pytest.importorskip("distributed", reason="Dask is not installed")
        config = pytest.importorskip("dask.config", reason="Dask is not installed")
        self._stack = contextlib.ExitStack()
        # A task may lose several workers.
        self._stack.enter_context(config.set({"distributed.scheduler.allowed-failures": 10}))
        options = {"n_workers": workers, "threads_per_worker": threads, "dashboard_address": None}
        self.cluster = self._stack.enter_context(distributed.LocalCluster(**options))
        self.client: Any = self._stack.enter_context(distributed.Client(self.cluster))
        self.wait: Any = distributed.wait

    def pids(self) -> set[int]:
        return {nanny.pid for nanny in self.cluster.workers.values()}

    def kill(self, pids: set[int]) -> None:
        """Kill workers, and wait until they have been replaced."""
        count = len(self.pids())
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        support.wait_for(lambda: not self.pids() & {None, 0, *pids}, 60)
        self.client.wait_for_workers(count, timeout=60)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def dask(request: pytest.FixtureRequest, environment: None) -> Iterator[_Dask]:
    made = _Dask(*getattr(request, "param", (2, 1)))
    yield made
    made.close()


def test_a_dask_actor_of_a_wrapped_class(dask: _Dask, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        actor = dask.client.submit(recording.wrap(engine_work.Counter), 0, actor=True).result(60)
        assert [actor.add(number).result(60) for number in (1, 2)] == [1, 3]
    support.check_file(path)
    assert support.numbers(path) == Counter(range(3))


@pytest.mark.parametrize("dask", [(2, 1), (1, 2)], indirect=True)
def test_dask_recomputes_tasks_and_their_rows_are_there_once(dask: _Dask, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        futures = dask.client.map(recording.wrap(engine_work.log_slowly), range(8))
        dask.wait(futures)
        assert recording.stats().repeated_tasks == 0
        dask.kill(dask.pids())
        # New tasks run in other threads of the same worker while the old ones run again.
        others = dask.client.map(recording.wrap(engine_work.log_slowly), range(8, 16))
        assert dask.client.gather([*futures, *others]) == list(range(16))
        assert recording.stats().repeated_tasks == 8
    support.check_file(path)
    assert support.numbers(path) == _once(*range(16))
    assert _attempts(path)["1"] == _once(*range(16))


def test_dask_task_that_dies_keeps_its_rows_and_a_complete_one_has_them_once(dask: _Dask, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        complete = dask.client.map(recording.wrap(engine_work.log_ten), range(4))
        dask.wait(complete)
        wrapped = recording.wrap(engine_work.die_once)
        (other,) = dask.pids() - {complete[0].result()[1]} or {0}
        # Both workers have results of complete tasks, and the one that runs the task dies.
        died = dask.client.map(wrapped, range(4, 8), folder=str(tmp_path), victim=5)
        assert dask.client.gather(died) == [4, 5, 6, 7]
        dask.kill(dask.pids() - {other})
        assert [each[0] for each in dask.client.gather(complete)] == [0, 1, 2, 3]
        assert recording.stats().repeated_tasks
    support.check_file(path)
    assert support.numbers(path) == _once(*range(8)) + Counter(engine_work.numbers_of(5)[:5])


def test_dask_task_that_raises_keeps_the_rows_of_both_runs(dask: _Dask, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        wrapped = recording.wrap(engine_work.fail_once)
        assert dask.client.submit(wrapped, 3, str(tmp_path), retries=2).result(60) == 3
        assert recording.stats().repeated_tasks == 0
    assert support.numbers(path) == _once(3, 3)


def test_dask_runs_every_kind_of_function_again(dask: _Dask, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        wrap = recording.wrap
        futures = [
            dask.client.submit(engine_work.run_steps, wrap(engine_work.log_in_steps), 0),
            dask.client.submit(engine_work.run_coroutine, wrap(engine_work.log_later), 1),
            # Dask itself awaits this one.
            dask.client.submit(wrap(engine_work.log_later), 2),
            dask.client.submit(engine_work.call_three_times, wrap(engine_work.log_ten), 3),
            dask.client.submit(wrap(engine_work.log_in_thread), 6),
            dask.client.submit(wrap(engine_work.decorated_inside), 7),
        ]
        dask.wait(futures)
        dask.kill(dask.pids())
        assert dask.client.gather(futures) == [10, 1, 2, 3, 6, 7]
        assert recording.stats().repeated_tasks == 8
    support.check_file(path)
    assert support.numbers(path) == _once(*range(7))
    assert support.numbers(path, "/thread") == Counter([6])
    assert support.numbers(path, "/decorated") == Counter([7])


def test_a_repeated_task_sees_what_the_first_run_saw_and_leaves_nothing(dask: _Dask, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path, recording_id="run") as recording:
        wrapped = recording.wrap(engine_work.use_everything)
        futures = dask.client.map(wrapped, range(4), folder=str(tmp_path))
        dask.wait(futures)
        dask.kill(dask.pids())
        dask.client.run(guests.begin_own, tmp_path / "own.rrd")
        assert dask.client.gather(futures) == [(number, "run", True) for number in range(4)]
        assert recording.stats().repeated_tasks == 4
        # What is current in the workers is as it was. Dask has started them again within the block, so they can join.
        assert {current for current, _ in dask.client.run(guests.log_own, 1).values()} == {"own"}
        later = dask.client.map(recording.wrap(engine_work.log_ten), range(4, 8))
        assert [each[0] for each in dask.client.gather(later)] == [4, 5, 6, 7]
    support.check_file(path)
    assert support.numbers(path) == _once(*range(8))
    for entity in ("/after_init", "/joined", "/columns"):
        assert support.numbers(path, entity) == Counter(range(4))
    for number in range(4):
        assert support.numbers(tmp_path / f"run-own-{number}.rrd", "/own") == Counter([number])


def test_an_equal_dask_task_that_is_submitted_later_logs_again(dask: _Dask, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        wrapped = recording.wrap(engine_work.log_slowly)
        keys = []
        for _ in range(2):
            futures = dask.client.map(wrapped, range(4), key=[f"same-{number}" for number in range(4)])
            keys.append([each.key for each in futures])
            assert dask.client.gather(futures) == [0, 1, 2, 3]
            del futures
            support.wait_for(lambda: not dask.cluster.scheduler.tasks)
        assert keys[0] == keys[1]
        assert recording.stats().repeated_tasks == 0
    assert support.numbers(path) == _once(*range(4), *range(4))


def test_two_runs_of_a_task_at_the_same_time_both_log(dask: _Dask, tmp_path: Path) -> None:
    """This is a limit: neither run is complete when the other one begins."""
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        wrapped = recording.wrap(engine_work.wait_for_another)
        future = dask.client.submit(wrapped, 1, str(tmp_path))
        support.wait_for(lambda: list(tmp_path.glob("run-1-*")), 60)
        (pid,) = (int(each.name.rpartition("-")[2]) for each in tmp_path.glob("run-1-*"))
        (address,) = (each for each, found in dask.client.run(os.getpid).items() if found == pid)
        # The scheduler takes the worker for lost, as it does if a network fails. The worker goes on.
        os.kill(pid, signal.SIGSTOP)
        dask.client.run_on_scheduler(_forget_worker, address=address)
        support.wait_for(lambda: len(list(tmp_path.glob("run-1-*"))) == 2, 60)
        os.kill(pid, signal.SIGCONT)
        assert future.result(60) == 1
        assert recording.stats().repeated_tasks == 0
        recording.flush()
    found = support.numbers(path)
    assert set(found) == set(engine_work.numbers_of(1))
    assert set(found.values()) <= {1, 2}


async def _forget_worker(dask_scheduler: Any, address: str) -> None:
    await dask_scheduler.remove_worker(address, stimulus_id="test", close=False, expected=False)


def test_a_pool_with_dask_loses_a_worker(dask: _Dask, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    run = functools.partial(engine_work.die_once, folder=str(tmp_path), victim=5)
    with mpr.Pool("app", engine=dask.client, sinks=path) as pool:
        assert pool.map(run, range(8), chunksize=2) == list(range(8))
    support.check_file(path)
    # Only the chunk that died has rows twice: those of its first task, and half of those of its second task.
    assert support.numbers(path) == _once(*range(8), 4) + Counter(engine_work.numbers_of(5)[:5])


def _chunks(recording: mpr.SharedRecording, count: int) -> list[Chunk]:
    """Make chunks as a pool does, each with two tasks."""
    code = task_pickling.dump_by_value(engine_work.log_slowly)
    made = []
    for number in range(count):
        first = 2 * number
        payload = task_pickling.dump_arguments("log_slowly", [first, first + 1])
        made.append(
            Chunk(
                recording=recording.environ()[connection_info.VARIABLE],
                function=code,
                mode=EACH,
                index=first,
                arguments=[bytes(part) for part in payload],
                key=key_of(b"a pool", number),
            )
        )
    return made


@pytest.mark.parametrize("dask", [(2, 1), (1, 2)], indirect=True)
def test_dask_recomputes_chunks_of_a_pool(dask: _Dask, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        chunks = _chunks(recording, 4)
        futures = [dask.client.submit(run_chunk, each, pure=False) for each in chunks[:3]]
        dask.wait(futures)
        dask.kill(dask.pids())
        futures.append(dask.client.submit(run_chunk, chunks[3], pure=False))
        assert [each.status for each in dask.client.gather(futures)] == [RETURNED] * 4
        assert recording.stats().repeated_tasks == 3
    support.check_file(path)
    assert support.numbers(path) == _once(*range(8))


class _Ray:
    """A cluster of Ray on this machine, with one node for tasks that can be lost."""

    def __init__(self, ray: Any) -> None:
        from ray.cluster_utils import Cluster

        self.ray = ray
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self._node = self._add()
        ray.init(address=self._cluster.address, logging_level="ERROR")

    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=2, resources={"tasks": 2})

    def remote(self, function: Any, **options: Any) -> Any:
        """Return `function` for the node with the tasks."""
        return self.ray.remote(**{"resources": {"tasks": 1}, **options})(function)

    def lose_node(self) -> None:
        self._cluster.remove_node(self._node, allow_graceful=False)
        self._node = self._add()

    def get(self, references: Any) -> Any:
        return self.ray.get(references, timeout=120)

    def complete(self, references: list[Any]) -> None:
        ready, _ = self.ray.wait(references, num_returns=len(references), timeout=120, fetch_local=False)
        assert len(ready) == len(references)

    def close(self) -> None:
        self.ray.shutdown()
        self._cluster.shutdown()


@pytest.fixture
def ray_cluster(environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Ray]:
    module = pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    made = _Ray(module)
    yield made
    made.close()


def test_ray_runs_complete_tasks_of_a_lost_node_again(ray_cluster: _Ray, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        run = ray_cluster.remote(recording.wrap(engine_work.log_ten))
        steps = ray_cluster.remote(recording.wrap(engine_work.log_in_steps))
        chunk = ray_cluster.remote(run_chunk)
        references = [run.remote(number) for number in range(6)]
        values = list(steps.remote(6))
        answers = [chunk.remote(each) for each in _chunks(recording, 6)[4:]]
        ray_cluster.complete([*references, *values, *answers])
        assert recording.stats().repeated_tasks == 0
        ray_cluster.lose_node()
        assert [each[0] for each in ray_cluster.get(references)] == list(range(6))
        assert len(ray_cluster.get(values)) == engine_work.ROWS
        assert [each.status for each in ray_cluster.get(answers)] == [RETURNED] * 2
        assert recording.stats().repeated_tasks >= 6
    support.check_file(path)
    assert support.numbers(path) == _once(*range(7), *range(8, 12))
    assert _attempts(path)["1"] == _once(*range(7), *range(8, 12))


def test_ray_retries_a_task_that_died_and_both_attempts_are_marked(ray: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        run = ray.remote(max_retries=2)(recording.wrap(engine_work.die_once))
        assert ray.get([run.remote(number, str(tmp_path), 1) for number in range(3)], timeout=120) == [0, 1, 2]
        failing = ray.remote(max_retries=2, retry_exceptions=True)(recording.wrap(engine_work.fail_once))
        assert ray.get(failing.remote(3, str(tmp_path)), timeout=120) == 3
        assert recording.stats().repeated_tasks == 0
    support.check_file(path)
    died = Counter(engine_work.numbers_of(1)[:5])
    assert support.numbers(path) == _once(0, 1, 2, 3, 3) + died
    assert _attempts(path) == {"1": _once(0, 2, 3) + died, "2": _once(1, 3), "3": Counter()}


def test_a_pool_with_ray_retries_a_chunk_that_died(ray: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    run = functools.partial(engine_work.die_once, folder=str(tmp_path), victim=3)
    with mpr.Pool("app", engine="ray", retries=2, sinks=path) as pool:
        assert pool.map(run, range(6), chunksize=2) == list(range(6))
        assert pool.recording.stats().repeated_tasks == 0
    support.check_file(path)
    died = Counter(engine_work.numbers_of(3)[:5])
    assert support.numbers(path) == _once(*range(6), 2) + died
    assert _attempts(path) == {"1": _once(0, 1, 2, 4, 5) + died, "2": _once(2, 3), "3": Counter()}


def test_ray_restarts_an_actor_whose_call_died(ray: Any, tmp_path: Path) -> None:
    class Actor:
        def __init__(self, function: Any, later: Any) -> None:
            self.function = function
            self.later = later

        async def call(self, number: int) -> Any:
            return self.function(number, str(tmp_path), 1), await self.later(number + 3)

    path = tmp_path / "run.rrd"
    with mpr.SharedRecording("app", sinks=path) as recording:
        made = ray.remote(max_restarts=2, max_task_retries=2)(Actor)
        actor = made.remote(recording.wrap(engine_work.die_once), recording.wrap(engine_work.log_later))
        assert ray.get([actor.call.remote(number) for number in range(3)], timeout=120) == [(0, 3), (1, 4), (2, 5)]
    support.check_file(path)
    found = support.numbers(path)
    # A function that was complete when the actor died runs again without rows. Ray begins the calls in any order, and
    # the coroutines of the other calls may not have been complete.
    unsure = Counter({number: found.pop(number) for number in engine_work.numbers_of(3, 5)})
    assert set(unsure) == set(_once(3, 5))
    assert found == _once(0, 1, 2, 4) + Counter(engine_work.numbers_of(1)[:5])
