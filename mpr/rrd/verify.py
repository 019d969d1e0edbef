"""Makes the row in which a recording says how many rows it has, and checks a finished file against that number.

Covers: the static row `/mpr/rows` of a recording, and the check of a file.
Does not cover: counting rows while the recording is open (`aggregator/row_balance.py`) and recovering files
(`recover.py`).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpr import files
from mpr.errors import SinkError
from mpr.rrd import relabel
from mpr.sdk import encoder, programs, reader

if TYPE_CHECKING:
    import rerun as rr

# The entity whose static row says how many rows with times the recording has.
_ENTITY = "/mpr/rows"


@dataclass(frozen=True, kw_only=True)
class VerifiedRecording:
    """Says how many rows one recording in a file has, and how many it should have.

    Attributes
    ----------
    application_id, recording_id:
        The ids of the recording.
    rows:
        The number of rows with times that the file has. Static rows do not count, because `compact=True` and the SDK's
        own programs drop those that a later row has replaced.
    expected_rows:
        The number of rows with times when mpr closed the recording; None if the file does not say it.
    lost_rows:
        The number of rows that were logged, but are not in the recording, as mpr counted when it closed the recording.
        0 if the file does not say it.
    """

    application_id: str
    recording_id: str
    rows: int
    expected_rows: int | None
    lost_rows: int

    @property
    def is_whole(self) -> bool:
        """True if the file has exactly the expected number of rows with times, and no row was lost.

        False if the file does not say how many rows are expected.
        """
        return self.rows == self.expected_rows and not self.lost_rows


def encoded_count(store: bytes, rows: int, lost_rows: int) -> bytes:
    """Return a stream with one static row, which says how many rows the recording has and how many were lost.

    `store` is the encoded store id of the recording. `rows` counts only rows with times, and not static rows. The row
    is at the entity path `/mpr/rows`.
    """

    def write(stream: rr.RecordingStream) -> None:
        import rerun as rr

        stream.log(_ENTITY, rr.AnyValues(rows=rows, lost_rows=lost_rows), static=True)

    return relabel.relabelled(encoder.encoded_by_sdk(write), store)


def verify(path: Path) -> list[VerifiedRecording]:
    """Read the whole file at `path`, and return the numbers of rows of each recording in it.

    Raises `SinkError` if the file cannot be opened, if `rerun rrd verify` or the SDK's reader finds an error, or if
    `rerun rrd verify` cannot be run.
    """
    try:
        files.check_regular(path, follow=True)
        path.open("rb").close()
        # Another process reads the file first, because a damaged file may abort the process that reads it.
        refused = programs.verify(path)
    except OSError as error:
        raise SinkError(error.errno, f"{path}: {error.strerror or error}") from error
    if refused is not None:
        raise SinkError(f"{path}: {refused}")
    try:
        opened = reader.quiet_reader(path)
        return [_verified(entry, opened.stream(store=entry)) for entry in opened.recordings()]
    except (RuntimeError, ValueError) as error:
        # `rerun rrd verify` accepts some files that the SDK's reader refuses, such as an empty one.
        raise SinkError(f"{path}: {error}") from error


def _verified(entry: Any, chunks: Any) -> VerifiedRecording:
    rows, numbers = 0, {}
    for chunk in chunks:
        if str(chunk.entity_path) == _ENTITY:
            numbers = _numbers(chunk)
        if not chunk.is_static:
            rows += chunk.num_rows
    return VerifiedRecording(
        application_id=entry.application_id,
        recording_id=entry.recording_id,
        rows=rows,
        expected_rows=numbers.get("rows"),
        lost_rows=numbers.get("lost_rows", 0),
    )


def _numbers(chunk: Any) -> dict[str, int]:
    """Return the first value of each component in the last row of `chunk` as an integer, by the component's name.

    A component without such a value is left out.
    """
    batch, found = chunk.to_record_batch(), {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        with contextlib.suppress(IndexError, TypeError, ValueError):
            found[name.rpartition(":")[2]] = int(column[-1].as_py()[0])
    return found
