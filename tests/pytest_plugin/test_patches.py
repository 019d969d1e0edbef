"""Whatever a test patches, it has the same outcome as without the plugin, and sees only its own calls."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pytest_plugin import inner

_MPR = inner.ROOT / "mpr"
# The code of mpr that runs while a test runs.
_AT_TEST_TIME = (
    *sorted((_MPR / "pytest_plugin").glob("*.py")),
    *sorted((_MPR / "pytest_plugin" / "recording").glob("*.py")),
    *sorted((_MPR / "sdk").glob("*.py")),
    *sorted((_MPR / "rrd").glob("*.py")),
    _MPR / "sinks" / "active_recording.py",
)
# Modules that tests patch often. Those that the code above imports are added.
_OFTEN = {
    "io", "json", "logging", "os", "os.path", "pathlib", "posix", "rerun", "rerun_bindings", "shutil", "socket",
    "subprocess", "tempfile", "threading", "time", "uuid",
}  # fmt: skip
# Modules whose functions only define types, or without which no test can run.
_LEFT_OUT = {"__future__", "collections", "dataclasses", "typing", "types", "mpr", "pytest", "functools", "inspect"}

# Patches every function of some modules, one for each test, until the test is over. A patched function raises, unless
# pytest calls it. The calls are counted. `kept` has each function that a test has patched, and its calls.
_CONFTEST = """
import json, sys, types
import pytest

kept = {}
patched = []

def is_of_pytest():
    frame = sys._getframe(2)
    while frame is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package in ("_pytest", "pluggy", "pytest", "conftest"):
            return True
        if package == "mpr" or package.startswith("test_"):
            return False
        frame = frame.f_back
    return False

def patch(owner, name, place, error):
    original = owner.__dict__[name]
    function = original.__func__ if isinstance(original, (staticmethod, classmethod)) else original

    def fails(*args, **kwargs):
        if is_of_pytest():
            return function(*args, **kwargs)
        kept[place] += 1
        raise error("patched")

    kept[place] = 0
    setattr(owner, name, type(original)(fails) if function is not original else fails)
    patched.append((owner, name, original))

@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish():
    while patched:
        setattr(*patched.pop())

def pytest_sessionfinish(session):
    if not hasattr(session.config, "workerinput"):
        with open("calls.json", "w") as file:
            json.dump(kept, file)
"""

_TESTS = """
import builtins, importlib, json, logging, types
import pytest
import rerun as rr
import conftest

def functions_of(owner, prefix):
    for name, value in sorted(vars(owner).items()):
        value = getattr(value, "__func__", value)
        if isinstance(value, (types.FunctionType, types.BuiltinFunctionType)) and not name.startswith("__"):
            yield owner, name, f"{{prefix}}.{{name}}"

def places():
    for module in {modules!r}:
        module = importlib.import_module(module)
        yield from functions_of(module, module.__name__)
        for name, value in sorted(vars(module).items()):
            if isinstance(value, type) and value.__module__ == module.__name__ and not issubclass(value, BaseException):
                yield from functions_of(value, f"{{module.__name__}}.{{name}}")
    yield rr.RecordingStream, "log", "rerun.RecordingStream.log"
    yield rr.RecordingStream, "flush", "rerun.RecordingStream.flush"
    yield rr.RecordingStream, "disconnect", "rerun.RecordingStream.disconnect"
    for name in ("open", "__import__", "print"):
        yield builtins, name, f"builtins.{{name}}"

PLACES = {{place: (owner, name) for owner, name, place in places()}}
ERRORS = (pytest.fail.Exception, SystemExit, KeyboardInterrupt, RuntimeError)

@pytest.fixture
def patched(place):
    conftest.patch(*PLACES[place], place, ERRORS[len(place) % len(ERRORS)])

@pytest.mark.parametrize("place", PLACES)
def test_patched(place, patched):
    for step in (
        lambda: logging.getLogger("lib").warning("logged %d", 1),
        lambda: rr.log("row", rr.TextLog("x")),
        lambda: rr.RecordingStream("another"),
    ):
        try:
            step()
        except BaseException:
            pass

def test_last():
    rr.log("last", rr.TextLog("x"))
"""


def _modules() -> list[str]:
    """Return the modules of the standard library and the SDK that mpr imports in code that runs while a test runs."""
    found = set(_OFTEN)
    for path in _AT_TEST_TIME:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                found.add(node.module)
    known = sys.stdlib_module_names | {"rerun", "rerun_bindings"}
    return sorted(each for each in found if each.partition(".")[0] in known - _LEFT_OUT)


def _run(folder: Path, *arguments: str) -> tuple[inner.Run, dict[str, Any]]:
    folder.mkdir()
    (folder / "conftest.py").write_text(_CONFTEST)
    found = inner.run(folder, "-q", *arguments, test_patches=_TESTS.format(modules=_modules()))
    assert (folder / "calls.json").exists(), found.stdout[-3000:] + found.stderr[-3000:]
    return found, json.loads((folder / "calls.json").read_text())


@pytest.mark.parametrize("mode", ["on", pytest.param("retain-on-failure", marks=pytest.mark.slow)])
def test_no_patched_function_is_called(tmp_path: Path, mode: str) -> None:
    without, calls_without = _run(tmp_path / "without", "-p", "no:mpr")
    recorded, calls = _run(tmp_path / "recorded", f"--mpr={mode}")
    assert {"os.getpid", "time.time", "json.dumps", "logging.Logger.callHandlers", "rerun.log"} <= set(calls)
    assert len(calls) > 1000
    assert calls_without == calls
    assert without.reports == recorded.reports
    assert without.code == recorded.code == 0, recorded.stdout[-3000:]
    assert "cannot" not in recorded.stdout
    if mode == "on":
        assert len(recorded.files()) == len(calls) + 1
        recorded.check_files()
        assert {"/last"} == recorded.entities("test_patches.py::test_last")
