"""Whatever a test patches, it has the same outcome as without the plugin, and sees only its own calls."""

from __future__ import annotations

import ast
import json
import re
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

# Patches every function and class of some modules, one for each test, until the test is over. What is patched raises,
# unless pytest calls it. The calls are counted. `kept` has each function that a test has patched, and its calls.
_CONFTEST = """
import json, sys, types
import pytest

kept = {}
patched = []

def is_of_pytest():
    frame = sys._getframe(2)
    while frame is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package in ("_pytest", "pluggy", "pytest"):
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
    if isinstance(original, type):
        # A class, because other code may ask whether an object is an instance of it.
        fails = type(name, (), {"__new__": lambda cls, *args, _call=fails, **kwargs: _call(*args, **kwargs)})
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
                yield module, name, f"{{module.__name__}}.{{name}}"
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


_LOOKS = """
import gc, logging, sys, weakref
import pytest

references = []

def test_properties(request, record_property):
    record_property("own", 1)
    assert request.node.user_properties == [("own", 1)]

def test_logs_an_object():
    class Thing:
        pass
    thing = Thing()
    references.append(weakref.ref(thing))
    logging.getLogger("lib").warning("%s", thing)

def test_the_object_is_gone():
    gc.collect()
    assert references[0]() is None

class Counted(Exception):
    texts = 0
    def __str__(self):
        Counted.texts += 1
        return f"text {Counted.texts}"

@pytest.fixture
def raises_behind():
    yield
    raise Counted

def test_teardown_fails(raises_behind):
    pass

def test_texts_of_the_error():
    assert Counted.texts == TEXTS

def test_handlers_of_pytest(monkeypatch):
    callers = []
    monkeypatch.setattr(logging.StreamHandler, "flush", lambda _: callers.append(sys._getframe(1).f_code.co_filename))
    logging.getLogger("lib").warning("x")
    assert callers == [logging.__file__] * 3

class NoText(logging.Formatter):
    def format(self, record):
        return None

def test_formatter_without_a_text(monkeypatch, caplog):
    for handler in logging.getLogger().handlers:
        monkeypatch.setattr(handler, "formatter", NoText())
    with pytest.raises(TypeError):
        logging.getLogger("lib").warning("x")
"""

# Imports nothing that starts threads.
_BLOCKS = """
import os, signal

def test_waits_for_a_signal_that_it_blocks():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signal.SIGUSR1 in signal.sigpending()
        signal.sigwait({signal.SIGUSR1})
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
"""


def test_a_test_sees_nothing_of_the_plugin(tmp_path: Path) -> None:
    arguments = ("--tb=short", "--showlocals")
    without = inner.run(tmp_path / "counts", *arguments, "-p", "no:mpr", test_x=_LOOKS.replace("TEXTS", "-1"))
    (texts,) = set(re.findall(r"assert (\d+) == -1", without.stdout))
    looks = _LOOKS.replace("TEXTS", texts)
    without = inner.run(tmp_path / "without", *arguments, "-p", "no:mpr", test_x=looks)
    recorded = inner.run(tmp_path / "recorded", *arguments, "--mpr=on", test_x=looks)
    assert {"test_x.py::test_teardown_fails"} == without.failed()
    assert without.reports == recorded.reports, recorded.stdout[-3000:]
    failed = recorded.test("test_x.py::test_teardown_fails")
    assert "failed" == failed["outcome"]
    (report,) = recorded.texts("test_x.py::test_teardown_fails", "failure")
    assert report.startswith("teardown failed")
    assert "Counted" in report


_FIXTURES_THAT_FAIL = """
import pytest
import rerun as rr

@pytest.fixture
def set_up():
    raise ValueError

@pytest.fixture(scope="module")
def set_up_once():
    rr.RecordingStream("app").save("/no/such/folder.rrd")

@pytest.fixture
def torn_down():
    yield
    raise ValueError

@pytest.fixture(scope="module")
def torn_down_once():
    yield
    raise ValueError
"""

# pytest shows the frames of all files if the error was raised in another file than that of the test.
_FAILURES = """
import pytest
import rerun as rr
import rerun_bindings

stream = rr.RecordingStream("app").to_native()

def test_set_up(set_up): pass
def test_set_up_once(set_up_once): pass
def test_torn_down(torn_down): pass

@pytest.mark.parametrize("call", [
    lambda: rerun_bindings.log_arrow_msg("x", {1: 2}, False, stream),
    lambda: rerun_bindings.send_arrow_chunk("x", {}, {"a": 1}, recording=stream),
    lambda: rerun_bindings.send_chunks((int(each) for each in "x"), recording=stream),
    lambda: rerun_bindings.set_time_sequence("x", "y"),
    lambda: rerun_bindings.disable_timeline(1),
    lambda: rerun_bindings.reset_time(1),
    lambda: rerun_bindings.new_recording(),
    lambda: rerun_bindings.disconnect(1),
    lambda: rr.RecordingStream("app").save("/no/such/folder.rrd"),
])
def test_call(call):
    call()

def test_torn_down_once(torn_down_once): pass
"""


def test_a_failure_shows_no_frame_of_the_plugin(tmp_path: Path) -> None:
    files = {"conftest": _FIXTURES_THAT_FAIL, "test_x": _FAILURES}
    arguments = ("-q", "--tb=short", "--showlocals")
    without = inner.run(tmp_path / "without", *arguments, "-p", "no:mpr", **files)
    recorded = inner.run(tmp_path / "recorded", *arguments, "--mpr=on", **files)
    assert len(without.failed()) == 13
    assert without.reports == recorded.reports
    assert without.masked() == recorded.masked()
    # pytest then shows all frames, also its own.
    all_frames = inner.run(tmp_path / "all", "--tb=native", "--mpr=on", "-k", "not call", **files)
    assert "pluggy" in all_frames.stdout
    assert not re.findall(r"File .*/pytest_plugin/recording/.*", all_frames.stdout)


def test_the_signals_of_a_test_do_not_reach_threads_of_the_sdk(tmp_path: Path) -> None:
    found = inner.run(tmp_path, "--mpr=on", test_x=_BLOCKS)
    assert 0 == found.code, found.stdout[-3000:]
