"""Makes a Rerun recording of each test, even of one whose worker crashed: the pytest plugin.

While nothing is recorded (`--mpr=off`), pytest imports only this module, `options.py` and `hookspecs.py`.

With pytest-xdist, each worker has a `Recorder`, and the process in which pytest was started has the `Controller`.
Without pytest-xdist, one process has both.

```
test ─► Recorder ─► file of the test and journal ─► Controller ─► repaired files, folder of the run, summary
```

`Controller.finish` makes a `RecordedTest` of each test, and passes the list to the pictures and the page.

A golden recording has the rows of an earlier run, which were right. The rows of a test are compared with it while the
test still runs. For this, `Recorder.snapshot` writes the rows that the test has logged until then to a file.

A test that uses one of the fixtures in `RECORDED_FIXTURES` is recorded in every mode. If the mode is off, the recording
is removed at the end of the test.
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
    """Add the options of the plugin. pytest calls this hook once per run, even if nothing is recorded."""
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
    """Start to record tests in this process, as the options of the run and the markers of the tests say."""
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
    """Start to record if a test has the marker or uses one of the `RECORDED_FIXTURES`, even if the mode is off."""
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
    """Return the controller, or None if no worker has recorded tests.

    If the options of the run do not ask for recordings, only the run's folder shows that a worker has recorded tests.
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
        # pytest does not call a hook of a plugin that is registered while the hook runs. So the hook of the controller
        # is called here.
        _controller(config).pytest_sessionfinish(exitstatus)


# --- fixtures -------------------------------------------------------------------------------------------------------


@pytest.fixture
def mpr_recording(request: pytest.FixtureRequest) -> rr.RecordingStream:
    """The stream of this test's recording. If the test is not recorded, the stream is disabled."""
    recorder = request.config.stash.get(_RECORDER, None)
    if recorder is not None and recorder.current is not None:
        stream: rr.RecordingStream = recorder.current.stream.public
        return stream
    import rerun

    return rerun.RecordingStream("mpr", default_enabled=False, send_properties=False)


@pytest.fixture
def mpr_artifacts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for files of this test, beside the test's recording.

    If the test is not recorded, the folder is a temporary one.
    """
    recorder = request.config.stash.get(_RECORDER, None)
    if recorder is not None and recorder.current is not None:
        return recorder.artifacts()
    return tmp_path_factory.mktemp("mpr-artifacts")


@pytest.fixture
def mpr_pool(request: pytest.FixtureRequest) -> Iterator[Callable[..., Pool]]:
    """Starts pools whose rows go to this test's recording.

    Call the fixture as `pool = mpr_pool(2)`. The arguments are those of `mpr.Pool` without `application_id`. The pools
    are terminated when the test ends.
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
        # The pool may be terminated now. The rows of each task whose result the test has received are written already,
        # and the test has not waited for the other tasks.
        pool.terminate()


@pytest.fixture
def mpr_golden(request: pytest.FixtureRequest) -> Iterator[Golden]:
    """Compares the rows that this test logs with its golden recording.

    Call the fixture as `mpr_golden()` when all rows are logged. If the test does not call the fixture, the rows are
    compared at the end of the test.
    """
    from mpr.pytest_plugin.golden import Golden

    golden = Golden(request.node, request.config.stash.get(_RECORDER, None))
    yield golden
    golden.at_teardown()
