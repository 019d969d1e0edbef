"""Each private name of the SDK may be gone in a later release: the list says what follows, and nothing else does."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import rerun

import mpr
from mpr.rrd import compat
from mpr.sdk import private_names

_ROOT = Path(mpr.__file__).parent.parent

_ENTRIES_WITH_A_PREFIX = {
    "log_arrow_msg", "send_arrow_chunk", "send_chunks", "LazyChunkStreamInternal.send_to_recording",
    "_UrdfTreeInternal.log", "log_file_from_path", "log_file_from_contents",
}  # fmt: skip
_TIMES = {
    "set_time_sequence", "set_time_duration_nanos", "set_time_timestamp_nanos_since_epoch", "disable_timeline",
    "reset_time",
}  # fmt: skip
_TRIED_SINKS = {"save", "set_sinks", "memory_recording", "binary_stream", "disconnect", "shutdown"}

#: The promises of `tests/without_names.py` that do not hold without a name. Without any other name all of them hold.
_BROKEN: dict[str, set[str]] = {
    **{name: {"prefix"} for name in _ENTRIES_WITH_A_PREFIX},
    **{name: {"times of a caller"} for name in _TIMES},
    **{name: {"rows after a sink call"} for name in _TRIED_SINKS},
    "send_recording_name": {"the name"},
    "send_recording_start_time_nanos": {"the start"},
    "new_recording": {"rr.init", "a recording of its own"},
    "flush_and_cleanup_orphaned_recordings": {"rr.init"},
    "finalize_deferred_sinks": {"rows after a with block"},
}


def test_without_a_name_only_that_follows_which_the_list_says(tmp_path: Path) -> None:
    names = ["nothing", *private_names.NAMES]
    command = [sys.executable, "-W", "ignore", "-m", "tests.without_names", str(tmp_path), *names]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=_ROOT)
    assert ran.returncode == 0, ran.stderr
    found = {line["name"]: line for line in map(json.loads, ran.stdout.splitlines())}
    assert {name: line["error"] for name, line in found.items() if "error" in line} == {}
    assert {name: set(line["broken"]) for name, line in found.items() if line["broken"]} == _BROKEN
    # The parent says once which names it lacks.
    assert {name for name, line in found.items() if not line["warned"]} == {"nothing"}
    assert set(names) == set(found)


def test_the_installed_sdk_has_every_name() -> None:
    assert private_names.missing() == []
    assert private_names.untested_version() is None
    assert compat.format_is_known() is None


def test_only_the_list_reads_the_native_module() -> None:
    importing = {
        path.relative_to(_ROOT).as_posix()
        for path in (_ROOT / "mpr").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        and any(name.startswith("rerun_bindings") for name in [getattr(node, "module", None) or "", *_names(node)])
    }
    assert importing == {"mpr/sdk/private_names.py"}
    # An attribute with an underscore would be a private name of a Python class.
    with pytest.raises(KeyError):
        private_names.find("version")


def _names(node: ast.Import | ast.ImportFrom) -> list[str]:
    return [each.name for each in node.names]


def test_the_tested_releases_are_the_same_everywhere() -> None:
    (first_major, first), (major, below) = private_names.TESTED_FROM, private_names.TESTED_BELOW
    wanted = f">={first_major}.{first},<{major}.{below}"
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    every = [*project["dependencies"], *project["optional-dependencies"]["notebook"]]
    assert [each for each in every if each.startswith("rerun-sdk")] == [
        f"rerun-sdk{wanted}",
        f"rerun-sdk[notebook]{wanted}",
    ]
    assert f"({private_names.tested_versions()} are tested)" in (_ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("version", "is_tested"), [("0.39.0", True), ("0.41.7", True), ("0.42.0-alpha.1", False), ("1.0", False)]
)
def test_a_release_that_is_not_tested_is_named_once(
    version: str, is_tested: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rerun, "__version__", version)
    private_names.warn_once.cache_clear()
    private_names.warn_once()
    private_names.warn_once()
    assert len(caplog.records) == (0 if is_tested else 1)
    assert is_tested or f"tested with rerun-sdk 0.39 to 0.41, and this is {version}" in caplog.text
