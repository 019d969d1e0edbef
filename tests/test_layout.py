"""The layout of a recording: the views fit what was logged, and a user's own blueprint stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import rerun as rr
import rerun.blueprint as rrb

import mpr
from mpr.blueprint import default
from mpr.telemetry import rows
from mpr.transport import outbox
from tests import support, tasks

_ALL = frozenset(rows.TELEMETRY)


def _made_of(**kinds: str) -> dict[str, frozenset[str]]:
    return {f"/{path.replace('__', '/')}": frozenset(found.split()) for path, found in kinds.items()}


def _views(kinds: dict[str, frozenset[str]]) -> list[tuple[str, str]]:
    return [(str(view.class_identifier), str(view.origin)) for view in default.user_views(kinds)]


@pytest.mark.parametrize(
    ("kinds", "views"),
    [
        (_made_of(), []),
        # Entities below a picture share its view.
        (_made_of(picture="Image", picture__boxes="Boxes2D", picture__mask="SegmentationImage"), [("2D", "/picture")]),
        (_made_of(walker__1="Points2D", walker__2="Points2D"), [("2D", "/walker")]),
        # Several pictures have a view each, with the entities below them.
        (
            _made_of(cam__left="Image", cam__right__raw="Image", cam__right__boxes="Boxes2D"),
            [("2D", "/cam/left"), ("2D", "/cam/right")],
        ),
        (
            _made_of(world__points="Points3D", world__cam="Pinhole Transform3D", world__cam__image="Image"),
            [("3D", "/world"), ("2D", "/world/cam")],
        ),
        (_made_of(stats__loss="Scalars", stats__rate="Scalars SeriesLines", t="Scalars"), [
            ("TimeSeries", "/stats"), ("TimeSeries", "/t"),
        ]),
        (_made_of(text="TextDocument", door="StateChange"), [("StateTimeline", "/door"), ("TextDocument", "/text")]),
        # Nothing of this has a view.
        (_made_of(log="TextLog", other="AnyValues"), []),
    ],
)  # fmt: skip
def test_views_for_what_was_logged(kinds: dict[str, frozenset[str]], views: list[tuple[str, str]]) -> None:
    assert views == _views(kinds)


def test_many_views_are_behind_tabs() -> None:
    kinds = _made_of(**{f"cam{number}": "Image" for number in range(12)})
    (grid,) = default._grid(default.user_views(kinds))
    assert isinstance(grid, rrb.Grid)
    assert 6 == len(grid.contents)
    assert isinstance(grid.contents[-1], rrb.Tabs)
    assert 7 == len(grid.contents[-1].contents)


def test_without_rows_of_the_user_the_pool_fills_the_view() -> None:
    found = default.blueprint({}, "log_time", 2, _ALL)
    assert "mpr" == found.root_container.name


@pytest.mark.parametrize(
    ("own", "state", "timeline", "state_timelines"),
    [
        (None, "collapsed", "log_time", "Workers"),
        (rrb.Blueprint(rrb.Spatial2DView()), None, "log_time", "Workers"),
        (rrb.Blueprint(rrb.Spatial2DView(), collapse_panels=True), "collapsed", "log_time", "Workers"),
        # The state timelines of a pool are only on log_time, so they are empty on another timeline.
        (
            rrb.Blueprint(rrb.Spatial2DView(), rrb.TimePanel(timeline="frame"), collapse_panels=True),
            None, "frame", "Workers, on the timeline log_time",
        ),
    ],
)  # fmt: skip
def test_the_time_panel_of_the_users_blueprint_is_kept(
    own: Any, state: str | None, timeline: str, state_timelines: str
) -> None:
    found = default.blueprint({}, "log_time", 2, _ALL, own)
    assert (state, timeline) == (found.time_panel.state, found.time_panel.timeline)
    pools = found.root_container if own is None else found.root_container.contents[-1]
    assert state_timelines == pools.contents[0].name


def _shown(path: Path) -> list[set[str]]:
    """Return the classes of the views of each blueprint in the file."""
    reader = rr.chunk.RrdReader(path)
    found = []
    for entry in reader.blueprints():
        classes: set[str] = set()
        for chunk in reader.stream(store=entry):
            batch = chunk.to_record_batch()
            if "ViewBlueprint:class_identifier" in batch.schema.names:
                classes |= {value[0] for value in batch.column("ViewBlueprint:class_identifier").to_pylist()}
        found.append(classes)
    return found


def test_a_file_ends_with_a_layout_of_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 2, sinks=path) as pool:
        pool.map(tasks.log_number, range(6))
    support.check_file(path)
    (shown,) = _shown(path)
    assert {"StateTimeline", "TimeSeries", "TextLog", "TextDocument"} == shown


def _refuse(*_: object) -> None:
    raise PermissionError("another container")


@pytest.mark.parametrize("in_messages", [False, True])
def test_a_file_that_a_task_logs_does_not_cost_the_layout(
    in_messages: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The SDK introduces the recording once more in the middle of the outbox, whose first bytes were released."""
    if in_messages:
        monkeypatch.setattr(outbox.OutboxReader, "__init__", _refuse)
    note, other, path = tmp_path / "note.md", tmp_path / "other.rrd", tmp_path / "run.rrd"
    note.write_text("# A note")
    with rr.RecordingStream("another", send_properties=False) as stream:
        stream.save(other)
        stream.log("foreign", rr.TextDocument("text"))
    with mpr.Pool("app", 1, sinks=path) as pool:
        pool.map(tasks.log_number, range(3))
        for file in (note, other):
            pool.apply(tasks.log_file, (file,))
            pool.apply(tasks.log_number, (7,))
    assert "layout" not in caplog.text
    (shown,) = _shown(path)
    assert {"StateTimeline", "TimeSeries", "TextLog", "TextDocument"} == shown


@pytest.mark.parametrize(("beside", "shown"), [(True, {"Dataframe", "StateTimeline"}), (False, {"Dataframe"})])
def test_the_users_own_blueprint_is_kept(tmp_path: Path, beside: bool, shown: set[str]) -> None:
    path = tmp_path / "run.rrd"
    blueprint = rrb.Blueprint(rrb.DataframeView(origin="/n"), rrb.TimePanel(state="hidden"))
    with mpr.Pool("app", 1, sinks=path, blueprint=blueprint, telemetry_view=beside, telemetry=["workers"]) as pool:
        pool.map(tasks.log_number, range(6))
    support.check_file(path)
    found = _shown(path)
    assert shown in [each - {"TextLog"} for each in found]
    assert 1 + beside == len(found)


def test_a_blueprint_that_a_task_sends_replaces_the_default_one(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path) as pool:
        pool.map(tasks.send_blueprint, [0])
        pool.map(tasks.log_number, range(3))
    assert not any("StateTimeline" in shown for shown in _shown(path))


def test_without_telemetry_view_the_view_is_folded(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path, telemetry_view=False) as pool:
        pool.map(tasks.log_number, range(3))
    reader = rr.chunk.RrdReader(path)
    (entry,) = reader.blueprints()
    visible: dict[str, Any] = {}
    for chunk in reader.stream(store=entry):
        batch = chunk.to_record_batch()
        if "ContainerBlueprint:display_name" in batch.schema.names:
            visible |= {
                name[0]: shown[0]
                for name, shown in zip(
                    batch.column("ContainerBlueprint:display_name").to_pylist(),
                    batch.column("ContainerBlueprint:visible").to_pylist(),
                    strict=True,
                )
                if name is not None
            }
    assert {"mpr": False} == visible
