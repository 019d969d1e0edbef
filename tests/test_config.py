"""Values that a user may choose. The message for any other value names it and says what is possible."""

from __future__ import annotations

import os
import pickle
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import rerun as rr
import rerun.blueprint as rrb

import mpr
from mpr import limits
from mpr.errors import ConfigError
from mpr.pool import options
from mpr.processes import start
from mpr.recording.options import check_application_id, check_recording_id
from mpr.sinks.file import FileSink
from mpr.sinks.parse import as_sinks
from mpr.sinks.viewers import GrpcServerSink, GrpcSink, SpawnViewerSink, WebViewerSink
from mpr.transport.connection_info import ConnectionInfo
from tests import support


@pytest.mark.parametrize(
    ("check", "value", "words"),
    [
        (check_application_id, None, ["None", "mpr.Pool('my_app'"]),
        (check_application_id, 5, ["5", "mpr.Pool('my_app'"]),
        (check_application_id, b"app", ["b'app'", "must be a str"]),
        (check_application_id, Path("app"), ["app", "must be a str"]),
        (check_application_id, "", ["''", "1 to 180 ASCII letters"]),
        (check_application_id, "a" * 181, ["1 to 180 ASCII letters"]),
        (check_application_id, "größe", ["'größe'", "ASCII"]),
        (check_application_id, "a/b", ["'a/b'", "letters, digits, spaces and _ - [ ] :"]),
        (check_application_id, "app\n", ["'app\\n'"]),
        (check_recording_id, "", ["1 to 1000 characters"]),
        (check_recording_id, "x" * 1001, ["1 to 1000 characters", "1001"]),
        (start.check_processes, 0, ["at least 1", "got 0"]),
        (start.check_processes, -3, ["at least 1", "got -3"]),
        (start.check_processes, True, ["number of workers or None", "True"]),
        (start.check_processes, 2.0, ["number of workers or None", "2.0"]),
        (start.check_processes, "2", ["number of workers or None", "'2'"]),
        (options.check_maxtasksperchild, 0, ["None or a number of tasks >= 1", "got 0"]),
        (options.check_maxtasksperchild, -1, ["None or a number of tasks >= 1", "got -1"]),
        (options.check_maxtasksperchild, True, ["None or a number of tasks >= 1", "got True"]),
        (options.check_maxtasksperchild, 1.5, ["None or a number of tasks >= 1", "got 1.5"]),
        (options.check_maxtasksperchild, "3", ["None or a number of tasks >= 1", "got '3'"]),
    ],
)
def test_a_value_that_cannot_be_used_is_named_in_the_error(
    check: Callable[[object], Any], value: object, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        check(value)
    assert [] == [word for word in words if word not in str(caught.value)]


@pytest.mark.parametrize("value", ["a", "my_app", "My App [1]: two-three", "a" * 180])
def test_an_application_id_that_rerun_keeps_is_kept(value: str) -> None:
    assert value == check_application_id(value)


def test_a_recording_id_is_the_users_or_a_fresh_one() -> None:
    assert "run-1" == check_recording_id("run-1")
    one = uuid.uuid4()
    assert str(one) == check_recording_id(one)
    assert check_recording_id(None) != check_recording_id(None)


def test_a_number_of_workers_is_the_users_or_that_of_the_usable_cpus() -> None:
    assert 3 == start.check_processes(3)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert usable == start.check_processes(None)


def test_a_limit_of_tasks_is_the_users_or_none() -> None:
    assert (None, 1, 50) == tuple(options.check_maxtasksperchild(value) for value in (None, 1, 50))


def test_all_outboxes_together_keep_to_the_total_as_long_as_each_has_the_least() -> None:
    assert limits.OUTBOX_MAX_BYTES == limits.outbox_limit(1)
    assert limits.OUTBOX_TOTAL_BYTES == 16 * limits.outbox_limit(16)
    assert limits.OUTBOX_MIN_BYTES == limits.outbox_limit(1000)


def test_the_repr_of_a_connection_info_does_not_have_the_secret() -> None:
    shown = repr(
        ConnectionInfo(
            application_id="app", recording_id="id", folder=Path("/f"), upstream="u", downstream="d", secret="secret"
        )
    )
    assert "secret" not in shown
    assert "application_id='app'" in shown


_URL = "rerun+http://127.0.0.1:9876/proxy"


# --- sinks --------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("sinks", "words"),
    [
        ([], ["empty", "all data would be lost", "None for a new file"]),
        ((), ["empty"]),
        (5, ["5 is no sink", "mpr.FileSink('run.rrd')"]),
        ({"run.rrd"}, ["is no sink: give a path", "run.rrd"]),
        ([5], ["5 is no sink", "mpr.FileSink('run.rrd')"]),
        ("outdir", ["'outdir' does not say", "'outdir.rrd'", "'outdir/'", "mpr.FileSink('outdir')"]),
        (Path("out.bin"), ["'out.bin' does not say", "'out.rrd'", "'out/'"]),
        (b"out.rrd", ["is no sink"]),
        ("serve", ["MPR_SINKS", "mpr.GrpcServerSink()"]),
        ("web:8000", ["MPR_SINKS", "mpr.WebViewerSink()"]),
        (FileSink, ["mpr.FileSink is a class", "call it"]),
        ([WebViewerSink], ["mpr.WebViewerSink is a class", "call it"]),
        (rr.FileSink("other.rrd"), ["FileSink of the Rerun SDK", "mpr.FileSink('run.rrd')"]),
        ([rr.GrpcSink()], ["GrpcSink of the Rerun SDK", "mpr.GrpcSink('rerun+http://<host>:<port>/proxy')"]),
        ([rr.GrpcServerSink], ["GrpcServerSink of the Rerun SDK", "mpr.GrpcServerSink(port=9876)"]),
        (rr.BinaryStream, ["BinaryStream of the Rerun SDK", "mpr.BinaryStreamSink()"]),
        ([None], ["None is no sink"]),
        ([b"run.rrd"], ["b'run.rrd' is no sink"]),
        (b"run.rrd", ["is no sink"]),
        ("folder", ["'folder' is a folder", "'folder/'"]),
        ([""], ["needs the path of a file such as 'run.rrd'", "''"]),
        (["run.rrd", "https://example.org/run.rrd"], ["https://example.org/run.rrd", "unknown scheme 'https'", _URL]),
        ("rerun+http://127.0.0.1:9876", ["does not end with '/proxy'", _URL]),
        ("rerun+http://127.0.0.1:9876/run.rrd", ["does not end with '/proxy'", _URL]),
        ("rerun+http://127.0.0.1/proxy", ["lacks a host or a port", _URL]),
        ("rerun+http://:9876/proxy", ["lacks a host or a port", _URL]),
        ("rerun+http://127.0.0.1:99999/proxy", ["no URL of a viewer", "0-65535", _URL]),
        ([_URL, GrpcSink()], ["two sinks", "port 9876 of 127.0.0.1"]),
        ([_URL, "rerun+http://localhost:9876/proxy"], ["two sinks", "port 9876"]),
        ([GrpcSink(), GrpcServerSink()], ["two sinks", "port 9876"]),
        ([GrpcServerSink(bind_ip="0.0.0.0"), WebViewerSink()], ["two sinks", "port 9876"]),
        ([GrpcServerSink(port=9090), WebViewerSink()], ["two sinks", "port 9090"]),
        (["run.rrd", "run.rrd"], ["two sinks", "run.rrd"]),
        (["run.rrd", "./run.rrd"], ["two sinks", "run.rrd"]),
        (["run.rrd", "folder/../run.rrd"], ["two sinks", "run.rrd"]),
        ([FileSink(path="run.rrd"), Path("run.rrd")], ["two sinks", "run.rrd"]),
    ],
)
def test_sinks_that_cannot_be_used_are_named_in_the_error(sinks: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        as_sinks(sinks, "app", "id")
    assert [] == [word for word in words if word not in str(caught.value)]


def test_a_file_given_relative_and_absolute_is_one_file(working_directory: Path) -> None:
    with pytest.raises(ConfigError, match="two sinks"):
        as_sinks(["run.rrd", working_directory / "run.rrd"], "app", "id")


def test_a_file_given_through_a_link_to_its_folder_is_one_file(working_directory: Path) -> None:
    (working_directory / "link").symlink_to("folder")
    with pytest.raises(ConfigError, match="two sinks"):
        as_sinks(["folder/run.rrd", "link/run.rrd"], "app", "id")


@pytest.mark.parametrize("path", ["", 5, None, b"run.rrd", "folder", Path("folder"), "https://example.org/run.rrd"])
def test_a_file_sink_wants_the_path_of_a_file(path: Any) -> None:
    with pytest.raises(ConfigError):
        mpr.FileSink(path=path)


def test_the_path_or_url_may_be_the_first_argument_as_in_the_sdk() -> None:
    assert FileSink(path="run.rrd") == FileSink("run.rrd")
    assert GrpcSink(url=_URL) == GrpcSink(_URL)
    assert mpr.DirectorySink(path="runs", name="{task}.rrd") == mpr.DirectorySink("runs", name="{task}.rrd")
    with pytest.raises(TypeError, match="positional"):
        FileSink("run.rrd", False)  # type: ignore[misc]  # this error is tested


@pytest.mark.parametrize(
    ("blueprint", "words"),
    [
        (7, ["7 is no blueprint", "a view or a container"]),
        ("layout.rbl", ["'layout.rbl' is no blueprint"]),
        ([rrb.Spatial3DView()], ["is no blueprint"]),
        (rrb.Spatial3DView, ["is no blueprint: call it, as in Spatial3DView(...)"]),
    ],
)
def test_a_wrong_blueprint_is_refused_before_a_process_starts(
    blueprint: Any, words: list[str], working_directory: Path
) -> None:
    children = set(psutil.Process().children(recursive=True))
    with pytest.raises(ConfigError) as caught:
        mpr.Pool("app", 1, sinks="new/run.rrd", blueprint=blueprint)
    assert [] == [word for word in words if word not in str(caught.value)]
    assert children == set(psutil.Process().children(recursive=True))
    assert not (working_directory / "new").exists()


def test_the_folder_of_a_file_is_made(working_directory: Path) -> None:
    with mpr.SharedRecording("app", sinks="a/b/run.rrd") as recording:
        recording.stream.log("x", rr.TextLog("y"))
    support.check_file(working_directory / "a/b/run.rrd")
    # A folder that cannot be made is an error that names it.
    (working_directory / "file").write_text("")
    with pytest.raises(mpr.SinkError, match=r"cannot make the folder .*file/sub"):
        mpr.SharedRecording("app", sinks="file/sub/run.rrd")


@pytest.mark.parametrize("sinks", ["run.rrd", Path("run.rrd"), FileSink(path="run.rrd")])
def test_a_single_sink_needs_no_list(sinks: Any) -> None:
    (sink,) = as_sinks(sinks, "app", "id")
    assert Path("run.rrd") == Path(sink.path)


def test_several_files_are_as_many_sinks() -> None:
    sinks = as_sinks(["a.rrd", Path("b.rrd"), FileSink(path="folder/a.rrd")], "app", "id")
    assert [Path("a.rrd"), Path("b.rrd"), Path("folder/a.rrd")] == [Path(sink.path) for sink in sinks]


def test_without_sinks_a_new_file_in_the_working_directory_is_named_after_the_recording(
    working_directory: Path,
) -> None:
    (sink,) = as_sinks(None, "My App: [1]", "0123456789abcdef")
    path = Path(sink.path)
    assert working_directory == path.parent
    assert path.name.startswith("My_App__[1]-")
    assert path.name.endswith("-01234567.rrd")


def test_a_recording_id_with_slashes_still_gives_a_file_in_the_working_directory(working_directory: Path) -> None:
    (sink,) = as_sinks(None, "app", "../a/b")
    assert working_directory == Path(sink.path).parent
    assert Path(os.path.normpath(sink.path)) == Path(sink.path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GrpcSink(url=5), ["GrpcSink needs a URL", "5", _URL]),  # type: ignore[arg-type]  # what is tested
        (lambda: GrpcServerSink(port=65536), ["port must be a port from 1 to 65535, or 0", "65536"]),
        (lambda: GrpcServerSink(port=-1), ["port must be", "-1"]),
        (lambda: GrpcServerSink(port=True), ["port must be", "True"]),
        (lambda: GrpcServerSink(port="9876"), ["port must be", "'9876'"]),  # type: ignore[arg-type]  # what is tested
        (lambda: GrpcServerSink(bind_ip="example.org"), ["bind_ip must be an address", "'example.org'"]),
        (lambda: GrpcServerSink(server_memory_limit="much"), ["server_memory_limit", "'512MB'", "'much'"]),
        (lambda: GrpcServerSink(server_memory_limit=5), ["server_memory_limit", "5"]),  # type: ignore[arg-type]  # as above
        (lambda: GrpcServerSink(cors_allow_origin="*"), ["cors_allow_origin must be a list"]),  # type: ignore[arg-type]  # as above
        (lambda: WebViewerSink(web_port=70000), ["web_port", "70000"]),
        (lambda: WebViewerSink(grpc_port=70000), ["grpc_port", "70000"]),
        (lambda: WebViewerSink(web_port=9000, grpc_port=9000), ["two ports", "9000"]),
        (lambda: SpawnViewerSink(port=1.5), ["port must be", "1.5"]),  # type: ignore[arg-type]  # as above
        (lambda: SpawnViewerSink(memory_limit=""), ["memory_limit", "''"]),
    ],
)
def test_a_live_sink_with_a_bad_value_is_an_error_at_construction(make: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert [] == [word for word in words if word not in str(caught.value)]


def test_sinks_with_free_ports_do_not_conflict() -> None:
    free = [GrpcServerSink(port=0), GrpcServerSink(port=0), SpawnViewerSink(), SpawnViewerSink()]
    assert tuple(free) == as_sinks(free, "app", "id")


@pytest.mark.parametrize("sink", [GrpcSink(), GrpcServerSink(), WebViewerSink(), SpawnViewerSink()])
def test_live_sinks_are_values_that_pickle(sink: Any) -> None:
    assert sink == pickle.loads(pickle.dumps(sink))
    assert hash(sink) == hash(pickle.loads(pickle.dumps(sink)))
    with pytest.raises(AttributeError):
        sink.port = 5
