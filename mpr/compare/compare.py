"""Describes in words how two recordings differ.

A cell has the values of one component of one entity in one row. A static cell has no time. For each component of each
entity, all cells with times are one series, and all static cells are another series. A series of one recording is
compared with the same series of the other.

Covers: entities, components and their types, timelines, the numbers of cells with times, these times, and the values.
Does not cover: reading the files (`reading.py`). Also not blueprints, recording ids, application ids, row ids, chunks,
and the order of the rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mpr.compare import reading
from mpr.compare.reading import Entity, Place, Series
from mpr.errors import ConfigError, RecordingError

if TYPE_CHECKING:
    import pyarrow as pa


Level = Literal["summary", "values"]

#: Timelines and entities that are not compared by default, because they differ in every run. They are the times of
#: logging, and the rows in which the SDK and mpr describe the run.
IGNORED_TIMELINES = ("log_time", "log_tick")
IGNORED_ENTITIES = ("/__properties/**", "/mpr/**")


# If more components than this are shifted by the same time, one sentence is for all of them.
_MANY_SHIFTED = 3


class Difference(NamedTuple):
    """Describes one difference, or several differences of one kind.

    `text` describes the difference in words. `moment` is the time of the first cell that differs: (name of a timeline,
    sequence number or nanoseconds). It is None if this cell has no time that is compared. It is also None if `text` is
    about no single cell, for example about an entity that is missing.
    """

    text: str
    moment: tuple[str, int] | None = None


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
    """Return the differences between two recordings in words. The list is empty if there are none.

    A series is all cells with times, or all static cells, of one component of one entity. For each series, only the
    first cell that differs is described, with the number of the other cells that differ. If the rows of a series are
    only shifted in time, the text says by how much. The order of rows and chunks is not compared, and neither is the
    number of equal static values. The calling process holds both recordings in memory.

    Some files make the SDK crash, which ends the calling process. `mpr.compare.reading.unreadable` finds such files.

    Parameters
    ----------
    expected, actual:
        Two `.rrd` files. All recordings in one file are compared as one recording.
    level:
        `"summary"` compares the entities, components and timelines, their types, the numbers of cells with times, and
        the first and last times. `"values"` also compares all values.
    ignore_timelines:
        Names of timelines that are not compared. By default `log_time` and `log_tick`.
    ignore_entities:
        Entity paths that are not compared. `/camera/**` stands for `/camera` and all paths below it. By default the
        properties of the recording, and the rows of mpr that describe the run.
    tolerance:
        Two floating point numbers count as equal if they differ by at most `tolerance` times the absolute expected
        number, or by at most `tolerance` if that is more.
    limit:
        The largest number of differences that are returned. If there are more, one more text says how many more.

    Raises
    ------
    ConfigError
        If `level` is neither "values" nor "summary".
    RecordingError
        If a file cannot be read, or has values that are not valid for their types.
    """
    found = all_differences(
        expected,
        actual,
        level=level,
        ignore_timelines=ignore_timelines,
        ignore_entities=ignore_entities,
        tolerance=tolerance,
    )
    return sentences(found, limit)


def sentences(found: Sequence[Difference], limit: int = 20) -> list[str]:
    """Return the texts of the first `limit` differences. If there are more, one more text says how many more."""
    texts = [each.text for each in found[:limit]]
    return [*texts, f"and {len(found) - limit} more differences"] if len(found) > limit else texts


def all_differences(
    expected: Path,
    actual: Path,
    *,
    level: Level = "values",
    ignore_timelines: Collection[str] = IGNORED_TIMELINES,
    ignore_entities: Collection[str] = IGNORED_ENTITIES,
    tolerance: float = 0.0,
) -> list[Difference]:
    """Return all differences between two recordings; empty if there are none.

    The parameters and the errors are as in `differences`, except that there is no `limit`.
    """
    check_level(level)
    ignored = (set(ignore_timelines), matcher(ignore_entities))
    ours, theirs = reading.entities(Path(expected), *ignored), reading.entities(Path(actual), *ignored)
    try:
        return list(_of_recordings(ours, theirs, level, tolerance))
    except (RuntimeError, ValueError, LookupError, TypeError) as error:
        # The SDK has read a value that is not valid for its type.
        raise RecordingError(f"cannot compare {expected} with {actual}: {error!r}") from error


def check_level(level: str) -> None:
    """Raise `ConfigError` if `level` is neither `"summary"` nor `"values"`."""
    if level not in ("summary", "values"):
        raise ConfigError(f"level is {level!r}: use 'summary' or 'values'")


def matcher(paths: Collection[str]) -> Callable[[str], bool]:
    """Return a function that returns True for an entity path which is one of `paths`, and False for any other.

    In `paths`, `/camera/**` stands for `/camera` and all paths below it. No other wildcard is known.
    """
    patterns = [_pattern(path) for path in paths]
    return lambda entity: any(pattern.fullmatch(entity) for pattern in patterns)


def _pattern(path: str) -> re.Pattern[str]:
    path = "/" + path.strip("/")
    if path.endswith("/**"):
        return re.compile(re.escape(path.removesuffix("/**")) + "(/.*)?")
    return re.compile(re.escape(path))


# --- comparing ----------------------------------------------------------------------------------------------------


def _of_recordings(
    ours: dict[str, Entity], theirs: dict[str, Entity], level: Level, tolerance: float
) -> Iterator[Difference]:
    all_ours, all_theirs = _timelines(ours), _timelines(theirs)
    yield from _missing_and_new("timeline", all_ours, all_theirs)
    yield from _missing_and_new("entity", ours, theirs)
    differing = {name for name in all_ours.keys() | all_theirs.keys() if all_ours.get(name) != all_theirs.get(name)}
    for name in sorted(differing & all_ours.keys() & all_theirs.keys()):
        yield Difference(f"timeline {name} has times of type {all_ours[name]} expected, {all_theirs[name]} found")
    shifted: dict[str, list[tuple[str, int]]] = {}
    for path in sorted(ours.keys() & theirs.keys()):
        one, other = ours[path], theirs[path]
        timelines = {
            name: one.timelines[name] for name in sorted(one.timelines.keys() & other.timelines.keys() - differing)
        }
        temporal = _Pair(one.temporal, other.temporal, timelines, level, tolerance)
        found = list(temporal.differences())
        if not temporal.shifts or found or len(temporal.shifts) < len(temporal.common):
            # The times of rows that are all shifted are not told twice.
            yield from (_at(path, each) for each in _of_timelines(one, other, differing))
        yield from (_at(path, each) for each in found)
        for name, (words, count) in temporal.shifts.items():
            shifted.setdefault(words, []).append((f"{path}: {name}", count))
        static = _Pair(one.static, other.static, {}, level, tolerance, is_static=True)
        yield from (_at(path, each) for each in static.differences())
    for words, series in shifted.items():
        yield from _shifts(words, series)


def _at(path: str, difference: Difference) -> Difference:
    return Difference(f"{path}: {difference.text}", difference.moment)


def _shifts(words: str, series: list[tuple[str, int]]) -> Iterator[Difference]:
    """Yield a `Difference` for each of `series`, or one for all of them if there are more than three.

    All rows of these series are shifted by the time that `words` says. Each element of `series` has the entity and
    component as text, and the number of rows.
    """
    if len(series) > _MANY_SHIFTED:
        yield Difference(f"all rows of {len(series)} components are {words}; the values are as expected")
        return
    for name, count in series:
        rows = "its only row is" if count == 1 else f"all {count} rows are"
        yield Difference(f"{name}: {rows} {words}; the values are as expected")


def _timelines(entities: dict[str, Entity]) -> dict[str, str]:
    return {name: kind for entity in entities.values() for name, kind in entity.timelines.items()}


def _missing_and_new(what: str, expected: Collection[str], found: Collection[str]) -> Iterator[Difference]:
    yield from (Difference(f"{what} {name} is missing") for name in sorted(expected) if name not in found)
    yield from (Difference(f"{what} {name} is new") for name in sorted(found) if name not in expected)


def _of_timelines(one: Entity, other: Entity, reported: set[str]) -> Iterator[Difference]:
    yield from _missing_and_new("timeline", one.timelines.keys() - reported, other.timelines.keys() - reported)
    for name in sorted(one.ranges.keys() & other.ranges.keys() - reported):
        if one.ranges[name] != other.ranges[name]:
            both = (one.ranges[name], other.ranges[name])
            expected, found = (" to ".join(_moment(end, one.timelines[name]) for end in ends) for ends in both)
            yield Difference(f"{name} from {expected} expected, from {found} found")


class _Pair:
    """Compares the series of one entity: either the series with times, or the static series.

    Parameters
    ----------
    one, other:
        The expected series and the found series, by the names of their components.
    timelines:
        The timelines to compare: their names, and the Arrow types of their times as texts. Empty for static cells.
    level, tolerance:
        As in `differences`.
    is_static:
        True if the cells are static.

    Attributes
    ----------
    common:
        The names of the components that are in `one` and in `other`.
    shifts:
        For each component whose rows are only shifted along timelines: the shift in words, and the number of rows.
        `differences` fills this dict. With the level "summary" it stays empty.
    """

    def __init__(
        self,
        one: dict[str, Series],
        other: dict[str, Series],
        timelines: dict[str, str],
        level: Level,
        tolerance: float,
        *,
        is_static: bool = False,
    ) -> None:
        self._one, self._other = one, other
        self._timelines = timelines
        self._level = level
        self._tolerance = tolerance
        self._is_static = is_static
        self.common: list[str] = sorted(one.keys() & other.keys())
        self.shifts: dict[str, tuple[str, int]] = {}

    def differences(self) -> Iterator[Difference]:
        """Yield at most one `Difference` for each component. Add a component that is only shifted to `shifts`."""
        kind = "static " if self._is_static else ""
        yield from _missing_and_new(f"{kind}component", self._one, self._other)
        for name in self.common:
            found = self._of_series(name)
            if found is not None:
                yield Difference(f"{kind}{name}: {found.text}", found.moment)

    def _of_series(self, name: str) -> Difference | None:
        one, other = self._one[name], self._other[name]
        if one.type != other.type:
            return Difference(f"type {one.type} expected, {other.type} found")
        is_long = not self._is_static and len(one) != len(other)
        counts = f"{_rows(len(one))} expected, {len(other)} found" if is_long else ""
        if self._level != "values":
            return Difference(counts) if counts else None
        missing, new = _unmatched(one, other, self._timelines, is_static=self._is_static)
        shift = _shift(one, other, self._timelines, self._tolerance) if missing and not counts else None
        if shift is not None:
            self.shifts[name] = shift, len(one)
            return None
        changes = self._changes(name, missing, new)
        first = next(changes, None)
        if first is None:
            return Difference(counts) if counts else None
        more = sum(1 for _ in changes)
        text = f"{first.text}{f' (and {_rows(more)} more)' if more else ''}"
        return Difference(f"{counts}; {text}" if counts else text, first.moment)

    def _changes(self, name: str, missing: _Unmatched, new: _Unmatched) -> Iterator[Difference]:
        """Yield a `Difference` for each cell that differs, is missing or is new, sorted by time.

        `missing` and `new` are the results of `_unmatched` for the component `name`. Cells of the same time are
        compared in pairs. A pair that is equal within the tolerance is left out.
        """
        from mpr.compare.cells import are_close, words, words_of_both

        one, other = self._one[name], self._other[name]
        for stamp in sorted(missing.keys() | new.keys(), key=_sortable):
            at = "" if self._is_static else f"at {_stamp(stamp, self._timelines)}: "
            moment = next((each for each in zip(self._timelines, stamp, strict=True) if each[1] is not None), None)
            expected = _in_order(one.cell(place) for place in missing.get(stamp, ()))
            found = _in_order(other.cell(place) for place in new.get(stamp, ()))
            for cell, its in zip(expected, found, strict=False):
                if not are_close(cell, its, self._tolerance):
                    text = self._words_of_pixels(name, stamp, cell, its)
                    if text is None:
                        text = words_of_both(cell, its, self._tolerance)
                    if text:
                        yield Difference(f"{at}{text}", moment)
            for cell in expected[len(found) :]:
                yield Difference(f"{at}{words(cell)} {_is(cell)} missing", moment)
            for cell in found[len(expected) :]:
                yield Difference(f"{at}{words(cell)} {_is(cell)} new", moment)

    def _words_of_pixels(self, name: str, stamp: tuple[Any, ...], cell: pa.Array, its: pa.Array) -> str | None:
        """Return in words how the pixels of two images differ; empty if no pixel differs by more than the tolerance.

        `cell` and `its` are the expected and the found cell of the component `name` at the times `stamp`. Returns None
        if the component is no image buffer, if an image has no format, or if `pixels.words_of_pixels` returns None.
        """
        from mpr.compare.pixels import words_of_pixels

        if not name.endswith(":buffer"):
            return None
        form = name.removesuffix("buffer") + "format"
        formats = [self._format(series.get(form), stamp) for series in (self._one, self._other)]
        if formats[0] is None or formats[1] is None:
            return None
        return words_of_pixels(cell, its, formats[0], formats[1], self._tolerance)

    def _format(self, series: Series | None, stamp: tuple[Any, ...]) -> pa.Array | None:
        """Return the cell of `series` with the format of the image at the times `stamp`.

        `series` has the formats of the images. If `series` has no cell at `stamp`, return its first cell, because the
        format may be logged only once, before all images. Returns None if `series` is None or empty.
        """
        if series is None:
            return None
        places = [(its, place) for its, _, place in series.places(self._timelines)]
        place = next((place for its, place in places if its == stamp), places[0][1] if places else None)
        return None if place is None else series.cell(place)


def _shift(one: Series, other: Series, timelines: dict[str, str], tolerance: float) -> str | None:
    """Return in words by how much time all rows of `other` are shifted against the rows of the expected series `one`.

    Both series must have the same number of cells. Returns None if not all rows are shifted by the same time, or if the
    series also differ in another way. `timelines` and `tolerance` are as in `_Pair`.
    """
    from mpr.compare.cells import are_close

    if not timelines or not len(one):
        return None
    ours, theirs = (
        sorted(each.places(timelines), key=lambda cell: (_sortable(cell[0]), cell[1])) for each in (one, other)
    )
    moved = []
    for number, (name, kind) in enumerate(timelines.items()):
        times = [(mine[0][number], its[0][number]) for mine, its in zip(ours, theirs, strict=True)]
        shifts = {None if None in pair else pair[1] - pair[0] for pair in times if pair != (None, None)}
        if len(shifts) > 1 or None in shifts:
            return None
        shift = next(iter(shifts), 0)
        if shift:
            moved.append(f"{_span(shift, kind)} on {name}")
    if not moved:
        return None
    for (_, key, place), (_, its_key, its_place) in zip(ours, theirs, strict=True):
        if key != its_key and not (tolerance and are_close(one.cell(place), other.cell(its_place), tolerance)):
            return None
    return ", ".join(moved)


def _span(shift: int, kind: str) -> str:
    size = str(abs(shift)) if kind == "int64" else _seconds(abs(shift))
    return f"{size} {'later' if shift > 0 else 'earlier'}"


def _seconds(nanos: int) -> str:
    whole, rest = divmod(abs(nanos), 1_000_000_000)
    return f"{'-' if nanos < 0 else ''}{whole}{f'.{rest:09d}'.rstrip('0').rstrip('.')} s"


_Unmatched = dict[tuple[Any, ...], list[Place]]


def _unmatched(
    one: Series, other: Series, timelines: dict[str, str], *, is_static: bool
) -> tuple[_Unmatched, _Unmatched]:
    """Return the places (`Place`) of cells of `one` that `other` lacks, and of cells of `other` that `one` lacks.

    The places are grouped by the times of the cells on `timelines`. A series lacks a cell if it has no cell with the
    same times and an equal key. If a cell occurs twice in `one` and once in `other`, `other` lacks one cell, unless
    `is_static` is true.
    """
    ours, theirs = list(one.places(timelines)), list(other.places(timelines))
    counts = [Counter((stamp, key) for stamp, key, _ in cells) for cells in (ours, theirs)]
    if is_static:
        counts = [Counter(set(each)) for each in counts]
    left = counts[0] - counts[1], counts[1] - counts[0]
    return _taken(ours, left[0]), _taken(theirs, left[1])


def _taken(cells: list[tuple[tuple[Any, ...], bytes, Place]], left: Counter[tuple[Any, bytes]]) -> _Unmatched:
    found: _Unmatched = {}
    for stamp, key, place in cells if left else ():
        if left[stamp, key] > 0:
            left[stamp, key] -= 1
            found.setdefault(stamp, []).append(place)
    return found


def _in_order(cells: Iterator[pa.Array]) -> list[pa.Array]:
    """Return `cells` sorted by their values, so that similar cells of two recordings are compared."""
    from mpr.compare.cells import plain

    found = list(cells)
    return found if len(found) < 2 else sorted(found, key=lambda cell: _sortable(_flat(plain(cell))))


def _flat(value: Any) -> tuple[Any, ...]:
    if isinstance(value, list):
        return tuple(each for part in value for each in _flat(part))
    return (value,)


def _sortable(values: tuple[Any, ...]) -> tuple[tuple[str, Any], ...]:
    """Return a sort key for `values`, which may have different types.

    Keys are compared value by value. Numbers and texts are sorted by the name of their type, and then by value. All
    other values, and NaN, come first, sorted by their `repr`.
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
    return _seconds(at) if kind.startswith("duration") else str(at)


def _is(cell: pa.Array) -> str:
    from mpr.compare.cells import words

    return "are" if words(cell).endswith(" values") else "is"


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"
