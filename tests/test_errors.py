"""Every error crosses process borders unchanged, and the tree in the docstring is the real one."""

from __future__ import annotations

import inspect
import multiprocessing
import pickle
import re
import signal
import traceback
from typing import Any

import pytest

import mpr
from mpr import CurrentTask, FileSink, GrpcSink, errors
from mpr.errors import MissingDependencyError, MprError, SinkError, TaskTimeoutError, WorkerDiedError, describe_exit

_CLASSES = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, MprError)]
# Examples of errors whose message is made from several arguments.
_ARGUMENTS: dict[type, tuple[Any, ...]] = {
    MissingDependencyError: ("scikit-image", "examples"),
    WorkerDiedError: ("detect[3]", 2, 4711, -signal.SIGSEGV),
    TaskTimeoutError: ("detect[3]", 2, 4711, 1.5),
}


def _example(error: type[MprError]) -> MprError:
    return error(*_ARGUMENTS.get(error, ("what went wrong",)))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("error", _CLASSES)
def test_an_error_is_the_same_after_pickling(error: type[MprError], protocol: int) -> None:
    before = _example(error)
    after = pickle.loads(pickle.dumps(before, protocol))
    assert type(before) is type(after)
    assert (before.args, str(before), vars(before)) == (after.args, str(after), vars(after))


def test_a_sink_error_keeps_its_errno_after_pickling() -> None:
    after = pickle.loads(pickle.dumps(SinkError(28, "cannot write run.rrd")))
    assert (SinkError, 28, "cannot write run.rrd") == (type(after), after.errno, after.strerror)


@pytest.mark.parametrize("error", _CLASSES)
def test_an_error_is_public_and_says_what_it_means(error: type[MprError]) -> None:
    assert error is getattr(mpr, error.__name__)
    assert error.__doc__
    assert str(_example(error))


@pytest.mark.parametrize("error", _CLASSES)
def test_tracebacks_show_an_error_under_its_public_name(error: type[MprError]) -> None:
    (*_, last) = traceback.format_exception_only(_example(error))
    assert last.startswith(f"mpr.{error.__name__}: ")


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_public_classes_and_values_travel_to_processes_and_back(method: str) -> None:
    values = [FileSink(path="run.rrd"), GrpcSink(), CurrentTask(name="detect", index=3), *map(_example, _CLASSES)]
    with multiprocessing.get_context(method).Pool(1) as pool:
        for value in values:
            kind, back = pool.apply(_with_its_class, (value,))
            assert (type(value), type(value)) == (kind, type(back))
            assert str(value) == str(back)


def _with_its_class(value: Any) -> tuple[type, Any]:
    return type(value), value


def test_the_public_errors_are_those_of_the_module() -> None:
    assert {each.__name__ for each in _CLASSES} == {name for name in mpr.__all__ if name.endswith("Error")}


def _drawn() -> dict[str, set[str]]:
    """Return the tree in the module's docstring: each class with its bases."""
    found: dict[str, set[str]] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"([│├└─ ]*)(\w+Error)(?: \(([\w, ]+)\))?(?:  |$)", line)
        if match is None:
            continue
        level = len(match[1]) // 4
        del above[level:]
        found[match[2]] = {*above[-1:], *(match[3].split(", ") if match[3] else [])}
        above.append(match[2])
    return found


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    real = {each.__name__: {base.__name__ for base in each.__bases__ if base is not Exception} for each in _CLASSES}
    assert real == _drawn()


@pytest.mark.parametrize(
    ("exitcode", "expected"),
    [
        (None, "ended in an unknown way"),
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (-signal.SIGKILL, "was killed by SIGKILL (out of memory?)"),
        (-signal.SIGSEGV, "was killed by SIGSEGV"),
        (-signal.SIGTERM, "was killed by SIGTERM"),
        (-1000, "was killed by signal 1000"),
    ],
)
def test_an_exit_code_in_words(exitcode: int | None, expected: str) -> None:
    assert expected == describe_exit(exitcode)


def test_a_worker_died_error_names_the_worker_its_task_and_the_signal() -> None:
    error = WorkerDiedError("detect[3]", 2, 4711, -signal.SIGKILL)
    assert ("detect[3]", 2, 4711, -9) == (error.task, error.worker, error.pid, error.exitcode)
    for words in ("worker 2", "pid 4711", "was killed by SIGKILL", "detect[3]"):
        assert words in str(error)


def test_a_missing_dependency_says_what_to_install() -> None:
    assert "pip install scikit-image (the extra 'examples'" in str(MissingDependencyError("scikit-image", "examples"))


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        ("ConfigError", ValueError),
        ("MissingDependencyError", ImportError),
        ("SinkError", OSError),
        ("PoolClosedError", ValueError),
        ("WrongProcessError", RuntimeError),
        ("UnpicklableTaskError", TypeError),
        ("UnpicklableTaskError", pickle.PicklingError),
    ],
)
def test_an_except_clause_for_the_builtin_error_catches_ours(error: str, builtin: type[Exception]) -> None:
    assert issubclass(getattr(mpr, error), builtin)
