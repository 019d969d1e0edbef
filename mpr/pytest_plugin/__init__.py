"""Makes Rerun recordings of tests, even of a test whose process crashes. This package is mpr's pytest plugin.

These words have a meaning of their own here:

- A run is one call of pytest. Its files lie in one folder, the folder of the run.
- An attempt is one execution of a test, numbered from 0. A plugin such as pytest-rerunfailures may execute a test
  again.
- The phases of a test are setup, call and teardown, as in pytest.
- A worker is a process of pytest-xdist that runs tests. Without pytest-xdist, the only process has the worker name
  `main`.
- A journal is a file to which one process writes events, such as the start and the end of each recorded test.
- A golden recording is a file with the rows that a test should log.
- A stream is an `rr.RecordingStream`. Its handle is the SDK's native object of the same recording.
- The mode (`--mpr=...`) says which tests are recorded, and which recordings are kept (`recording/retention.py`).

```
test ─► Recorder ─► file of the test and journal ─► Controller ─► repaired files, folder of the run, summary
```

The `Recorder` records the tests of one process, and writes the journal of this process. When all tests have ended,
`Controller.finish` reads the journals of all processes, and makes a `RecordedTest` for each recorded attempt. Other
modules of `report` make pictures, a page and a summary from the `RecordedTest` objects. With pytest-xdist, the
`Recorder` objects of the workers record the tests, and the process in which pytest was started has the `Controller`.
Without pytest-xdist, one process has both.

If a test uses the fixture `mpr_golden`, `Recorder.snapshot` copies the rows that the test has logged to a file.
`golden.py` compares this file with the golden recording.

A test that uses a fixture in `RECORDED_FIXTURES` (`options.py`) is recorded in every mode. If the mode alone would not
record this test, its recording is removed at the end of the test. No test is recorded if the environment variable
`RERUN` is `off`, `0` or `false`, or if less than `mpr_min_free_space` (500 MB by default) is free on the disk.

If the mode is `off`, and no test has the marker `mpr` or a fixture in `RECORDED_FIXTURES`, pytest imports only this
module, `options.py` and `hookspecs.py` of this package.

Covers: the options, hooks and fixtures of the plugin, recording tests (`recording`), and the report (`report`).
Does not cover: what pools and child processes do to log into the recording of a test (`mpr.recording`, `mpr.producer`).
May import: all packages of mpr. Only `cli.py` imports this package.
"""

from __future__ import annotations

import importlib.util
import secrets
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    import rerun as rr

    from mpr.pool.pool import Pool
    from mpr.pytest_plugin.golden import Golden
    from mpr.pytest_plugin.options import Settings
    from mpr.pytest_plugin.recording.recorder import Recorder
    from mpr.pytest_plugin.report.controller import Controller

_RECORDER: pytest.StashKey[Recorder] = pytest.StashKey()
_CONTROLLER: pytest.StashKey[Controller] = pytest.StashKey()
_RUN = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    from mpr.pytest_plugin.options import add_options

    add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from mpr.pytest_plugin import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "mpr(mode=..., capture=..., application_id=..., name=...): how a test is recorded; the closest counts",
    )
    config.stash[_RUN] = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    if config.getoption("mpr") not in (None, "off") or (
        config.getoption("mpr") is None and config.getini("mpr") != "off"
    ):
        _activate(config)


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _settings(config: pytest.Config) -> Settings:
    from mpr.pytest_plugin.options import settings_of

    return settings_of(config, config.stash[_RUN])


def _has_sdk() -> bool:
    try:
        return importlib.util.find_spec("rerun") is not None
    except ImportError:
        return False


def _activate(config: pytest.Config) -> None:
    """Register the `Recorder` of this process, and the `Controller` unless this process is a worker.

    Do nothing if a `Recorder` is registered already, or with `--collect-only`. Raises `pytest.UsageError` if the Rerun
    SDK is not installed, or if an option has a value that cannot be used.
    """
    if _RECORDER in config.stash or config.getoption("collectonly", False):
        return
    settings = _settings(config)
    if not _has_sdk():
        raise pytest.UsageError("mpr: tests cannot be recorded without the Rerun SDK: pip install rerun-sdk")
    from mpr.pytest_plugin.recording.recorder import Recorder

    recorder = config.stash[_RECORDER] = Recorder(config, settings)
    config.pluginmanager.register(recorder, "mpr-recorder")
    if not _is_worker(config):
        _controller(config)


def _controller(config: pytest.Config) -> Controller:
    if _CONTROLLER not in config.stash:
        from mpr.pytest_plugin.report.controller import Controller

        config.stash[_CONTROLLER] = Controller(config, _settings(config), config.stash.get(_RECORDER, None))
        config.pluginmanager.register(config.stash[_CONTROLLER], "mpr-controller")
    return config.stash[_CONTROLLER]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start to record if a collected test has the marker `mpr` or uses a fixture in `RECORDED_FIXTURES`.

    Raises `pytest.UsageError` as `_activate` does, and if a marker has a wrong argument. Workers of pytest-xdist do not
    check the markers here.
    """
    marked = [item for item in items if item.get_closest_marker("mpr") is not None]
    if marked and not _is_worker(config):
        from mpr.pytest_plugin.options import test_options

        settings = _settings(config)
        for item in marked:
            test_options(item, settings)
    from mpr.pytest_plugin.options import RECORDED_FIXTURES

    if marked or any(not RECORDED_FIXTURES.isdisjoint(getattr(item, "fixturenames", ())) for item in items):
        _activate(config)


# --- pytest-xdist ---------------------------------------------------------------------------------------------------


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    from mpr.pytest_plugin.options import for_worker

    node.workerinput["mpr"] = for_worker(_settings(node.config))


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: pytest.TestReport) -> None:
    controller = _controller_of_workers(getattr(report, "node", None))
    if controller is not None:
        controller.crashed(crashitem, report)


def _controller_of_workers(node: Any) -> Controller | None:
    """Return the `Controller` of this run, which is made if it is missing.

    `node` is the object of pytest-xdist for one worker, or None. Returns None if `node` is None, or if there is neither
    a `Controller` nor the folder of the run. The first worker that records a test makes this folder.
    """
    config: pytest.Config | None = getattr(node, "config", None)
    if config is None or (_CONTROLLER not in config.stash and not _settings(config).folder.exists()):
        return None
    return _controller(config)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    config = session.config
    may_be_late = (
        not _is_worker(config) and _CONTROLLER not in config.stash and config.pluginmanager.hasplugin("dsession")
    )
    if may_be_late and _settings(config).folder.exists():
        # `_controller` registers the controller only now. pytest does not call the present hook of a plugin that is
        # registered while this hook runs. So the controller's hook is called here.
        _controller(config).pytest_sessionfinish(exitstatus)


# --- fixtures -------------------------------------------------------------------------------------------------------


@pytest.fixture
def mpr_recording(request: pytest.FixtureRequest) -> rr.RecordingStream:
    """Return the `rr.RecordingStream` of this test's recording.

    If the test is not recorded, return a stream that drops all rows. Use the stream only until the test ends, because
    later tests may get the same stream.
    """
    recorder = request.config.stash.get(_RECORDER, None)
    if recorder is not None and recorder.current is not None:
        stream: rr.RecordingStream = recorder.current.stream.public
        return stream
    import rerun

    return rerun.RecordingStream("mpr", default_enabled=False, send_properties=False)


@pytest.fixture
def mpr_artifacts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of an existing folder for files of this test.

    The folder lies beside the test's recording, and has the name of the recording without `.rrd`. It stays even if the
    recording is removed at the end of the test. If the test is not recorded, the folder is a new temporary folder.
    """
    recorder = request.config.stash.get(_RECORDER, None)
    if recorder is not None and recorder.current is not None:
        return recorder.artifacts()
    return tmp_path_factory.mktemp("mpr-artifacts")


@pytest.fixture
def mpr_pool(request: pytest.FixtureRequest) -> Iterator[Callable[..., Pool]]:
    """Yield a function that starts pools. The pools are terminated when the test ends.

    The function has the parameters of `mpr.Pool` without `application_id`: `mpr_pool(2)` returns an `mpr.Pool` with two
    workers. The rows of a pool go to this test's recording, if `sinks` is not given. If the test has the result of a
    task, the rows of this task are recorded. Rows of tasks that are still running when the test ends may be lost.
    """
    import mpr

    pools: list[Pool] = []

    def start(processes: int | None = None, **options: Any) -> Pool:
        recorder = request.config.stash.get(_RECORDER, None)
        application_id = recorder.current.stream.application_id if recorder and recorder.current else "pytest"
        pools.append(mpr.Pool(application_id, processes, **options))
        return pools[-1]

    yield start
    for pool in pools:
        # Terminating loses nothing that the test has waited for. If the test has the result of a task, the rows of
        # this task are written already.
        pool.terminate()


@pytest.fixture
def mpr_golden(request: pytest.FixtureRequest) -> Iterator[Golden]:
    """Yield a function that compares the rows of this test with its golden recording, a file with the expected rows.

    Call `mpr_golden()` when the test has logged all rows. If the rows differ, the test fails. If the test passes
    without this call, the rows are compared in the teardown, which fails if they differ. The parameters of the function
    are those of `Golden.__call__` (`golden.py`), such as `tolerance`.

    The golden recording is the file `__recordings__/<module>/<test>.rrd` beside the test's module. If this file does
    not exist, mpr writes the rows of the test to it. With `--mpr-golden-fail-if-missing` (the default if the
    environment variable `CI` is set), the test fails instead. With `--mpr-golden-update`, mpr writes a golden recording
    that is missing or differs, and the test does not fail.
    """
    from mpr.pytest_plugin.golden import Golden

    golden = Golden(request.node, request.config.stash.get(_RECORDER, None))
    yield golden
    golden.at_teardown()
