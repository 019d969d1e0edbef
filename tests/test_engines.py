"""Real engines: wrapped functions have all rows, and plain tasks of the same workers see what is theirs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mpr
from tests import guests, support

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
