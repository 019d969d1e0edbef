"""CPython's own tests of `concurrent.futures.ProcessPoolExecutor`, run against `mpr.Pool(...).executor`."""

from __future__ import annotations

import itertools
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar
from unittest import mock

import pytest

import mpr
from tests.conformance import cpython

tcf = cpython.module("test_concurrent_futures")

# A package of several modules since Python 3.12.
_MODULES: list[ModuleType] = (
    [
        cpython.module(f"test_concurrent_futures.{name}")
        for name in (
            "test_process_pool",
            "test_shutdown",
            "test_wait",
            "test_as_completed",
            "test_deadlock",
            "test_init",
        )
    ]
    if hasattr(tcf, "__path__")
    else [tcf]
)


def _named(name: str) -> Any:
    """Find `name` in any module of CPython's tests."""
    return next(getattr(module, name) for module in _MODULES if hasattr(module, name))


_PRIVATE = "reads private attributes of the executor"

LEFT_OUT: dict[str, dict[str, str]] = {
    "ProcessPoolExecutorTest": {
        "test_idle_process_reuse_multiple": _PRIVATE,  # `_processes`
        "test_idle_process_reuse_one": _PRIVATE,  # `_processes`
        "test_killed_child": _PRIVATE,  # `_processes`
        "test_max_tasks_per_child": _PRIVATE,  # `_processes`
        "test_max_tasks_per_child_defaults_to_spawn_context": _PRIVATE,  # `_mp_context`
        "test_max_workers_negative": "wants the words of ProcessPoolExecutor",
        "test_max_workers_too_large": "is about Windows",
        "test_saturation": _PRIVATE,  # `_processes`
        "test_traceback": "wants a class of its own for the cause; ours is that of multiprocessing.Pool",
    },
    "ProcessPoolShutdownTest": {
        "test_cancel_futures": "wants that a task has begun, where all were cancelled before a worker was there",
        "test_hang_gh83386": "its program does not work with processes; `tests/test_odd_uses.py` has one that does",
        "test_interpreter_shutdown": "wants that the end of the program waits for a pool that nobody has closed",
        "test_submit_after_interpreter_shutdown": "wants the words of ProcessPoolExecutor",
        "test_context_manager_shutdown": _PRIVATE,  # `_processes`
        "test_del_shutdown": _PRIVATE,  # `_processes`
        "test_processes_terminate": _PRIVATE,  # `_processes`
        "test_shutdown_no_wait": _PRIVATE,  # `_processes`
    },
    "WaitTests": {},
    "AsCompletedTests": {},
    "ExecutorDeadlockTest": {
        "test_error_during_result_pickle_on_worker": "wants the error itself; ours is that of multiprocessing.Pool",
        "test_shutdown_deadlock_pickle": _PRIVATE,  # `_executor_manager_thread`
    },
    "InitializerMixin": {},
}


# For tests that expect BrokenProcessPool: a pool of mpr goes on, and says what happened to the task.
INSTEAD_OF_BROKEN: dict[str, type[BaseException]] = {
    "test_crash_at_task_unpickle": mpr.WorkerDiedError,
    "test_crash_big_data": mpr.WorkerDiedError,
    "test_crash_during_func_exec_on_worker": mpr.WorkerDiedError,
    "test_crash_during_result_pickle_on_worker": mpr.WorkerDiedError,
    "test_shutdown_deadlock": mpr.WorkerDiedError,
    "test_error_at_task_unpickle": mpr.TaskLoadError,
    "test_exit_at_task_unpickle": mpr.TaskLoadError,
    "test_error_during_result_unpickle_in_result_handler": mpr.TaskError,
    "test_exit_during_result_unpickle_in_result_handler": mpr.TaskError,
}
if hasattr(_named("ProcessPoolExecutorTest"), "test_python_finalization_error"):
    # Python 3.12 and later.
    LEFT_OUT["ProcessPoolExecutorTest"]["test_python_finalization_error"] = "lets the executor's threads fail, not ours"


class OnMpr(_named("ExecutorMixin"), _named("BaseTestCase")):  # type: ignore[misc]  # CPython's tests have no types
    """Replace the executor of a test by that of an `mpr.Pool`."""

    start_method: ClassVar[mpr.config.StartMethod]
    folder: ClassVar[Path]
    numbers = itertools.count()

    @classmethod
    def executor_type(
        cls,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Any = None,
        initargs: Any = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> mpr.pool.PoolExecutor:
        pool = mpr.Pool(
            "conformance",
            max_workers,
            initializer,
            initargs,
            max_tasks_per_child,
            sinks=cls.folder / f"{next(cls.numbers)}.rrd",
            start_method=mp_context.get_start_method(),
        )
        return pool.executor

    @property
    def ctx(self) -> str:
        return self.start_method

    def setUp(self) -> None:
        module = sys.modules[_named("ExecutorDeadlockTest").__module__]
        instead = INSTEAD_OF_BROKEN.get(self._testMethodName, module.BrokenProcessPool)
        self.enterContext(mock.patch.object(module, "BrokenProcessPool", instead))
        super().setUp()

    @classmethod
    def setUpClass(cls: Any) -> None:
        super().setUpClass()
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        # The first large message makes pyzmq start a thread that stays. So it is sent before tests count threads.
        with mpr.Pool("conformance", 1, sinks=cls.folder / "first.rrd") as pool:
            pool.apply(len, (bytes(1_000_000),))
        del pool
        # CPython counts the threads that still exist. Fewer at the end than at the start is a fault too.
        tcf.support.gc_collect()
        cls.enterClassContext(mock.patch.object(tcf.support, "environment_altered", False))

    @classmethod
    def tearDownClass(cls: Any) -> None:
        super().tearDownClass()
        assert not tcf.support.environment_altered, "processes or threads are left; their names are on stderr"


def _cases(method: str) -> dict[str, type]:
    names = {f"Test_{method}{name}": name for name in LEFT_OUT}
    cases = {
        name: cpython.derive(_named(base), OnMpr, name=name, left_out=LEFT_OUT[base], start_method=method)
        for name, base in names.items()
    }
    if method != "forkserver":
        # These tests mostly wait.
        cases = {name: pytest.mark.slow(case) for name, case in cases.items()}
    return cases


# Without "spawn": five interpreters that import Rerun take seconds on few cores, and some tests allow 5 s.
for _method in ("forkserver", "fork"):
    globals().update(_cases(_method))
