"""The properties of the recordings of a `DirectorySink`, as a catalog server sees them."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import rerun as rr
from datafusion import col, lit

import mpr
from mpr.datasets import arguments
from mpr.datasets.properties import PropertyTypes
from mpr.rrd.segment import TaskCall
from mpr.transport.messages import CALL, EACH, STAR
from tests import support, tasks


class _Kind(enum.Enum):
    FAST = 1


@dataclasses.dataclass
class _Optimizer:
    name: str
    lr: float


@dataclasses.dataclass
class _Config:
    depth: int
    optimizer: _Optimizer


def _train(number: int, lr: float, cfg: Any = None, *, seed: int = 7, **more: Any) -> int:
    tasks.log_number(number)
    return seed


def _fail(number: int) -> None:
    tasks.log_number(number)
    raise ValueError(f"task {number} failed")


def _set_properties(number: int) -> None:
    tasks.log_number(number)
    rr.send_property("task", rr.AnyValues(function="mine", extra=number))


def _table(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of the catalog's table, by columns. Each file must be in the table."""
    paths = sorted(path for path in folder.rglob("*.rrd") if path.name != "shared.rrd")
    for path in paths:
        support.check_file(path)
    with rr.server.Server(datasets={"d": [str(path.absolute()) for path in paths]}) as server:
        # A table needs its client.
        client = server.client()
        rows: list[dict[str, Any]] = client.get_dataset("d").segment_table().to_arrow_table().to_pylist()
    assert len(rows) == len(paths)
    return rows


def _values(rows: list[dict[str, Any]], name: str) -> list[Any]:
    """Return the values of the property `name`; None for a null or a property that is missing."""
    return [None if row[f"property:{name}"] is None else row[f"property:{name}"][0] for row in rows]


def test_a_catalog_filters_by_arguments_and_outcomes(start_method: Any, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    with mpr.Pool("app", 2, sinks=mpr.DirectorySink(folder), start_method=start_method) as pool:
        # The first call fixes the types. `lr` is a float, because it is annotated.
        pool.starmap(_train, [(0, 1), (1, 2)])
        pool.apply(_train, (2, 0.5), {"cfg": _Config(3, _Optimizer("adam", 0.1)), "seed": 9})
        pool.apply(_train, (3, np.float32(0.25)), {"cfg": {"depth": np.int64(4)}, "note": "ü"})
        with pytest.raises(ValueError, match="failed"):
            pool.apply(_fail, (4,))
        list(pool.imap(_fail_if_odd, [6]))
        pool.submit(_train, 7, lr=8).result()
        list(pool.executor.map(_train, [8], [9]))
    paths = [str(path.absolute()) for path in folder.iterdir()]
    with rr.server.Server(datasets={"d": paths}) as server:
        client = server.client()
        table = client.get_dataset("d").segment_table()

        def found(condition: Any) -> set[int]:
            rows = table.filter(condition).to_arrow_table().column("property:args:number").to_pylist()
            return {row[0] for row in rows}

        assert table.count() == 8
        assert found(col("property:args:lr")[0] < lit(1.0)) == {2, 3}
        assert found(col("property:args:seed")[0] == lit(7)) == {0, 1, 3, 7, 8}
        assert found(col("property:args:cfg_depth")[0] >= lit(3)) == {2, 3}
        assert found(col("property:args:cfg_optimizer_name")[0] == lit("adam")) == {2}
        assert found(col("property:args:note")[0] == lit("ü")) == {3}
        assert found(col("property:task:outcome")[0] != lit("returned")) == {4}
        assert found(col("property:task:error")[0] == lit("ValueError: task 4 failed")) == {4}
        assert found(col("property:task:seconds")[0] >= lit(0.0)) == {0, 1, 2, 3, 4, 6, 7, 8}
        assert found(col("property:task:attempt")[0] == lit(1)) == {0, 1, 2, 3, 4, 6, 7, 8}
        schema = table.to_arrow_table().schema
    types = {"index": "int64", "worker": "int64", "seconds": "double", "host": "string", "function": "string"}
    for name, kind in types.items():
        assert str(schema.field(f"property:task:{name}").type.value_type) == kind


def _fail_if_odd(number: int) -> int:
    tasks.log_number(number)
    return number


def test_a_value_of_another_type_keeps_no_episode_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = [1, 0.5, "text", True, 2**70, [1], None, 3.0]
    folder = tmp_path / "runs"
    with mpr.Pool("app", 1, sinks=mpr.DirectorySink(folder, name="{task}.rrd")) as pool:
        for value in values:
            pool.apply(_log_any, (value,))
    rows = sorted(_table(folder), key=lambda row: row["property:task:index"])
    assert _values(rows, "args:value") == [1, None, None, None, None, None, None, 3]
    texts = ["value=0.5", "value='text'", "value=True", f"value={2**70}", "value=[1]"]
    assert _values(rows, "task:args_text") == [None, *texts, None, None]
    warnings = [each.getMessage() for each in caplog.records if "the argument" in each.getMessage()]
    assert len(warnings) == 1
    assert "value of a task is 0.5, which is no int64" in warnings[0]


def _log_any(value: Any) -> None:
    rr.log("n", rr.Scalars(1.0))


def test_values_of_the_program_itself_change_no_type(tmp_path: Path) -> None:
    """The SDK keeps the type of a name for the whole process."""
    rr.AnyValues(of_no_other_test="text")
    with mpr.Pool("app", 1, sinks=mpr.DirectorySink(tmp_path / "runs"), start_method="fork") as pool:
        assert pool.apply(_train, (1, 2), {"of_no_other_test": 3}) == 7
    (row,) = _table(tmp_path / "runs")
    assert row["property:args:of_no_other_test"] == [3]


def test_two_names_never_become_one(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    names = ["a b", "a.b", "a:b", "a_b", "A_B", "é", "ü", "x" * 300 + "1", "x" * 300 + "2", "0", "self", ""]
    with mpr.Pool("app", 1, sinks=mpr.DirectorySink(folder)) as pool:
        pool.apply(_train, (0, 0.5), {name: index for index, name in enumerate(names)})
        pool.apply(_train, (1, 0.5), {name: index for index, name in enumerate(reversed(names))})
    rows = sorted(_table(folder), key=lambda row: row["property:args:number"])
    columns = [name for name in rows[0] if name.startswith("property:args:")]
    assert len(columns) == len({name.lower() for name in columns})
    assert all(name.removeprefix("property:args:").replace("_", "a").isalnum() and name.isascii() for name in columns)
    others = {"property:args:number", "property:args:lr", "property:args:seed"}
    for row in rows:
        found = [row[name][0] for name in columns if name not in others and row[name] is not None]
        assert sorted(found) == list(range(len(names)))


def test_properties_that_a_task_sets_itself_are_kept(tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=mpr.DirectorySink(tmp_path / "runs")) as pool:
        pool.apply(_set_properties, (5,))
    (row,) = _table(tmp_path / "runs")
    assert row["property:task:function"] == ["mine"]
    assert row["property:task:extra"] == [5]
    assert row["property:task:outcome"] == ["returned"]


class _Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def test_arguments_become_plain_values() -> None:
    point = collections.namedtuple("point", "x y")(1, 2.5)
    cycle: list[Any] = []
    cycle.append(cycle)
    found = arguments.fields(
        {
            "none": None,
            "flag": np.bool_(True),
            "half": np.float16(0.5),
            "zero": np.array(3),
            "row": np.array([1, 2]),
            "image": np.zeros((2, 3), np.uint8),
            "when": np.datetime64("2026-01-02"),
            "day": datetime.date(2026, 1, 2),
            "kind": _Kind.FAST,
            "path": Path("a/b"),
            "list": [1, 2.5],
            "long": list(range(1000)),
            "mixed": {"a": {"b": [True]}, "": 1},
            "odd": {1: 2},
            "point": point,
            "function": _train,
            "text": "x\udc80",
            "hostile": _Hostile(),
            "cycle": cycle,
            "big": b"x" * 5000,
        }
    )
    assert found["image"] == "ndarray uint8 (2, 3)"
    assert "_Hostile" in found["hostile"]
    assert len(found["big"]) <= 1000
    assert found["long"].startswith("[0, 1, 2")
    assert isinstance(found["cycle"], str)
    plain = {key: value for key, value in found.items() if key not in ("image", "hostile", "big", "long", "cycle")}
    assert plain == {
        "none": None,
        "flag": True,
        "half": 0.5,
        "zero": 3,
        "row": [1, 2],
        "when": "2026-01-02",
        "day": datetime.date(2026, 1, 2),
        "kind": "FAST",
        "path": "a/b",
        "list": [1, 2.5],
        "mixed.a.b": [True],
        "mixed.": 1,
        "odd": "{1: 2}",
        "point.x": 1,
        "point.y": 2.5,
        "function": "_train",
        "text": "x\\udc80",
    }


def test_arguments_get_the_names_of_their_parameters() -> None:
    def fields(function: Any, mode: int, item: Any) -> Any:
        return dict(arguments.describe_calls(function, "a name", mode, [item])[0].arguments)

    assert fields(_train, STAR, (1, 2)) == {"number": 1, "lr": 2, "cfg": None, "seed": 7}
    assert fields(_train, CALL, ((1,), {"lr": 2, "note": 3})) == {
        "number": 1,
        "lr": 2,
        "seed": 7,
        "cfg": None,
        "note": 3,
    }
    # These calls will fail, or nobody knows their parameters.
    assert fields(_train, EACH, 1) == {"arg0": 1}
    assert fields(max, STAR, (1, 2)) == {"arg0": 1, "arg1": 2}
    # An iterator is not read, because the task needs its values.
    values = iter([1, 2])
    assert list(fields(_train, STAR, values)) == ["arg0"]
    assert list(values) == [1, 2]


@pytest.mark.parametrize(
    ("batches", "type_name", "expected"),
    [
        ([[1, 2], [3]], "int64", [1, 2, 3]),
        ([[1, 2.5]], "double", [1.0, 2.5]),
        ([[None, 1.5], [2]], "double", [None, 1.5, 2.0]),
        ([["a"], [datetime.date(2026, 1, 2)]], "string", ["a", "2026-01-02"]),
        ([[True], [1]], "bool", [True, None]),
        ([[1.5], [2**60]], "double", [1.5, None]),
        ([[[1]], [[2.0]], [[0.5]]], "int64", [1, 2, None]),
        ([[[1, 0.5]], [[2]]], "double", [1.0, 2.0]),
        ([[[]], [["a"]], ["b"]], "string", ["a", None]),
    ],
)
def test_the_first_call_fixes_the_type(batches: Any, type_name: str, expected: Any) -> None:
    types = PropertyTypes()
    columns: list[pa.Array] = []
    for batch in batches:
        calls = [TaskCall({"value": value}) for value in batch]
        types.learn(calls)
        columns += [types.columns(call)[0]["value"] for call in calls if types.columns(call)[0]]
    assert {str(each.type) for each in columns} == {type_name}
    assert [each[0].as_py() for each in columns] == expected
