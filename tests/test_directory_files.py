"""The files of a `DirectorySink`: their names, and the blueprint of the user in each of them."""

from __future__ import annotations

from pathlib import Path

import rerun.blueprint as rrb

import mpr
from mpr.datasets.naming import EpisodeNames
from mpr.datasets.template import NameTemplate
from mpr.rrd import framing, relabel, store_id
from mpr.rrd.segment import MessageBytes, Segment, TaskInfo
from tests import producers, streams, support, tasks


def _task(name: str, number: int = 0) -> TaskInfo:
    return TaskInfo(number=number, name=name, index=0, attempt=1, worker=1, pid=1, started_nanos=1)


def test_no_name_of_a_function_leads_out_of_the_folder() -> None:
    names = EpisodeNames(NameTemplate("{name}.rrd"), "app", "shared.rrd")
    found = [names.name(_task(name)) for name in ("../evil", "<lambda>", "a/b", "\0", "CON", "é.", "日本")]
    assert found == ["_.._evil.rrd", "_lambda_.rrd", "a_b.rrd", "_.rrd", "_CON.rrd", "é_.rrd", "日本.rrd"]


def test_the_file_of_each_task_has_the_blueprint_of_the_user(tmp_path: Path) -> None:
    folder = tmp_path / "episodes"
    blueprint = rrb.Blueprint(rrb.TimeSeriesView(origin="n"))
    with mpr.Pool(
        "app", 1, sinks=mpr.DirectorySink(path=folder, name="{index}.rrd"), start_method="fork", blueprint=blueprint
    ) as pool:
        pool.map(tasks.log_number, range(2), chunksize=1)
    for number in range(2):
        path = folder / f"{number}.rrd"
        support.check_file(path)
        assert framing.BLUEPRINT_ACTIVATION in [frame.kind for frame in framing.frames_of(path.read_bytes())]


def test_ids_of_any_length_are_replaced() -> None:
    """The id of a store is the first part of a chunk, however long it is."""
    long = store_id.store_id("app " * 100, "id" * 1000)
    data = relabel.relabelled(streams.encoded(streams.log_text), long)
    frames = [frame for frame in framing.frames_of(data) if frame.kind != framing.END]
    changed = relabel.Relabeller(long, producers.STORE).segment(Segment(1, MessageBytes(0, data), frames))
    for frame in changed.frames:
        payload = changed.source.read(frame.payload, frame.size)
        assert store_id.store_id_of_chunk(payload) == producers.STORE
