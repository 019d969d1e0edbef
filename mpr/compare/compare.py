"""Says in words in which rows two recordings differ.

A cell has the values of one component of one entity in one row. A static cell has no time. For each component of each
entity, all cells with times are one series, and all static cells are another series. Two recordings are compared series
by series. The sentences call the first recording "expected" and the second one "found".

Covers: entities, components and their types, timelines, the number of rows and their times, and every cell.
Does not cover: blueprints, recording ids, application ids, chunks and chunk ids, the order of rows of the same time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mpr.errors import ConfigError, FormatError, RecordingError

if TYPE_CHECKING:
    import pyarrow as pa


Level = Literal["summary", "values"]

#: Timelines and entities that are not compared by default, because they differ in every run. They are the times of
#: logging, and the rows in which the SDK and mpr describe the run.
IGNORED_TIMELINES = ("log_time", "log_tick")
IGNORED_ENTITIES = ("/__properties/**", "/mpr/**")

# The place of a cell in a `_Series`: the index of an array in `arrays`, and the index of a row in that array.
_Place = tuple[int, int]


@dataclass
class _Series:
    """Holds all cells with times of one component of one entity, or all its static cells.

    Attributes
    ----------
    type:
        The Arrow type of the values, as text.
    arrays:
        The cells of each chunk (a chunk is a table with rows of one entity). An array has a list of values for each
        row.
    times:
        For each array: the times of its rows, by the name of the timeline. A row may have no time (None).
    """

    type: str
    arrays: list[pa.ListArray] = field(default_factory=list)
    times: list[dict[str, list[int]]] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(len(array) for array in self.arrays)

    def places(self, timelines: Collection[str]) -> Iterator[tuple[tuple[Any, ...], bytes, _Place]]:
        """Yield for each cell its times on `timelines`, its key (see `cells.keys`) and its place (see `_Place`).

        If the cell has no time on a timeline, None stands for this time.
        """
        from mpr.compare.cells import keys

        for index, (array, times) in enumerate(zip(self.arrays, self.times, strict=True)):
            columns: list[Sequence[int | None]] = [times.get(name) or [None] * len(array) for name in timelines]
            stamps = zip(*columns, strict=True) if columns else iter([()] * len(array))
            for row, (stamp, key) in enumerate(zip(stamps, keys(array), strict=True)):
                yield stamp, key, (index, row)

    def cell(self, place: _Place) -> pa.Array:
        array, row = place
        return self.arrays[array].slice(row, 1).flatten()


@dataclass
class _Entity:
    """Holds all data of a recording at one entity path.

    Attributes
    ----------
    temporal, static:
        The cells with times, and the cells without times, by the names of the components.
    """

    temporal: dict[str, _Series] = field(default_factory=dict)
    static: dict[str, _Series] = field(default_factory=dict)
    #: The Arrow type of the times on each timeline, as text.
    timelines: dict[str, str] = field(default_factory=dict)
    #: The first and the last time on each timeline.
    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)


def differences(
    expected: Path,
    actual: Path,
    *,
    level: Level = "values",
    ignore_timelines: Collection[str] = IGNORED_TIMELINES,
    ignore_entities: Collection[str] = IGNORED_ENTITIES,
    tolerance: float = 0.0,
    limit: int = 20,
) -> list[str]:
    """Return the differences between two recordings, as a list with a sentence for each; empty if there are none.

    Two recordings are equal if they have the same cells at the same times. The docstring of the module explains cells.
    The order of rows and chunks is not compared, and neither is the number of equal static cells. The process holds
    both recordings in memory.

    Parameters
    ----------
    expected, actual:
        Two `.rrd` files. All recordings in one file are compared as one recording.
    level:
        `"values"` compares every cell. `"summary"` compares the entities, components and timelines, their types, the
        numbers of cells, and the first and last times.
    ignore_timelines:
        Names of timelines that are not compared. By default `log_time` and `log_tick`.
    ignore_entities:
        Entity paths that are not compared. `/camera/**` stands for `/camera` and all paths below it. By default the
        properties of the recording, and the rows of mpr that describe the run.
    tolerance:
        The largest difference of two floating point numbers, as a share of the absolute expected number. If the
        absolute expected number is smaller than 1, `tolerance` itself is the largest difference.
    limit:
        The largest number of differences that are returned. If there are more, one more sentence says how many more.

    Raises
    ------
    ConfigError
        If `level` is neither "values" nor "summary".
    RecordingError
        If a file cannot be read, or has values that are not valid for their types.
    """
    check_level(level)
    ignored = (set(ignore_timelines), matcher(ignore_entities))
    ours, theirs = _entities(Path(expected), *ignored), _entities(Path(actual), *ignored)
    try:
        found = list(_of_recordings(ours, theirs, level, tolerance))
    except (RuntimeError, ValueError, LookupError, TypeError) as error:
        # The SDK has read a value that is not valid for its type.
        raise RecordingError(f"cannot compare {expected} with {actual}: {error!r}") from error
    if len(found) > limit:
        return [*found[:limit], f"and {len(found) - limit} more differences"]
    return found


def check_level(level: str) -> None:
    """Raise `ConfigError` if `level` is neither `"summary"` nor `"values"`. `differences` explains these levels."""
    if level not in ("summary", "values"):
        raise ConfigError(f"level is {level!r}: use 'summary' or 'values'")


def matcher(paths: Collection[str]) -> Callable[[str], bool]:
    """Return a function that takes an entity path, and returns True if the path is one of `paths`.

    In `paths`, `/camera/**` stands for `/camera` and all paths below it.
    """
    patterns = [_pattern(path) for path in paths]
    return lambda entity: any(pattern.fullmatch(entity) for pattern in patterns)


def _pattern(path: str) -> re.Pattern[str]:
    path = "/" + path.strip("/")
    if path.endswith("/**"):
        return re.compile(re.escape(path.removesuffix("/**")) + "(/.*)?")
    return re.compile(re.escape(path))


# --- reading ------------------------------------------------------------------------------------------------------


def unreadable(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the files at `paths` that the SDK cannot read, or that make the SDK crash, each with the reason.

    Call this function before `differences` if files may be damaged. `differences` reads files in the calling process,
    so a crash of the SDK would end this process. This function reads the files in another process. Raises
    `RecordingError` if the other process cannot start or fails.
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

    A damaged file is refused here, because the SDK's reader needs much time and memory for each broken message.
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


def _entities(path: Path, ignored_timelines: set[str], is_ignored: Callable[[str], bool]) -> dict[str, _Entity]:
    from mpr.sdk.reader import quiet_reader

    found: dict[str, _Entity] = {}
    try:
        reader = quiet_reader(path)
        chunks = (chunk for entry in reader.recordings() for chunk in reader.stream(store=entry))
        for chunk in chunks:
            entity = str(chunk.entity_path)
            if not is_ignored(entity):
                _add(found.setdefault(entity, _Entity()), chunk.to_record_batch(), ignored_timelines)
    except (RuntimeError, ValueError, OSError, LookupError, TypeError, MemoryError) as error:
        raise RecordingError(f"cannot read the recording {path}: {error}") from error
    return found


def _add(entity: _Entity, batch: pa.RecordBatch, ignored_timelines: set[str]) -> None:
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
            its = series.setdefault(schema.name, _Series(_type_of(schema)))
            _add_cells(its, column, times)


def _add_cells(series: _Series, column: pa.ListArray, times: dict[str, pa.Array]) -> None:
    if column.null_count:
        there = column.is_valid()
        column, times = column.filter(there), {name: each.filter(there) for name, each in times.items()}
    series.arrays.append(column)
    series.times.append({name: each.to_pylist() for name, each in times.items()})


def _type_of(schema: pa.Field) -> str:
    """Return the Arrow type of a component's values as text, without "not null", which old SDKs do not write."""
    return str(schema.type.value_type).replace(" not null", "")


# --- comparing ----------------------------------------------------------------------------------------------------


def _of_recordings(
    ours: dict[str, _Entity], theirs: dict[str, _Entity], level: Level, tolerance: float
) -> Iterator[str]:
    all_ours, all_theirs = _timelines(ours), _timelines(theirs)
    yield from _missing_and_new("timeline", all_ours, all_theirs)
    yield from _missing_and_new("entity", ours, theirs)
    differing = {name for name in all_ours.keys() | all_theirs.keys() if all_ours.get(name) != all_theirs.get(name)}
    for name in sorted(differing & all_ours.keys() & all_theirs.keys()):
        yield f"timeline {name} has times of type {all_ours[name]} expected, {all_theirs[name]} found"
    for path in sorted(ours.keys() & theirs.keys()):
        one, other = ours[path], theirs[path]
        yield from (f"{path}: {each}" for each in _of_timelines(one, other, differing))
        common = {
            name: one.timelines[name] for name in sorted(one.timelines.keys() & other.timelines.keys() - differing)
        }
        for kind, first, second in (("", one.temporal, other.temporal), ("static ", one.static, other.static)):
            yield from (f"{path}: {each}" for each in _missing_and_new(f"{kind}component", first, second))
            for name in sorted(first.keys() & second.keys()):
                form = first.get(name.removesuffix(":buffer") + ":format") if name.endswith(":buffer") else None
                found = _of_series(first[name], second[name], level, tolerance, common, form, is_static=bool(kind))
                if found:
                    yield f"{path}: {kind}{name}: {found}"


def _timelines(entities: dict[str, _Entity]) -> dict[str, str]:
    return {name: kind for entity in entities.values() for name, kind in entity.timelines.items()}


def _missing_and_new(what: str, expected: Collection[str], found: Collection[str]) -> Iterator[str]:
    yield from (f"{what} {name} is missing" for name in sorted(expected) if name not in found)
    yield from (f"{what} {name} is new" for name in sorted(found) if name not in expected)


def _of_timelines(one: _Entity, other: _Entity, reported: set[str]) -> Iterator[str]:
    yield from _missing_and_new("timeline", one.timelines.keys() - reported, other.timelines.keys() - reported)
    for name in sorted(one.ranges.keys() & other.ranges.keys() - reported):
        if one.ranges[name] != other.ranges[name]:
            both = (one.ranges[name], other.ranges[name])
            expected, found = (" to ".join(_moment(end, one.timelines[name]) for end in ends) for ends in both)
            yield f"{name} from {expected} expected, from {found} found"


def _of_series(
    one: _Series,
    other: _Series,
    level: Level,
    tolerance: float,
    timelines: dict[str, str],
    image_format: _Series | None,
    *,
    is_static: bool,
) -> str | None:
    """Return in words how the series `other` differs from the expected series `one`; None if they are equal.

    `level` and `tolerance` are those of `differences`. `timelines` has the names and Arrow types of the timelines to
    compare. If the cells are the pixels of images, `image_format` is the series with the formats of these images. For
    other cells, it is None. `is_static` is true if the cells are static.
    """
    if one.type != other.type:
        return f"type {one.type} expected, {other.type} found"
    found = [] if is_static or len(one) == len(other) else [f"{_rows(len(one))} expected, {len(other)} found"]
    if level == "values":
        shift = None if is_static or found else _shift(one, other, timelines)
        if shift is not None:
            return shift
        changes = _changes(one, other, tolerance, timelines, image_format, is_static=is_static)
        first = next(changes, None)
        if first is not None:
            more = sum(1 for _ in changes)
            found.append(f"{first}{f' (and {_rows(more)} more)' if more else ''}")
    return "; ".join(found) or None


def _shift(one: _Series, other: _Series, timelines: dict[str, str]) -> str | None:
    """Return in words by how much time all rows of `other` are shifted against those of the expected series `one`.

    Returns None if the rows are not shifted, or if the series also differ in another way. `timelines` has the names and
    Arrow types of the timelines to compare.
    """
    if not timelines or not len(one) or len(one) != len(other):
        return None
    ours, theirs = (sorted(each.places(timelines), key=lambda cell: _sortable(cell[0])) for each in (one, other))
    if [key for _, key, _ in ours] != [key for _, key, _ in theirs]:
        return None
    moved = []
    for number, (name, kind) in enumerate(timelines.items()):
        times = [(mine[0][number], its[0][number]) for mine, its in zip(ours, theirs, strict=True)]
        shifts = {None if None in pair else pair[1] - pair[0] for pair in times if pair != (None, None)}
        if len(shifts) > 1 or None in shifts:
            return None
        shift = next(iter(shifts), 0)
        if shift:
            moved.append(f"{_span(shift, kind)} on {name}")
    rows = "its only row is" if len(one) == 1 else f"all {len(one)} rows are"
    return f"{rows} {', '.join(moved)}; the values are as expected" if moved else None


def _span(shift: int, kind: str) -> str:
    size = abs(shift) if kind == "int64" else f"{abs(shift) / 1e9:g} s"
    return f"{size} {'later' if shift > 0 else 'earlier'}"


def _changes(
    one: _Series,
    other: _Series,
    tolerance: float,
    timelines: dict[str, str],
    image_format: _Series | None,
    *,
    is_static: bool,
) -> Iterator[str]:
    """Yield a sentence for each cell that differs, is missing or is new, sorted by time. Parameters: `_of_series`."""
    from mpr.compare.cells import are_close, words, words_of_both
    from mpr.compare.pixels import words_of_pixels

    # All images of an entity usually have one format. If the formats differ, images are described as other cells are.
    form = image_format.cell((0, 0)) if image_format is not None and image_format.arrays else None

    missing, new = _unmatched(one, other, timelines, is_static=is_static)
    for stamp in sorted(missing.keys() | new.keys(), key=_sortable):
        at = "" if is_static else f"at {_stamp(stamp, timelines)}"
        expected = _in_order(one.cell(place) for place in missing.get(stamp, ()))
        found = _in_order(other.cell(place) for place in new.get(stamp, ()))
        for cell, its in zip(expected, found, strict=False):
            if not are_close(cell, its, tolerance):
                pixels = words_of_pixels(cell, its, form) if form is not None else None
                yield f"{at} {pixels or words_of_both(cell, its, tolerance)}".strip()
        for cell in expected[len(found) :]:
            yield f"{at} {words(cell)} {_is(cell)} missing".strip()
        for cell in found[len(expected) :]:
            yield f"{at} {words(cell)} {_is(cell)} new".strip()


_Unmatched = dict[tuple[Any, ...], list[_Place]]


def _unmatched(
    one: _Series, other: _Series, timelines: dict[str, str], *, is_static: bool
) -> tuple[_Unmatched, _Unmatched]:
    """Return the places (`_Place`) of cells of `one` that `other` lacks, and of cells of `other` that `one` lacks.

    The places are grouped by the times of the cells on `timelines`. Cells are compared bit for bit. If a cell occurs
    twice in one series and once in the other, the other lacks one cell. If `is_static` is true, equal cells count as
    one cell.
    """
    ours, theirs = list(one.places(timelines)), list(other.places(timelines))
    counts = [Counter((stamp, key) for stamp, key, _ in cells) for cells in (ours, theirs)]
    if is_static:
        counts = [Counter(set(each)) for each in counts]
    left = counts[0] - counts[1], counts[1] - counts[0]
    return _taken(ours, left[0]), _taken(theirs, left[1])


def _taken(cells: list[tuple[tuple[Any, ...], bytes, _Place]], left: Counter[tuple[Any, bytes]]) -> _Unmatched:
    found: _Unmatched = {}
    for stamp, key, place in cells if left else ():
        if left[stamp, key] > 0:
            left[stamp, key] -= 1
            found.setdefault(stamp, []).append(place)
    return found


def _in_order(cells: Iterator[pa.Array]) -> list[pa.Array]:
    """Return `cells` of one time sorted by their values, so that similar cells of two recordings are compared."""
    from mpr.compare.cells import plain

    found = list(cells)
    return found if len(found) < 2 else sorted(found, key=lambda cell: _sortable(_flat(plain(cell))))


def _flat(value: Any) -> tuple[Any, ...]:
    if isinstance(value, list):
        return tuple(each for part in value for each in _flat(part))
    return (value,)


def _sortable(values: tuple[Any, ...]) -> tuple[tuple[str, Any], ...]:
    """Return a sort key for `values`, which may have different types.

    Numbers and texts are sorted by the names of their types, and within one type as usual. All other values, and NaN,
    come first, sorted by their `repr`.
    """
    return tuple(
        (type(each).__name__, each) if isinstance(each, int | float | str) and each == each else ("", repr(each))
        for each in values
    )


# --- words --------------------------------------------------------------------------------------------------------


def _stamp(stamp: tuple[int | None, ...], timelines: dict[str, str]) -> str:
    named = zip(timelines.items(), stamp, strict=True)
    return ", ".join(f"{name}={_moment(at, kind)}" for (name, kind), at in named if at is not None) or "no time"


def _moment(at: int, kind: str) -> str:
    if kind.startswith("timestamp"):
        import numpy as np

        return str(np.datetime64(at, "ns")).removesuffix(".000000000")
    return f"{at / 1e9} s" if kind.startswith("duration") else str(at)


def _is(cell: pa.Array) -> str:
    from mpr.compare.cells import words

    return "are" if words(cell).endswith(" values") else "is"


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"
