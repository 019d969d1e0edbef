"""The public surface: which names exist, that each has a docstring, and what importing them costs."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mpr
from mpr.pool.maps import PoolMaps
from mpr.pool.results import AsyncResult, ResultIterator
from mpr.sinks.base import Sink
from mpr.sinks.viewers import LiveSink

_PUBLIC = [
    "BinaryStreamSink",
    "ConfigError",
    "ConflictError",
    "CurrentTask",
    "DeliveryError",
    "DirectorySink",
    "FileSink",
    "GrpcServerSink",
    "GrpcSink",
    "InitializerError",
    "Insights",
    "JoinError",
    "LiveSinkStatistics",
    "LoggingHandler",
    "MissingDependencyError",
    "MprError",
    "NoViewerError",
    "PictureError",
    "Pool",
    "PoolClosedError",
    "PoolError",
    "PoolExecutor",
    "PoolTerminatedError",
    "RecordingClosedError",
    "RecordingError",
    "RecordingStatistics",
    "SKIPPED",
    "SharedRecording",
    "SinkError",
    "SlowTask",
    "SpawnViewerSink",
    "TaskError",
    "TaskFuture",
    "TaskLoadError",
    "TaskTimeoutError",
    "UnpicklableTaskError",
    "WebViewerSink",
    "WorkerDiedError",
    "WorkerInsights",
    "WorkerStartError",
    "WrongProcessError",
    "__version__",
    "add_arguments",
    "current_task",
    "from_arguments",
    "join",
    "read_runs",
    "task",
]

_METHODS = {
    "Pool": [
        "apply",
        "apply_async",
        "close",
        "executor",
        "imap",
        "imap_unordered",
        "insights",
        "join",
        "map",
        "map_async",
        "shutdown",
        "starmap",
        "starmap_async",
        "submit",
        "terminate",
    ],
    "FileSink": ["compact", "path", "write_footer"],
    "GrpcSink": ["url"],
    "GrpcServerSink": ["bind_ip", "cors_allow_origin", "newest_first", "port", "server_memory_limit"],
    "WebViewerSink": ["bind_ip", "grpc_port", "open_browser", "server_memory_limit", "web_port"],
    "SpawnViewerSink": [
        "detach_process",
        "headless",
        "hide_welcome_screen",
        "memory_limit",
        "port",
        "server_memory_limit",
    ],
    "LiveSinkStatistics": ["connections", "missing_chunks", "sent_chunks", "sink", "state"],
    "RecordingStatistics": [
        "accepted_bytes",
        "accepted_chunks",
        "accepted_rows",
        "counted_rows",
        "live_sinks",
        "lost_rows",
        "processes",
        "rejected_messages",
        "repeated_tasks",
        "torn_processes",
    ],
}


def test_the_public_names_are_these() -> None:
    assert _PUBLIC == sorted(mpr.__all__)
    assert _PUBLIC == sorted(dir(mpr))
    assert len(mpr.__all__) == len(set(mpr.__all__))


def test_the_names_for_type_checkers_are_the_public_ones() -> None:
    """`TYPE_CHECKING` imports and the names that are loaded on first use are written down twice."""
    tree = ast.parse(inspect.getsource(mpr))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = [alias for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    # `as` with the same name is how a type checker knows that it is meant for others.
    assert [(name, name) for name in _PUBLIC if name != "__version__"] == sorted(
        (alias.name, alias.asname) for alias in imported
    )


def test_every_public_name_is_there() -> None:
    for name in mpr.__all__:
        assert getattr(mpr, name) is not None
        if name not in ("__version__", "SKIPPED"):
            assert name == getattr(mpr, name).__name__


def test_another_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="module 'mpr' has no attribute 'Poool'"):
        mpr.Poool  # noqa: B018  # the access is what is tested


@pytest.mark.parametrize(("owner", "names"), _METHODS.items())
def test_the_public_attributes_are_these(owner: str, names: list[str]) -> None:
    found = getattr(mpr, owner)
    attributes = {name for name in [*_own(found), *getattr(found, "__annotations__", ())] if not name.startswith("_")}
    # A sink's interface to mpr itself is not the user's.
    interface = set(dir(LiveSink)) if issubclass(found, Sink) else set()
    assert names == sorted(attributes - interface)


def _own(found: Any) -> dict[str, Any]:
    """Return the attributes of a class or function. The maps of a pool, which are in a base class, are its own, too."""
    return {**(vars(PoolMaps) if found is mpr.Pool else {}), **vars(found)}


def _documented() -> Iterator[tuple[str, Any]]:
    """Yield every public class, and each of its own methods and properties."""
    public = [getattr(mpr, name) for name in mpr.__all__ if name not in ("__version__", "SKIPPED")]
    for each in [*public, AsyncResult, ResultIterator]:
        yield each.__name__, each
        for name, member in _own(each).items():
            if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                yield f"{each.__name__}.{name}", member


@pytest.mark.parametrize(("name", "found"), list(_documented()))
def test_a_public_name_says_what_it_is(name: str, found: Any) -> None:
    # `inspect.getdoc` would take the docstring of a base class if there is none.
    assert found.__doc__, f"{name} has no docstring"


def _modules_after(statement: str) -> set[str]:
    source = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(done.stdout))


_HEAVY = {"zmq", "rerun", "rerun_bindings", "numpy", "pyarrow", "cloudpickle", "psutil", "xxhash", "click"}


@pytest.mark.parametrize("statement", ["import mpr", "from mpr import ConfigError, FileSink"])
def test_importing_mpr_imports_nothing_heavy(statement: str) -> None:
    modules = _modules_after(statement)
    assert "mpr" in modules
    assert set() == _HEAVY & modules


def test_importing_the_pool_does_not_import_the_sdk() -> None:
    """A fork server that must not have the SDK (`preload=False`) and a parent that only looks have no use for it."""
    assert set() == {"rerun", "rerun_bindings", "numpy", "pyarrow"} & _modules_after("from mpr import Pool")


def test_a_fork_server_without_the_sdk_imports_no_module_that_imports_it() -> None:
    assert set() == {"rerun", "rerun_bindings", "numpy", "pyarrow"} & _modules_after("import mpr.worker.preload")


def test_the_api_page_has_every_public_name() -> None:
    page = (Path(mpr.__file__).parent.parent / "docs" / "api.md").read_text()
    # The errors are there as a module.
    names = set(_PUBLIC) - {"__version__"}
    errors = {
        name for name in names if isinstance(found := getattr(mpr, name), type) and issubclass(found, mpr.MprError)
    }
    shown = {line.rpartition(".")[2] for line in page.splitlines() if line.startswith("::: ")}
    assert "::: mpr.errors" in page
    assert names - errors - shown == set()
