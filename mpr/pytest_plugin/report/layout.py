"""Adds a layout to the recording of a failed test, so that the viewer first shows why the test has failed.

The viewer shows the document of the failure (`recording/test_rows.py`) beside the data of the test, or beside the views
of the blueprint that the test has sent.

Covers: the layout of one recording, and the layout of its picture.
Does not cover: drawing the picture (`pictures.py`).
"""

from __future__ import annotations

import functools
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpr.blueprint import default
from mpr.blueprint.contents import Contents
from mpr.pytest_plugin.options import REPORT, ROOT
from mpr.rrd import append, framing, manifest, store_id
from mpr.sdk import encoder
from mpr.sdk.reader import quiet_reader

if TYPE_CHECKING:
    import rerun.blueprint as rrb

# The share of the width that the document has, and the share of the data.
_SHARES = (2.0, 3.0)
# The component with the id of the outermost container of a blueprint.
_ROOT = "ViewportBlueprint:root_container"
# The share of the height that the data has, and the share of the log.
_HEIGHTS = (4.0, 1.0)


def add_layout(path: Path) -> rrb.Blueprint | None:
    """Add a layout to the recording of a failed test in the file at `path`. Return a layout for its picture.

    The layout of the picture has only the data of the test, and is None if the test has sent a blueprint or has logged
    nothing to show. If the file does not have exactly one recording and at most one blueprint, return None and add
    nothing.

    Raises `FormatError` if the file is damaged or has no footer, and `OSError` if the file cannot be read or changed.
    Raises the errors of the SDK's reader if it cannot read the test's own blueprint.
    """
    with path.open("rb") as file:
        start, size = framing.footer_span(file)
        file.seek(start)
        footer = file.read(size)
    stores = {store for store, _ in manifest.schemas(footer)}
    recordings = [store for store in stores if store_id.is_recording(store)]
    if len(recordings) != 1 or len(stores) > 2:
        return None
    application_id, _ = store_id.ids_of_store(recordings[0])
    if len(stores) == 2:
        (own,) = stores.difference(recordings)
        append.add_stream(path, _beside(application_id, _root(path)), own)
        return None
    contents = Contents(recordings[0])
    contents.note(footer)
    kinds = frozenset(
        (entity, found) for entity, found in contents.snapshot().items() if not f"{entity}/".startswith(f"/{ROOT}/")
    )
    layout, of_picture = _layouts(application_id, kinds)
    append.add_stream(path, layout)
    return of_picture


def _document() -> rrb.View:
    import rerun.blueprint as rrb

    return rrb.TextDocumentView(origin=f"/{REPORT}", name="Why the test failed")


def _root(path: Path) -> uuid.UUID | None:
    """Return the id of the outermost container of the blueprint in the file at `path`; None if there is none.

    If the blueprint was sent several times, the last container counts. Raises the errors of the SDK's reader.
    """
    reader = quiet_reader(path)
    found = None
    for entry in reader.blueprints():
        for chunk in reader.stream(store=entry):
            batch = chunk.to_record_batch()
            if str(chunk.entity_path) == "/viewport" and _ROOT in batch.schema.names:
                cells = [each for each in batch.column(_ROOT).to_pylist() if each]
                found = uuid.UUID(bytes=bytes(cells[-1][0])) if cells else found
    return found


def _beside(application_id: str, root: uuid.UUID | None) -> bytes:
    """Return an encoded blueprint with the document beside the container `root`, or alone if `root` is None.

    `root` is the id of a container in the test's own blueprint. The rows of this container are in the file already, and
    are not encoded again.
    """
    import rerun.blueprint as rrb

    class Existing(rrb.Vertical):
        def _log_to_stream(self, stream: Any) -> None:
            pass

    parts: list[Any] = [_document()]
    if root is not None:
        parts.append(Existing())
        parts[-1].id = root
    blueprint = rrb.Blueprint(rrb.Horizontal(*parts, column_shares=_SHARES[: len(parts)]))
    return encoder.encoded_blueprint(application_id, blueprint)


@functools.lru_cache(maxsize=100)
def _layouts(application_id: str, kinds: frozenset[tuple[str, frozenset[str]]]) -> tuple[bytes, rrb.Blueprint | None]:
    """Return the encoded layout of a recording, and the layout of its picture (None if there is nothing to show).

    `kinds` has pairs of an entity of the test and its archetypes. The last 100 results are kept, because many tests of
    a run may log to the same entities.
    """
    import rerun.blueprint as rrb

    views = default.user_views(dict(kinds))
    log = rrb.TextLogView(origin="/", name="Log")
    beside = rrb.Vertical(rrb.Grid(*views), log, row_shares=_HEIGHTS) if views else log
    blueprint = rrb.Blueprint(
        rrb.Horizontal(_document(), beside, column_shares=_SHARES),
        rrb.BlueprintPanel(state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
        auto_layout=False,
        auto_views=False,
    )
    of_picture = rrb.Blueprint(
        rrb.Grid(*default.user_views(dict(kinds))),
        rrb.TopPanel(state="hidden"),
        rrb.BlueprintPanel(state="hidden"),
        rrb.SelectionPanel(state="hidden"),
        rrb.TimePanel(state="collapsed"),
        auto_layout=False,
        auto_views=False,
    )
    return encoder.encoded_blueprint(application_id, blueprint), of_picture if views else None
