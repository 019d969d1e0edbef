"""Makes the layout of a recording: large views of the user's data, and the views of the pools below.

In the viewer's own layout, each chart of a pool would be as large as a view of the user's data. A state timeline is a
row of coloured states in the viewer, one for each worker that the pools have at a time. If there are 12 state timelines
or more, the views of the pools get more room. The archetypes of an entity are the kinds of data that it has, such as
`Points2D`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpr.blueprint.telemetry_names import (
    BACK_PRESSURE,
    IDLE,
    INSIGHTS,
    LOST,
    POOL_CHARTS,
    ROOT,
    STARTING,
    WORKER_CHARTS,
    WORKERS,
)

if TYPE_CHECKING:
    import rerun.blueprint as rrb


Kinds = Mapping[str, frozenset[str]]

_IMAGES = {"Image", "EncodedImage", "VideoStream", "AssetVideo", "VideoFrameReference"}
_SPATIAL_2D = _IMAGES | {
    "DepthImage", "EncodedDepthImage", "SegmentationImage", "Points2D", "Boxes2D", "LineStrips2D", "Arrows2D",
}  # fmt: skip
_SPATIAL_3D = {
    "Points3D", "Boxes3D", "LineStrips3D", "Arrows3D", "Mesh3D", "Asset3D", "Ellipsoids3D", "Capsules3D", "Cylinders3D",
    "Pinhole", "GridMap",
}  # fmt: skip
# The number of cells in the grid of views. If there are more views, the last cell has tabs with the other views.
_GRID = 6
# The number of lines for which a legend has room.
_LEGEND = 8
# If there are at least this many state timelines, the views of the pools get more room.
_MANY_TIMELINES = 12
_SIGNALS = ("SIGKILL", "SIGTERM", "SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGINT", "SIGHUP")
_GREY, _DARK, _AMBER, _RED = (70, 70, 74), (44, 44, 48), (224, 142, 32), (214, 48, 49)


def blueprint(
    kinds: Kinds,
    timeline: str | None,
    state_timelines: int,
    recorded: frozenset[str],
    user_blueprint: Any = None,
    *,
    pools_visible: bool = True,
) -> rrb.Blueprint:
    """Return the layout of a recording: views of the user's data (or `user_blueprint`), and the views of pools below.

    Parameters
    ----------
    kinds:
        The archetypes of each entity of the user.
    timeline:
        The timeline that the viewer shows first, if `user_blueprint` names no timeline. If None, the viewer chooses.
    state_timelines:
        The number of state timelines: the number of workers that each pool has at a time, added up over all pools.
    recorded:
        The kinds of telemetry that the pools record, as in `mpr.Pool(telemetry=...)`.
    user_blueprint:
        The user's blueprint (or a view or a container), or None. Its views and panels are kept, and replace the views
        that are made from `kinds`. If it has no views, the views are made from `kinds`.
    pools_visible:
        True if the viewer shows the views of the pools, false if it hides them until the user shows them.
    """
    import rerun.blueprint as rrb

    given = user_blueprint
    if given is not None and not isinstance(given, rrb.Blueprint):
        given = rrb.Blueprint(given)
    time_panel = copy.copy(getattr(given, "time_panel", None))
    if time_panel is None:
        time_panel = rrb.TimePanel(state="collapsed" if given is None or given.collapse_panels else None)
    if time_panel.timeline is None:
        time_panel.timeline = timeline
    # If the viewer shows another timeline first, the title names `log_time`, because the state timelines have data only
    # on `log_time`.
    on_ours = time_panel.timeline in (None, "log_time")
    timeline_name = "Workers" if on_ours else "Workers, on the timeline log_time"
    pools = pool_views(recorded, legend=state_timelines <= _LEGEND, visible=pools_visible, timeline_name=timeline_name)
    root = getattr(given, "root_container", None)
    users = [root] if root is not None else _grid(user_views(kinds))
    share = 1.0 if state_timelines < _MANY_TIMELINES else 1.6
    parts: list[Any] = [rrb.Vertical(*users, pools, row_shares=[2.4, share]) if users else pools]
    if given is None:
        return rrb.Blueprint(*parts, rrb.SelectionPanel(state="collapsed"), time_panel)
    panels = ("top_panel", "blueprint_panel", "selection_panel")
    parts += [getattr(given, name) for name in panels if hasattr(given, name)]
    parts.append(time_panel)
    auto_views = given.auto_views and root is not None
    return rrb.Blueprint(*parts, auto_layout=False, auto_views=auto_views, collapse_panels=given.collapse_panels)


def pool_views(recorded: frozenset[str], *, legend: bool, visible: bool, timeline_name: str) -> rrb.Container:
    """Return a container with the views of pools: the state timelines, and beside them tabs with the other views.

    With the kind "resources", the tabs have charts of the workers of all pools. With the kind "pool", they have charts
    of all pools, and the insights of the first pool. They always have a log, which shows the user's text logs too.

    Parameters
    ----------
    recorded:
        The kinds of telemetry that the pools record. Without the kind "workers", there are only the tabs.
    legend:
        True if the charts of workers have a legend.
    visible:
        True if the viewer shows the container, false if it hides the container until the user shows it.
    timeline_name:
        The title of the state timelines.
    """
    import rerun as rr
    import rerun.blueprint as rrb

    states = {STARTING: _DARK, IDLE: _GREY, BACK_PRESSURE: _AMBER, **{LOST.format(name): _RED for name in _SIGNALS}}
    colors = rr.StateConfiguration(values=list(states), colors=list(states.values()))
    plots = rrb.PlotLegend(visible=legend)
    views: list[rrb.View] = []
    if "resources" in recorded:
        views += [
            rrb.TimeSeriesView(origin=f"/{ROOT}/{path}", name=name, plot_legend=plots)
            for path, name in WORKER_CHARTS.items()
        ]
    if "pool" in recorded:
        views += [rrb.TimeSeriesView(origin=f"/{ROOT}/{path}", name=name) for path, name in POOL_CHARTS.items()]
        views.append(rrb.TextDocumentView(origin=f"/{INSIGHTS}/1", name="Insights"))
    views.append(rrb.TextLogView(origin="/", name="Log"))
    if "workers" not in recorded:
        return rrb.Tabs(*views, name=ROOT, visible=visible)
    workers = rrb.StateTimelineView(origin=f"/{WORKERS}", name=timeline_name, defaults=[colors])
    return rrb.Horizontal(workers, rrb.Tabs(*views), column_shares=[3, 2], name=ROOT, visible=visible)


def _grid(views: Sequence[rrb.View]) -> list[Any]:
    import rerun.blueprint as rrb

    if len(views) > _GRID:
        return [rrb.Grid(*views[: _GRID - 1], rrb.Tabs(*views[_GRID - 1 :]))]
    return [rrb.Grid(*views)] if len(views) > 1 else list(views)


def user_views(kinds: Kinds) -> list[rrb.View]:
    """Return the views of the user's data. `kinds` has the archetypes of each entity of the user.

    Entities whose paths have the same first part are one group. A group with 3D data gets a 3D view, and a 2D view for
    each camera. Any other group gets 2D views of its 2D data (`_spaces`). The scalars of a group have one view. Each
    entity with a state, text document, tensor, bar chart, graph or map has a view of its own. Data of other kinds, such
    as text logs, has no view. So the list may be empty.
    """
    import rerun.blueprint as rrb

    spatial: list[rrb.View] = []
    plots: list[rrb.View] = []
    others: list[rrb.View] = []
    for top, entities in sorted(_by_top(kinds).items()):
        in_3d = [path for path in entities if kinds[path] & _SPATIAL_3D]
        in_2d = [path for path in entities if kinds[path] & _SPATIAL_2D]
        scalars = [path for path in entities if "Scalars" in kinds[path]]
        if in_3d:
            spatial.append(rrb.Spatial3DView(origin=top, name=top))
        # In a 3D space, 2D data belongs to a camera, so each camera has a 2D view.
        spaces = [path for path in entities if "Pinhole" in kinds[path]] if in_3d else _spaces(in_2d, kinds)
        spatial += [rrb.Spatial2DView(origin=path, name=path) for path in spaces]
        if scalars:
            origin = _common(scalars)
            plots.append(rrb.TimeSeriesView(origin=origin, name=origin))
    for kind, view in _single_views().items():
        others += [view(origin=path, name=path) for path in sorted(kinds) if kind in kinds[path]]
    return [*spatial, *plots, *others]


def _single_views() -> dict[str, Any]:
    import rerun.blueprint as rrb

    return {
        "StateChange": rrb.StateTimelineView,
        "TextDocument": rrb.TextDocumentView,
        "Tensor": rrb.TensorView,
        "BarChart": rrb.BarChartView,
        "GraphNodes": rrb.GraphView,
        "GeoPoints": rrb.MapView,
    }


def _by_top(paths: Iterable[str]) -> dict[str, list[str]]:
    """Return `paths` grouped by their first part. The keys are the first parts, such as `/camera`."""
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault("/" + _parts(path)[0] if path != "/" else "/", []).append(path)
    return found


def _spaces(paths: Sequence[str], kinds: Kinds) -> list[str]:
    """Return the origins of the 2D views for the 2D entities at `paths`. A view shows all data at and below its origin.

    `kinds` has the archetypes of each entity. If there is at most one image, or if there is data at the common path of
    all entities (`_common`), one view at the common path shows everything. Otherwise, the entities are grouped by the
    next part of their paths, and this function makes the views of each group. The list is empty if `paths` is empty.
    """
    if not paths:
        return []
    common = _common(paths)
    images = [path for path in paths if kinds[path] & _IMAGES]
    if len(images) < 2 or common in paths:
        return [common]
    depth = len(_parts(common))
    below: dict[str, list[str]] = {}
    for path in paths:
        below.setdefault("/".join(["", *_parts(path)[: depth + 1]]), []).append(path)
    return [space for some in sorted(below) for space in _spaces(below[some], kinds)]


def _common(paths: Sequence[str]) -> str:
    """Return the longest entity path that is above or equal to all `paths`; `/` if there is no other."""
    split = [_parts(path) for path in paths]
    common: list[str] = []
    for level in zip(*split, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return "/" + "/".join(common)


def _parts(path: str) -> list[str]:
    """Return the parts of an entity path. A `/` behind a backslash does not end a part. `/` has one empty part."""
    parts: list[str] = []
    for part in path.strip("/").split("/"):
        if parts and parts[-1].endswith("\\"):
            parts[-1] += "/" + part
        else:
            parts.append(part)
    return parts


def bucket(state_timelines: int) -> int:
    """Return 8, 11 or 12: a number of state timelines for which the layout is the same as for `state_timelines`.

    Layouts are cached under this number, because the layout changes only above 8 and above 11 state timelines.
    """
    return next((limit for limit in (_LEGEND, _MANY_TIMELINES - 1) if state_timelines <= limit), _MANY_TIMELINES)
