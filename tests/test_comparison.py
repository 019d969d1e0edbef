"""A comparison finds no difference between two forms of the same data, and names every other difference."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import rerun as rr
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpr import cli
from mpr.compare import cells, compare
from mpr.errors import ConfigError, RecordingError

_ORIGIN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class _Row(NamedTuple):
    entity: str
    kind: str
    #: None for static data.
    step: int | None
    value: float

    def log(self, stream: rr.RecordingStream) -> None:
        if self.step is not None:
            stream.set_time("step", sequence=self.step)
        stream.log(self.entity, _KINDS[self.kind](self.value), static=self.step is None)


# Cells of every shape: numbers, vectors, texts, structs, bytes, and several values in one row.
_KINDS: dict[str, Callable[[float], Any]] = {
    "scalar": lambda value: rr.Scalars(value),
    "scalars": lambda value: rr.Scalars([value] * 20),
    "points": lambda value: rr.Points3D([[value, 1, 2], [3, 4, value]], labels=["a", str(value)]),
    "text": lambda value: rr.TextLog(f"text {value}", level="INFO"),
    "image": lambda value: rr.Image(np.full((8, 8, 3), int(value) % 256, np.uint8)),
    "tensor": lambda value: rr.Tensor(np.full((2, 2, 2), value)),
    "pose": lambda value: rr.Transform3D(translation=[value, 0, 0], parent_frame="world"),
}


class _Writer:
    """Write files with rows by one stream, because each stream costs two threads for ever."""

    def __init__(self) -> None:
        self._stream = rr.RecordingStream("app", send_properties=False)
        self._count = itertools.count()

    def __call__(self, folder: Path, rows: Sequence[_Row], cuts: frozenset[int] = frozenset()) -> Path:
        path = folder / f"{next(self._count)}.rrd"
        self._stream.save(path)
        for index, row in enumerate(rows):
            if index in cuts:
                self._stream.flush()
            row.log(self._stream)
            self._stream.reset_time()
        self._stream.disconnect()
        return path


@pytest.fixture(scope="module")
def write() -> _Writer:
    return _Writer()


_ROWS = st.lists(
    st.builds(
        _Row,
        st.sampled_from(["/a", "/a/b", "/c"]),
        st.sampled_from(sorted(_KINDS)),
        st.one_of(st.none(), st.integers(0, 3)),
        st.integers(0, 200).map(float),
    ),
    min_size=1,
    max_size=12,
)


def _unambiguous(rows: list[_Row]) -> list[_Row]:
    """Leave out rows so that each entity and kind has either one static row or only temporal rows."""
    found: dict[tuple[str, str], _Row] = {}
    return [
        row for row in rows if (first := found.setdefault(row[:2], row)) is row or None not in (first.step, row.step)
    ]


def _differences(one: Path, other: Path, **options: Any) -> str:
    return "\n".join(compare.differences(one, other, **options))


_slowly = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@_slowly
@given(st.data())
def test_the_same_rows_in_another_order_and_in_other_chunks_are_the_same(
    write: _Writer, tmp_path: Path, data: st.DataObject
) -> None:
    rows = _unambiguous(data.draw(_ROWS))
    cuts = data.draw(st.frozensets(st.integers(0, len(rows))))
    one = write(tmp_path, rows)
    other = write(tmp_path, data.draw(st.permutations(rows)), cuts)
    assert "" == _differences(one, other)
    assert "" == _differences(one, other, level="summary")


@_slowly
@given(st.data())
def test_any_single_change_is_found_and_named(write: _Writer, tmp_path: Path, data: st.DataObject) -> None:
    rows = _unambiguous(data.draw(_ROWS))
    at = data.draw(st.integers(0, len(rows) - 1))
    row = rows[at]
    change = data.draw(st.sampled_from(["value", "entity", "missing", "again", "time"]))
    changed = {
        "value": [row._replace(value=row.value + 1)],
        "entity": [row._replace(entity="/other")],
        "missing": [],
        "again": [row, row._replace(value=row.value + 0.5)],
        "time": [row._replace(step=7 if row.step is None else row.step + 7)],
    }[change]
    # An image knows no halves.
    if change == "again" and row.kind == "image":
        return
    found = _differences(write(tmp_path, rows), write(tmp_path, [*rows[:at], *changed, *rows[at + 1 :]]))
    assert row.entity in found
    if change == "entity":
        assert "entity /other is new" in found


def _two(tmp_path: Path, log: Callable[[rr.RecordingStream, bool], None]) -> tuple[Path, Path]:
    """Write two recordings with different ids: `log` without a change, and `log` with a change."""
    paths = tmp_path / "expected.rrd", tmp_path / "actual.rrd"
    for path, changed in zip(paths, (False, True), strict=True):
        with rr.RecordingStream(f"app{changed}") as stream:
            stream.save(path)
            log(stream, changed)
    return paths


def test_a_difference_is_described_in_words(tmp_path: Path) -> None:
    def log(stream: rr.RecordingStream, changed: bool) -> None:
        for step in range(10):
            stream.set_time("step", sequence=step)
            stream.set_time("t", timestamp=_ORIGIN + datetime.timedelta(seconds=step))
            late = changed and step >= 7
            stream.log("numbers", rr.Scalars(step + 0.5 * late))
            picture = np.zeros((4, 6), np.uint8)
            picture[2, 3] = late
            stream.log("picture", rr.Image(picture))
            stream.log("said", rr.TextLog("x" * 200 + ("b" if late else "a") + "y" * 200))
            if not (changed and step == 3):
                stream.log("rare", rr.Scalars(step))
        stream.reset_time()
        if changed:
            stream.set_time("other", sequence=1)
            stream.log("new", rr.Scalars(1))
        stream.log("fixed", rr.Scalars(2.0 if changed else 1.0), static=True)
        stream.log("kind", rr.Points2D([[1, 2]]) if changed else rr.Points2D([[1, 2]], radii=1.0), static=True)

    x40 = "x" * 40
    a, b = x40 + "a" + "y" * 79, x40 + "b" + "y" * 79
    at = "at step=7, t=2026-01-01T00:00:07:"
    assert [
        "timeline other is new",
        "entity /new is new",
        "/fixed: static Scalars:scalars: 1.0 expected, 2.0 found",
        "/kind: static component Points2D:radii is missing",
        f"/numbers: Scalars:scalars: {at} 7.0 expected, 7.5 found (and 2 rows more)",
        f"/picture: Image:buffer: {at} 1 of 24 pixels is different, the first in row 2, column 3: 0 expected, 1 found; "
        "the largest difference is 1, the mean of all pixels 0.0417 (and 2 rows more)",
        "/rare: Scalars:scalars: 10 rows expected, 9 found; at step=3, t=2026-01-01T00:00:03: 3.0 is missing",
        f"/said: TextLog:text: {at} ...'{a}'... expected, ...'{b}'... found (and 2 rows more)",
    ] == compare.differences(*_two(tmp_path, log))
    assert [
        "timeline other is new",
        "entity /new is new",
        "/kind: static component Points2D:radii is missing",
        "/rare: Scalars:scalars: 10 rows expected, 9 found",
    ] == compare.differences(*_two(tmp_path, log), level="summary")
    few = compare.differences(*_two(tmp_path, log), limit=2)
    assert ["timeline other is new", "entity /new is new", "and 6 more differences"] == few


@pytest.mark.parametrize(
    ("by", "words"), [(1, "1 later on step, 1 s later on t"), (-3, "3 earlier on step, 3 s earlier on t")]
)
def test_a_shift_in_time_is_called_a_shift(tmp_path: Path, by: int, words: str) -> None:
    def log(stream: rr.RecordingStream, changed: bool) -> None:
        for number in range(10):
            step = number + by * changed
            stream.set_time("step", sequence=step)
            stream.set_time("t", timestamp=_ORIGIN + datetime.timedelta(seconds=step))
            stream.log("n", rr.Scalars(number))

    # The first and the last times of these rows are not told a second time.
    assert [f"/n: Scalars:scalars: all 10 rows are {words}; the values are as expected"] == compare.differences(
        *_two(tmp_path, log)
    )


def test_a_shift_is_found_in_rows_with_gaps_and_within_the_tolerance(tmp_path: Path) -> None:
    def log(stream: rr.RecordingStream, changed: bool) -> None:
        for step in range(6):
            stream.set_time("t", duration=step + 1234567.891 * changed)
            # Only the second recording has a chunk in which no value is null.
            stream.log("n", rr.AnyValues(x=pa.array([1, None if step == 5 else step])))
            stream.log("m", rr.Scalars(step + 1e-9 * changed))
            # Two rows of one time, in another order.
            for value in (2, 1) if changed else (1, 2):
                stream.log("two", rr.Scalars(value))
            if changed and step == 4:
                stream.flush()

    paths = _two(tmp_path, log)
    words = "rows are 1234567.891 s later on t; the values are as expected"
    assert [
        f"/m: Scalars:scalars: all 6 {words}",
        f"/n: x: all 6 {words}",
        f"/two: Scalars:scalars: all 12 {words}",
    ] == (compare.differences(*paths, tolerance=1e-6))
    assert "/m: Scalars:scalars: at t=0 s: 0.0 is missing (and 11 rows more)" in compare.differences(*paths)


def test_one_sentence_is_for_all_components_that_are_shifted(tmp_path: Path) -> None:
    def log(stream: rr.RecordingStream, changed: bool) -> None:
        for step in range(5):
            stream.set_time("step", sequence=step + changed)
            for name in "abcd":
                stream.log(name, rr.Scalars(step))
            stream.log("e", rr.Scalars(step + 0.5 * changed * (step == 2)))

    # In "e", a value differs too.
    assert [
        "/e: step from 0 to 4 expected, from 1 to 5 found",
        "/e: Scalars:scalars: at step=0: 0.0 is missing (and 5 rows more)",
        "all rows of 4 components are 1 later on step; the values are as expected",
    ] == compare.differences(*_two(tmp_path, log))


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        (["gap"], [None], pa.string()),
        ([""], [None], pa.string()),
        ([0], [None], pa.int64()),
        ([1, None], [None, 1], pa.int64()),
        ([[None, None]], [None], pa.list_(pa.float32(), 2)),
        ([[0, 0]], [None], pa.list_(pa.float32(), 2)),
        ([b"\0" * 65], [None], pa.binary()),
    ],
)
def test_a_gap_equals_only_a_gap(one: list[Any], other: list[Any], kind: pa.DataType) -> None:
    both = [cells.keys(pa.array([each], pa.list_(kind)))[0] for each in (one, other)]
    assert both[0] != both[1]
    # The key of a cell does not depend on the cells beside it.
    together = cells.keys(pa.array([one, other, None, []], pa.list_(kind)))
    assert both == together[:2]
    assert 4 == len(set(together))
    # The same holds for a part of an array.
    assert together[1:] == cells.keys(pa.array([one, other, None, []], pa.list_(kind)).slice(1))


def test_a_text_and_a_gap_differ(tmp_path: Path) -> None:
    def log(stream: rr.RecordingStream, changed: bool) -> None:
        stream.log("n", rr.AnyValues(x=pa.array([None if changed else "gap"], pa.string())), static=True)

    assert ["/n: static x: 'gap' expected, None found"] == compare.differences(*_two(tmp_path, log))


def test_equal_values_of_another_type_are_a_difference(tmp_path: Path) -> None:
    def log(stream: rr.RecordingStream, changed: bool) -> None:
        stream.log("tensor", rr.Tensor(np.ones((2, 2), np.uint16 if changed else np.uint8)), static=True)

    (found,) = compare.differences(*_two(tmp_path, log))
    assert "/tensor: static Tensor:data" in found


def test_images_and_tensors_of_another_size_are_compared_by_their_sizes(tmp_path: Path) -> None:
    def log(stream: rr.RecordingStream, changed: bool) -> None:
        stream.log("wide", rr.Image(np.zeros((4, 6 + 2 * changed, 3), np.uint8)), static=True)
        stream.log("tensor", rr.Tensor(np.zeros((3, 4 + changed, 5))), static=True)
        values = np.zeros((3, 4, 5))
        values[1, 2, 3] = changed
        stream.log("value", rr.Tensor(values), static=True)
        points = np.zeros((100, 2))
        points[[7, 9], 1] = changed * 0.5, changed * 1.5
        stream.log("points", rr.Points2D(points), static=True)

    paths = _two(tmp_path, log)
    assert [
        "/points: static Points2D:positions: 2 of 100 values are different, the first at index 7: [0.0, 0.0] expected, "
        "[0.0, 0.5] found; the largest difference is 1.5, the mean of all values 0.01",
        "/tensor: static Tensor:data: a tensor of 3 x 4 x 5 values expected, of 3 x 5 x 5 found",
        "/value: static Tensor:data: 1 of 60 values is different, the first at index [1, 2, 3]: 0.0 expected, "
        "1.0 found; the largest difference is 1, the mean of all values 0.0167",
        "/wide: static Image:buffer: an image of 6 x 4 pixels expected, of 8 x 4 pixels found",
        "/wide: static Image:format: width 6 expected, 8 found",
    ] == compare.differences(*paths)
    assert "/value" not in _differences(*paths, tolerance=2)


def test_what_a_shortened_text_leaves_out_is_named_if_only_that_differs(tmp_path: Path) -> None:
    def log(stream: rr.RecordingStream, changed: bool) -> None:
        labels = ["same"] * 30
        labels[20] = "new" if changed else "old"
        stream.log("labels", rr.Points2D([[0, 0]], labels=labels), static=True)
        for size in (4, 100):
            stream.log(f"kind{size}", rr.Tensor(np.zeros(size, np.float64 if changed else np.float32)), static=True)

    kind = "static Tensor:data: a tensor of F32 values expected, of F64 values found"
    assert [
        f"/kind100: {kind}",
        f"/kind4: {kind}",
        "/labels: static Points2D:labels: at index 20: 'old' expected, 'new' found",
    ] == compare.differences(*_two(tmp_path, log))


def test_pixels_within_the_tolerance_are_not_counted(tmp_path: Path) -> None:
    def log(stream: rr.RecordingStream, changed: bool) -> None:
        for step in range(2):
            stream.set_time("step", sequence=step)
            # The images of one entity have two sizes.
            depths = np.full((2, 3) if step else (3, 2), 1.5, np.float32)
            depths[0, 0] += 1e-4 * changed
            depths[1, 1] += changed * step
            stream.log("depths", rr.DepthImage(depths))

    assert [
        "/depths: DepthImage:buffer: at step=1: 1 of 6 pixels is different, the first in row 1, column 1: 1.5 "
        "expected, 2.5 found; the largest difference is 1, the mean of all pixels 0.167"
    ] == compare.differences(*_two(tmp_path, log), tolerance=1e-3)


def test_pixels_of_colours_and_numbers_of_values_are_named(tmp_path: Path) -> None:
    def log(stream: rr.RecordingStream, changed: bool) -> None:
        picture = np.zeros((4, 6, 3), np.uint8)
        picture[1:3, 2] = (0, 9 * changed, 0)
        stream.log("colours", rr.Image(picture), static=True)
        depths = np.full((2, 3), 1.5, np.float32)
        depths[1, 2] += changed
        stream.log("depths", rr.DepthImage(depths), static=True)
        stream.log("few", rr.Points2D([[1, 2]] * (2 + changed)), static=True)
        stream.log("many", rr.Points2D([[1, 2]] * (100 + changed)), static=True)

    assert [
        "/colours: static Image:buffer: 2 of 24 pixels are different, the first in row 1, column 2: "
        "[0, 0, 0] expected, [0, 9, 0] found; the largest difference is 9, the mean of all pixels 0.25",
        "/depths: static DepthImage:buffer: 1 of 6 pixels is different, the first in row 1, column 2: 1.5 expected, "
        "2.5 found; the largest difference is 1, the mean of all pixels 0.167",
        "/few: static Points2D:positions: 2 values expected, 3 found: [[1.0, 2.0], [1.0, 2.0]] expected, "
        "[[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]] found",
        "/many: static Points2D:positions: 100 values expected, 101 found",
    ] == compare.differences(*_two(tmp_path, log))


def test_a_timeline_of_another_type_and_a_component_of_another_type(tmp_path: Path) -> None:
    def log(stream: rr.RecordingStream, changed: bool) -> None:
        if changed:
            stream.set_time("when", duration=1.0)
        else:
            stream.set_time("when", sequence=1)
        stream.log("n", rr.Scalars(1.0))

    expected, actual = _two(tmp_path, log)
    reader = rr.chunk.RrdReader(actual)
    (entry,) = reader.recordings()
    (chunk,) = (each for each in reader.stream(store=entry) if str(each.entity_path) == "/n")
    batch = chunk.to_record_batch()
    at = batch.schema.get_field_index("Scalars:scalars")
    field = batch.schema.field(at).with_type(pa.list_(pa.float32()))
    changed = rr.chunk.Chunk.from_record_batch(batch.set_column(at, field, batch.column(at).cast(field.type)))
    with rr.RecordingStream("app", send_properties=False) as stream:
        stream.save(actual)
        rr.send_chunks(changed, recording=stream)
    assert [
        "timeline when has times of type int64 expected, duration[ns] found",
        "/n: Scalars:scalars: type double expected, float found",
    ] == compare.differences(expected, actual)


def test_rows_at_no_time_but_that_of_logging_are_compared_without_order(tmp_path: Path) -> None:
    def log(stream: rr.RecordingStream, changed: bool) -> None:
        for value in (3, 1, 2, 7, np.inf) if changed else (1, 2, 4, np.nan, np.inf):
            stream.log("n", rr.Scalars(value))
        when = np.datetime64("2026-01-01T00:00:00.000000001" if changed else "2026-01-01T00:00:00.000000002", "ns")
        stream.log("t", rr.AnyValues(when=pa.array([when])))
        stream.log("t", rr.AnyValues(when=pa.array([when + np.timedelta64(10, "s")])))

    found = compare.differences(*_two(tmp_path, log))
    assert ["/n", "/t"] == [each.partition(":")[0] for each in found]
    assert found[0].endswith("(and 1 row more)")


@pytest.mark.parametrize(("tolerance", "same"), [(0.0, False), (1e-9, False), (1e-5, True)])
def test_floating_point_numbers_may_differ_by_the_tolerance(tmp_path: Path, tolerance: float, same: bool) -> None:
    def log(stream: rr.RecordingStream, changed: bool) -> None:
        for step in range(3):
            stream.set_time("step", sequence=step)
            stream.log("n", rr.Scalars([1000 * (1 + changed * 1e-6), np.nan, 0.0 * (-1 if changed else 1)]))
            stream.log("p", rr.Points3D([[step + changed * 1e-6, np.inf, -np.inf]]))

    paths = _two(tmp_path, log)
    assert same == (compare.differences(*paths, tolerance=tolerance) == [])


@pytest.mark.parametrize("found", [1.0, 5.0, -np.inf, np.nan])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_an_infinite_number_equals_only_itself(tmp_path: Path, found: float, kind: type[np.floating[Any]]) -> None:
    def log(stream: rr.RecordingStream, changed: bool) -> None:
        stream.log("n", rr.AnyValues(x=np.array([1.0, found if changed else np.inf], kind)))

    expected, actual = _two(tmp_path, log)
    for tolerance in (0.0, 1e-6, 1e6):
        assert len(compare.differences(expected, actual, tolerance=tolerance)) == 1
        assert len(compare.differences(actual, expected, tolerance=tolerance)) == 1
        assert [] == compare.differences(expected, expected, tolerance=tolerance)


def test_nan_equals_nan_and_minus_zero_equals_zero_without_tolerance(tmp_path: Path) -> None:
    def log(stream: rr.RecordingStream, changed: bool) -> None:
        stream.log("n", rr.Scalars([np.nan, -0.0 if changed else 0.0]))

    assert [] == compare.differences(*_two(tmp_path, log))


def test_ignored_parts_do_not_count(tmp_path: Path) -> None:
    def log(stream: rr.RecordingStream, changed: bool) -> None:
        stream.set_time("step", sequence=int(changed))
        stream.log("a", rr.Scalars(1))
        stream.log("noise/deep/er", rr.Scalars(float(changed)))
        stream.log("noise", rr.Scalars(float(changed)))
        stream.log("noisy", rr.Scalars(1))
        stream.log("mpr/notes", rr.TextLog(f"{changed}"))

    paths = _two(tmp_path, log)
    everything = compare.differences(*paths)
    assert {"/a", "/noise", "/noise/deep/er", "/noisy"} == {each.partition(":")[0] for each in everything}
    ignored = {"ignore_timelines": ("log_time", "step"), "ignore_entities": ("noise/**", "/__properties/**", "/mpr/**")}
    assert [] == compare.differences(*paths, **ignored)  # type: ignore[arg-type]  # keyword arguments of two types
    assert "/mpr/notes" in _differences(*paths, ignore_entities=())
    # If log_time is not ignored, it is compared like any other timeline.
    assert "s later on log_time, 1 later on step" in _differences(*paths, ignore_timelines=())


def test_many_rows_are_compared_without_a_look_at_each(tmp_path: Path) -> None:
    def log(stream: rr.RecordingStream, changed: bool) -> None:
        steps = np.arange(100_000)
        values = steps * 1.0
        values[77_777] += changed
        texts = [f"text {step}" for step in steps]
        stream.send_columns("n", [rr.TimeColumn("step", sequence=steps)], [*rr.Scalars.columns(scalars=values)])
        stream.send_columns("t", [rr.TimeColumn("step", sequence=steps)], [*rr.TextLog.columns(text=texts)])

    found = compare.differences(*_two(tmp_path, log))
    assert ["/n: Scalars:scalars: at step=77777: 77777.0 expected, 77778.0 found"] == found


def test_a_wrong_level_and_a_file_that_is_no_recording_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "foreign.rrd"
    path.write_bytes(b"no recording")
    with pytest.raises(RecordingError, match=r"cannot read the recording .*foreign\.rrd: "):
        compare.differences(path, path)
    with pytest.raises(RecordingError, match=r"cannot read the recording .*none\.rrd: "):
        compare.differences(tmp_path / "none.rrd", path)
    with pytest.raises(ConfigError, match="use 'summary' or 'values'"):
        compare.differences(path, path, level="rows")  # type: ignore[arg-type]  # what a user may write


def test_the_command_says_what_differs(tmp_path: Path) -> None:
    def log(stream: rr.RecordingStream, changed: bool) -> None:
        stream.set_time("step", sequence=1)
        stream.log("n", rr.Scalars(1 + changed * 1e-6))

    one, other = map(str, _two(tmp_path, log))
    found = CliRunner().invoke(cli.main, ["compare", one, other])
    assert (1, "/n: Scalars:scalars: at step=1: 1.0 expected, 1.000001 found\n") == (found.exit_code, found.output)
    for more in (["--tolerance", "1e-3"], ["--level", "summary"], ["--ignore-entity", "/n"]):
        found = CliRunner().invoke(cli.main, ["compare", one, other, *more])
        assert (0, "") == (found.exit_code, found.output)
    found = CliRunner().invoke(cli.main, ["compare", one, str(tmp_path / "none.rrd")])
    assert found.exit_code == 2
    assert "mpr compare: cannot read the recording" in found.stderr
