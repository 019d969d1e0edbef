"""One file from many workers has the same rows as one process writes, checked by the SDK and row by row.

The re-framed file is opened in every way that Rerun has: from front to back, by its manifest, by the catalog server,
and by the viewer.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rerun as rr
from hypothesis import HealthCheck, Phase, given, settings
from rerun.experimental import ViewerClient

import mpr
from mpr.rrd import compat, footer, framing, manifest, wide_footer
from tests import programs, support, tasks, viewers
from tests.programs import TASK_RECORDING, Step

IDS = ("app", "one recording")
_START_TIME = "RecordingInfo:start_time"


@pytest.fixture(scope="module")
def catalog() -> Iterator[Any]:
    """Run a catalog server, and let the SDK cut no chunks by time, because `rerun rrd compare` compares chunks."""
    with pytest.MonkeyPatch.context() as patch, rr.server.Server() as server:
        patch.setenv("RERUN_FLUSH_TICK_SECS", "1000")
        # Merge the columns of small chunks in the way of large ones.
        patch.setattr(footer, "_MERGED_BYTES", 0)
        yield server.client()


def _by_pool(folder: Path, program: list[list[Step]]) -> Path:
    path = folder / "run.rrd"
    # The pool logs nothing about itself.
    with mpr.Pool(IDS[0], 2, sinks=path, recording_id=IDS[1], telemetry=False, telemetry_view=False) as pool:
        done = pool.map(programs.run, enumerate(program), chunksize=1)
    assert done == [len(steps) for steps in program]
    return path


def _alone(folder: Path, program: list[list[Step]], start_time: int) -> None:
    """Write the same files under the same names with one process."""
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        shared = _saved(stack, folder / "run.rrd", *IDS)
        shared.send_recording_start_time_nanos(start_time)
        for number, steps in enumerate(program):
            task_recording = None
            if any(step.in_task_recording for step in steps):
                name = f"{TASK_RECORDING[1]}-{number}"
                task_recording = _saved(stack, folder / f"run-{name}.rrd", TASK_RECORDING[0], name)
            shared.reset_time()
            with shared:
                programs.run((number, steps), task_recording)
            # A worker flushes at the end of a task.
            for stream in (shared, task_recording):
                if stream is not None:
                    stream.flush()


def _saved(stack: contextlib.ExitStack, path: Path, application_id: str, recording_id: str) -> rr.RecordingStream:
    stream = rr.RecordingStream(application_id, recording_id=recording_id, send_properties=False)
    # The SDK keeps times by thread and ids, and earlier streams had the same ids.
    stream.reset_time()
    # A `with` block finishes the file of a stream. So the stream gets its file after the last block.
    storage = stream.binary_stream()

    def finish() -> None:
        data = storage.read(flush=True)
        assert data is not None
        path.write_bytes(data)

    stack.callback(finish)
    return stream


def _start_time(path: Path) -> int:
    for chunk in support.chunks(path):
        batch = chunk.to_record_batch()
        if _START_TIME in batch.schema.names:
            return int(batch.column(_START_TIME)[0].as_py()[0])
    raise AssertionError("the recording has no start time")


def _in_catalog(catalog: Any, path: Path) -> dict[str, set[Any]]:
    """Register the file as a segment of a dataset, and return the times at which the catalog has a row, by timeline.

    These need not be all times of the file: cleared data, and data that static data hides, may have no row there.
    """
    dataset = catalog.create_dataset(path.parent.name)
    try:
        dataset.register([path.as_uri()]).wait(30)
        (entry,) = rr.chunk.RrdReader(path).recordings()
        assert dataset.segment_ids() == [entry.recording_id]
        fields = [field for chunk in support.chunks(path) for field in chunk.to_record_batch().schema]
        timelines = {field.name for field in fields if field.metadata[b"rerun:kind"] == b"index"} - {"log_time"}
        return {
            timeline: set(dataset.reader(index=timeline).to_arrow_table().column(timeline).to_pylist())
            for timeline in timelines
        }
    finally:
        dataset.delete()


def _check_program(catalog: Any, program: list[list[Step]]) -> None:
    with tempfile.TemporaryDirectory(prefix="same-rows-") as name:
        folder = Path(name)
        (folder / "pool").mkdir()
        path = _by_pool(folder / "pool", program)
        _alone(folder / "alone", program, _start_time(path))
        files = sorted(each.name for each in (folder / "alone").iterdir())
        assert sorted(each.name for each in (folder / "pool").iterdir()) == files
        for each in files:
            ours, theirs = folder / "pool" / each, folder / "alone" / each
            support.check_file(ours)
            found, wanted = support.cells(ours, properties=True), support.cells(theirs, properties=True)
            assert (found - wanted, wanted - found) == (Counter(), Counter())
            assert _manifest(ours).sha256 == _manifest_by_sdk(ours).sha256
            compared = support.rerun_cli("rrd", "compare", "--unordered", ours, theirs)
            assert compared.returncode == 0, compared.stderr
        assert _in_catalog(catalog, path) == _in_catalog(catalog, folder / "alone" / path.name)


@given(programs.PROGRAMS)
@settings(
    max_examples=12, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
def test_a_pool_writes_what_one_process_writes(catalog: Any, program: list[list[Step]]) -> None:
    _check_program(catalog, program)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@given(programs.PROGRAMS)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_pool_writes_what_one_process_writes_many_more(catalog: Any, program: list[list[Step]]) -> None:
    _check_program(catalog, program)


def _everything(count: int) -> list[list[Step]]:
    kinds = [*sorted(programs._MAKE), "columns"]
    return [
        [
            Step(kind, f"{kind}/{number}", 7 * number, {"frame": number, "elapsed": number}, is_static, False)
            for kind in kinds
            for is_static in (False, True)
        ]
        for number in range(count)
    ]


def _manifest_by_sdk(path: Path) -> manifest.Manifest:
    """Return the manifest that the SDK makes of the whole file."""
    return compat.manifest_by_sdk(path.read_bytes())


def _manifest(path: Path) -> manifest.Manifest:
    data = path.read_bytes()
    end = framing.frames_of(data)[-1]
    (found,) = manifest.parse(data[end.payload : end.end])
    return found


@pytest.mark.parametrize("merged_bytes", [0, 1 << 20])
def test_the_columns_of_all_workers_are_those_that_the_sdk_finds(
    merged_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even the hash is the same, whether `rerun rrd route` merges them or the SDK does out of chunks."""
    monkeypatch.setattr(footer, "_MERGED_BYTES", merged_bytes)
    described = []
    by_sdk = footer.ManifestMaker._by_sdk
    monkeypatch.setattr(
        footer.ManifestMaker,
        "_by_sdk",
        lambda self, store, places: described.append(places) or by_sdk(self, store, places),
    )
    path = _by_pool(tmp_path, _everything(6))
    assert len(described) == (1 if merged_bytes else 0)
    support.check_file(path)
    expected, found = _manifest_by_sdk(path), _manifest(path)
    assert found.sha256 == expected.sha256
    assert set(wide_footer.merged_columns([found])) == set(wide_footer.merged_columns([expected]))
    assert found.table.num_rows == expected.table.num_rows


def _log_mixed(is_static: bool, go_on: Path | None) -> None:
    rr.set_time("frame", sequence=1)
    if go_on is not None:
        # The outbox of this worker has chunks that come before those of the other worker.
        rr.log("other", rr.Scalars(1.0))
        tasks.wait_for_file(go_on)
    rr.log("mixed", rr.Scalars(1.0), static=is_static)


@pytest.mark.parametrize("merged_bytes", [0, 1 << 20])
@pytest.mark.parametrize("static_first", [False, True])
def test_a_component_that_is_static_in_one_worker_only_is_as_in_its_first_chunk(
    static_first: bool, merged_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footer, "_MERGED_BYTES", merged_bytes)
    path, go_on = tmp_path / "run.rrd", tmp_path / "go_on"
    with mpr.Pool(IDS[0], 2, sinks=path, telemetry=False, telemetry_view=False) as pool:
        last = pool.apply_async(_log_mixed, (not static_first, go_on))
        pool.apply(_log_mixed, (static_first, None))
        go_on.touch()
        last.get(60)
    support.check_file(path)
    assert _manifest(path).sha256 == _manifest_by_sdk(path).sha256


def test_columns_that_rerun_does_not_merge_are_merged_out_of_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: bytes) -> bytes:
        raise OSError("there is no such command")

    monkeypatch.setattr(footer, "_MERGED_BYTES", 0)
    monkeypatch.setattr(wide_footer.programs, "routed", refuse)
    path = _by_pool(tmp_path, _everything(6))
    support.check_file(path)
    assert _manifest(path).sha256 == _manifest_by_sdk(path).sha256


@pytest.mark.skipif(not hasattr(ViewerClient, "get_state"), reason="the viewer of this SDK cannot be asked what it has")
def test_the_viewer_opens_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    viewers.needed(viewers.has_vulkan(), "a Vulkan driver")
    monkeypatch.setenv("RUST_LOG", "off")
    # The viewer reports at most 100 entities.
    path = _by_pool(tmp_path, _everything(3))
    wanted: dict[str, set[str]] = {}
    for chunk in support.chunks(path):
        fields = chunk.to_record_batch().schema
        names = {field.name for field in fields if field.metadata[b"rerun:kind"] == b"data"}
        wanted.setdefault(str(chunk.entity_path), set()).update(names)

    def shown() -> dict[str, set[str]]:
        recordings = client.get_state().recordings
        if len(recordings) != 1:
            return {}
        schema = client.get_recording_schema(recordings[0].store_id)
        return {entity.entity_path: {each.component for each in entity.components} for entity in schema.entities}

    client = ViewerClient.spawn(headless=True, port=viewers.free_port(), executable_path=viewers.program())
    try:
        client.open(str(path))
        support.wait_for(lambda: shown() == wanted, 60)
    finally:
        client.quit()
