"""CPython's own tests of `multiprocessing.Pool`, run against `mpr.Pool` with each start method."""

from __future__ import annotations

import itertools
import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import mpr
from mpr.threads import aside
from tests import support
from tests.conformance import cpython

tm = cpython.module("_test_multiprocessing")

_PRIVATE = "reads private attributes of the pool"
_OWN_PROGRAM = "its pools are made by a program of its own, from multiprocessing"

LEFT_OUT: dict[str, dict[str, str]] = {
    "_TestPool": {
        "test_make_pool": _PRIVATE,  # `_pool`
        "test_resource_warning": _PRIVATE,  # `_state`
    },
    "_TestPoolWorkerErrors": {
        "test_unpickleable_result": "its result is a lambda, which mpr can send",
    },
    "_TestPoolWorkerLifetime": {
        "test_pool_worker_lifetime": _PRIVATE,  # `_pool`, `_repopulate_pool`
        "test_worker_finalization_via_atexit_handler_of_multiprocessing": _OWN_PROGRAM,
    },
    "TestInitializers": {
        "test_manager_initializer": "is about managers",
    },
}
# Tests of other test cases that use pools.
NOT_RUN: dict[str, str] = {
    "TestStdinBadfiledescriptor.test_pool_in_process": _OWN_PROGRAM,
    "TestPoolNotLeakOnFailure.test_release_unused_processes": "replaces the inside of the pool by mocks",
    "TestSyncManagerTypes.test_pool": "is about managers",
}
if sys.version_info >= (3, 13):
    NOT_RUN["MiscTestCase.test_large_pool"] = _OWN_PROGRAM


class OnMpr(tm.ProcessesMixin):  # type: ignore[misc, name-defined]  # CPython's tests have no types
    """Replace `multiprocessing.Pool` and `self.Pool` by `mpr.Pool`."""

    start_method: ClassVar[mpr.config.StartMethod]
    folder: ClassVar[Path]
    numbers = itertools.count()

    @classmethod
    def Pool(cls, *args: Any, **kwargs: Any) -> mpr.Pool:
        sink = cls.folder / f"{next(cls.numbers)}.rrd"
        return mpr.Pool("conformance", *args, **kwargs, sinks=sink, start_method=cls.start_method)

    @classmethod
    def setUpClass(cls) -> None:
        # The thread that runs steps for the main thread stays, so it must not count as left over.
        aside(int)
        super().setUpClass()
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.enterClassContext(mock.patch.object(multiprocessing, "Pool", cls.Pool))
        cls.enterClassContext(mock.patch.object(tm.support, "environment_altered", False))

    @classmethod
    def tearDownClass(cls) -> None:
        super().tearDownClass()
        assert not tm.support.environment_altered, "processes or threads are left; their names are on stderr"


def _cases(method: str) -> dict[str, type]:
    names = {f"Test_{method}{name.removeprefix('_')}": name for name in LEFT_OUT}
    return {
        name: cpython.derive(getattr(tm, base), OnMpr, name=name, left_out=LEFT_OUT[base], start_method=method)
        for name, base in names.items()
    }


for _method in support.START_METHODS:
    globals().update(_cases(_method))


# What a pool with an executor of Python does not do, besides `LEFT_OUT`.
LEFT_OUT_WITH_AN_EXECUTOR: dict[str, dict[str, str]] = {
    "_TestPool": {
        **LEFT_OUT["_TestPool"],
        "test_async_timeout": "its task sleeps for long, and a pool cannot kill the workers of an executor",
        "test_terminate": "its tasks sleep for five minutes, and a pool cannot kill the workers of an executor",
        "test_release_task_refs": "the executor keeps the last call until the next one, also without mpr",
    },
    "_TestPoolWorkerErrors": LEFT_OUT["_TestPoolWorkerErrors"],
}


class OnExecutor(OnMpr):
    """Replace `multiprocessing.Pool` and `self.Pool` by `mpr.Pool` with a `ProcessPoolExecutor` as its engine."""

    executors: ClassVar[list[ProcessPoolExecutor]] = []

    @classmethod
    def setUpClass(cls) -> None:
        # This starts the thread that runs steps for the main thread. mpr keeps this thread.
        aside(lambda: None)
        super().setUpClass()

    @classmethod
    def Pool(cls, processes: int | None = None, **kwargs: Any) -> mpr.Pool:
        context = multiprocessing.get_context(cls.start_method)
        executor = ProcessPoolExecutor(processes or 2, context, **kwargs)
        cls.executors.append(executor)
        return mpr.Pool("conformance", engine=executor, sinks=cls.folder / f"{next(cls.numbers)}.rrd")

    @classmethod
    def tearDownClass(cls) -> None:
        while cls.executors:
            cls.executors.pop().shutdown()
        super().tearDownClass()


for _base, _left_out in LEFT_OUT_WITH_AN_EXECUTOR.items():
    _name = f"Test_executor{_base.removeprefix('_')}"
    globals()[_name] = cpython.derive(
        getattr(tm, _base), OnExecutor, name=_name, left_out=_left_out, start_method="forkserver"
    )


def test_every_pool_test_of_cpython_is_run_or_left_out_for_a_reason() -> None:
    about_pools = cpython.tests_about("pool", tm)
    not_ours = {name for name in about_pools if name.partition(".")[0] not in LEFT_OUT}
    assert set(NOT_RUN) == not_ours
