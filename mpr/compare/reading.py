"""Reads the cells of a recording, so that they can be compared.

A cell has the values of one component of one entity in one row. For each component of each entity, all cells with times
are one series, and all static cells are another series.

Covers: the cells of a file, their times and types, and finding files that the SDK cannot read.
Does not cover: how cells are compared (`compare.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpr.errors import FormatError, RecordingError

if TYPE_CHECKING:
    import pyarrow as pa


# The place of a cell in a `Series`: the index of an array in `arrays`, and the index of a row in that array.
Place = tuple[int, int]


@dataclass
class Series:
    """Holds all cells with times of one component of one entity, or all its static cells.

    Attributes
    ----------
    type:
        The Arrow type of the values in the first chunk, as text without "not null".
    arrays:
        For each chunk (a table with rows of one entity): an array with a list of values for each row that has the
        component.
    times:
        For each array: the times of its rows, by the name of the timeline. A time is a sequence number or in
        nanoseconds. It is None if the row has no time on the timeline.
    """

    type: str
    arrays: list[pa.ListArray] = field(default_factory=list)
    times: list[dict[str, list[int]]] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(len(array) for array in self.arrays)

    def places(self, timelines: Collection[str]) -> Iterator[tuple[tuple[Any, ...], bytes, Place]]:
        """Yield for each cell its times on `timelines` (None: no time), its key (see `cells.keys`) and its `Place`."""
        from mpr.compare.cells import keys

        for index, (array, times) in enumerate(zip(self.arrays, self.times, strict=True)):
            columns: list[Sequence[int | None]] = [times.get(name) or [None] * len(array) for name in timelines]
            stamps = zip(*columns, strict=True) if columns else iter([()] * len(array))
            for row, (stamp, key) in enumerate(zip(stamps, keys(array), strict=True)):
                yield stamp, key, (index, row)

    def cell(self, place: Place) -> pa.Array:
        array, row = place
        return self.arrays[array].slice(row, 1).flatten()


@dataclass
class Entity:
    """Holds all data of a recording at one entity path.

    Attributes
    ----------
    temporal, static:
        The cells with times, and the cells without times, by the names of the components.
    timelines:
        The Arrow type of the times on each timeline, as text.
    ranges:
        The first and the last time on each timeline, as sequence numbers or in nanoseconds. A timeline on which no row
        has a time is left out.
    """

    temporal: dict[str, Series] = field(default_factory=dict)
    static: dict[str, Series] = field(default_factory=dict)
    timelines: dict[str, str] = field(default_factory=dict)
    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)


def unreadable(paths: Sequence[Path]) -> dict[Path, str]:
    """Return a sentence with the path and the reason for each file that is damaged or that the SDK cannot read.

    The dict is empty if all files can be read. Call this function before `entities`, because some files make the SDK
    crash, and `entities` uses the SDK in the calling process. This function lets the SDK read the files in another
    process.

    Raises `RecordingError` if the other process cannot start, fails, or does not end within 10 minutes. If the other
    process crashes, this function raises no error, but returns a sentence for the file that it was reading.
    """
    from mpr.sdk import programs

    refused = {path: reason for path in paths if (reason := _damage(path)) is not None}
    try:
        refused |= programs.unreadable([path for path in paths if path not in refused])
    except OSError as error:
        raise RecordingError(f"recordings cannot be read in another process: {error}") from error
    return {path: f"cannot read the recording {path}: {reason}" for path, reason in refused.items()}


def _damage(path: Path) -> str | None:
    """Return the reason why the SDK must not read the file at `path`, or None if the SDK may read it.

    A file that does not exist or is damaged is refused. The SDK must not read a damaged file, because its reader may
    need much time and memory for broken messages. A file of a format that mpr does not know is not refused.
    """
    from mpr import files
    from mpr.rrd.survey import reader_of, survey

    try:
        files.check_regular(path, follow=True)
        with path.open("rb") as file:
            found = survey(reader_of(file.fileno()), path.stat().st_size)
    except FormatError:
        # mpr does not know this format. Only the SDK can say whether the file is a recording.
        return None
    except (OSError, ValueError) as error:
        return str(error)
    return "it is damaged; 'mpr recover' makes a valid file of its rows" if found.is_damaged else None


def entities(path: Path, ignored_timelines: set[str], is_ignored: Callable[[str], bool]) -> dict[str, Entity]:
    """Return all entities of the recordings in the file at `path`, by their paths, with their cells in memory.

    The times on `ignored_timelines`, and the entities for whose paths `is_ignored` returns True, are left out. Raises
    `RecordingError` if the file cannot be read. If the file makes the SDK crash, this process ends (see `unreadable`).
    """
    from mpr.sdk.reader import quiet_reader

    found: dict[str, Entity] = {}
    try:
        reader = quiet_reader(path)
        chunks = (chunk for entry in reader.recordings() for chunk in reader.stream(store=entry))
        for chunk in chunks:
            entity = str(chunk.entity_path)
            if not is_ignored(entity):
                _add(found.setdefault(entity, Entity()), chunk.to_record_batch(), ignored_timelines)
    except (RuntimeError, ValueError, OSError, LookupError, TypeError, MemoryError) as error:
        raise RecordingError(f"cannot read the recording {path}: {error}") from error
    return found


def _add(entity: Entity, batch: pa.RecordBatch, ignored_timelines: set[str]) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = list(zip(batch.schema, batch.columns, strict=True))
    kinds = {schema.name: schema.metadata[b"rerun:kind"] for schema, _ in columns}
    is_static = b"index" not in kinds.values()
    times = {}
    for schema, column in columns:
        if kinds[schema.name] == b"index" and schema.name not in ignored_timelines:
            times[schema.name] = column = column.cast(pa.int64())
            entity.timelines[schema.name] = str(schema.type)
            ends = [pc.min(column).as_py(), pc.max(column).as_py(), *entity.ranges.get(schema.name, ())]
            known = [end for end in ends if end is not None]
            if known:
                entity.ranges[schema.name] = (min(known), max(known))
    series = entity.static if is_static else entity.temporal
    for schema, column in columns:
        if kinds[schema.name] == b"data":
            its = series.setdefault(schema.name, Series(_type_of(schema)))
            _add_cells(its, column, times)


def _add_cells(series: Series, column: pa.ListArray, times: dict[str, pa.Array]) -> None:
    if column.null_count:
        there = column.is_valid()
        column, times = column.filter(there), {name: each.filter(there) for name, each in times.items()}
    series.arrays.append(column)
    series.times.append({name: each.to_pylist() for name, each in times.items()})


def _type_of(schema: pa.Field) -> str:
    """Return the Arrow type of a component's values as text, without "not null".

    Old releases of the SDK do not write "not null", so files of two releases would seem to have different types.
    """
    return str(schema.type.value_type).replace(" not null", "")
