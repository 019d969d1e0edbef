"""`mpr ls`, `mpr open`, `mpr index` and `mpr.read_runs`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rerun as rr

import mpr
from mpr.datasets import manifest, query
from tests import support, tasks


def _train(number: int, lr: float = 0.5, cfg: Any = None) -> int:
    tasks.log_number(number)
    if lr > 5:
        raise ValueError("too large")
    return number


def _make(folder: Path, **keywords: Any) -> None:
    sink = mpr.DirectorySink(folder, **{"name": "{number}.rrd", **keywords})
    with mpr.Pool("app", 1, sinks=sink) as pool:
        pool.starmap(_train, [(0, 0.1), (1, 1, {"depth": 3, "path": "x"}), (2, 0.2, 4)])
        with pytest.raises(ValueError, match="too large"):
            pool.apply(_train, (3, 9.0))


def _mpr(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mpr", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("data") / "runs"
    _make(found)
    return found


_CONDITIONS = [
    ("lr < 0.5", [0, 2]),
    ("0.1 < lr <= 1", [1, 2]),
    ("outcome != 'returned'", [3]),
    ("outcome == 'returned' and not number in [0, 1]", [2]),
    ("number == 0 or cfg.depth == 3", [0, 1]),
    ("cfg == None", [0, 1, 3]),
    ("cfg.depth != 4", [1]),
    ("lr < 'a'", []),
    ("cfg.path == 'x'", [1]),
    ("error not in (None, 'x') and 'large' in error", [3]),
    ("-lr < -0.5", [1, 3]),
]


@pytest.mark.parametrize(("where", "expected"), _CONDITIONS)
def test_a_condition_selects(where: str, expected: list[int], folder: Path) -> None:
    assert [row["number"] for row in mpr.read_runs(folder, where).to_pylist()] == expected


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("lr <", "is no condition"),
        ("rate < 1", "no recording has 'rate': the columns are attempt, cfg"),
        ("__import__('os').system('x')", "is not possible"),
        ("lr.__class__ == 1", "no recording has"),
        ("[x for x in (1,)]", "is not possible"),
        ("lr + 1 > 2", "is not possible"),
        ("lr is None", "is not possible"),
        ("(" * 1000, "is no condition"),
    ],
)
def test_a_condition_that_cannot_work_is_refused(where: str, words: str, folder: Path) -> None:
    with pytest.raises(mpr.ConfigError, match=words):
        mpr.read_runs(folder, where)


def test_a_table_has_typed_columns(folder: Path) -> None:
    table = mpr.read_runs(str(folder), sort="-lr")
    assert table.column("number").to_pylist() == [3, 1, 2, 0]
    types = {field.name: str(field.type) for field in table.schema}
    assert (types["lr"], types["number"], types["seconds"], types["outcome"]) == ("double", "int64", "double", "string")
    assert mpr.read_runs(folder, sort="cfg.depth").column("number").to_pylist()[0] == 1
    with pytest.raises(mpr.ConfigError, match="no recording has 'rate'"):
        mpr.read_runs(folder, sort="-rate")


def test_the_list_shows_the_arguments_that_differ(folder: Path) -> None:
    ran = _mpr("ls", folder, "--where", "lr < 2", "--sort", "-number")
    assert (ran.returncode, ran.stderr) == (0, "")
    head, *rows = [line.split() for line in ran.stdout.splitlines()]
    assert head == ["path", "outcome", "number", "lr", "cfg", "cfg.depth", "cfg.path", "seconds", "size"]
    assert [row[:4] for row in rows] == [
        ["2.rrd", "returned", "2", "0.2"],
        ["1.rrd", "returned", "1", "1"],
        ["0.rrd", "returned", "0", "0.1"],
    ]
    lines = [json.loads(line) for line in _mpr("ls", folder, "--json").stdout.splitlines()]
    assert [line["number"] for line in lines] == [0, 1, 2, 3]
    ran = _mpr("ls", folder.parent)
    assert ran.returncode == 1
    assert f"mpr index {folder.parent}" in ran.stderr


def test_the_selected_recordings_are_opened_in_one_viewer(folder: Path, tmp_path: Path) -> None:
    """The viewer writes what it gets into a file."""
    target = tmp_path / "seen.rrd"
    ran = _mpr("open", folder, "--where", "lr < 2", "--limit", "2", "--sort", "number", "--", "--save", target)
    assert ran.returncode == 0, ran.stderr
    assert "2 of 3 recordings are opened" in ran.stderr
    assert support.numbers(target) == {0: 1, 1: 1}
    ran = _mpr("open", folder, "--where", "lr > 100")
    assert ran.returncode == 1
    assert "no recording in" in ran.stderr


@pytest.mark.parametrize("keywords", [{}, {"resume": True}, {"name": "{task:06d}-{name}.rrd"}])
def test_the_manifest_can_be_made_again(keywords: Any, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    _make(folder, **keywords)
    before = manifest.read(folder)
    (folder / "manifest.jsonl").unlink(missing_ok=True)
    (folder / "broken.rrd").write_bytes(b"RRF2")
    (folder / ".hidden.rrd").write_bytes(b"")
    rr.RecordingStream("other").save(folder / "other.rrd")
    ran = _mpr("index", folder)
    assert ran.returncode == 1
    assert sorted(Path(line.partition(":")[0]).name for line in ran.stderr.splitlines()) == ["broken.rrd", "other.rrd"]
    after = manifest.read(folder)
    assert len(after.episodes) == 4
    if "name" in keywords:
        assert mpr.read_runs(folder, "outcome == 'raised'").num_rows == 1
        return
    assert after.fields == before.fields
    missing = {"key", "other", "sdk"}
    for path, line in before.episodes.items():
        expected = {key: value for key, value in line.items() if key not in missing}
        expected["started"] = after.episodes[path]["started"]
        assert after.episodes[path] == expected
    with mpr.Pool("app", 1, sinks=mpr.DirectorySink(folder, name="{number}.rrd", resume=True)) as pool:
        assert pool.starmap(_train, [(0, 0.1), (7, 0.1)]) == [mpr.SKIPPED, 7]
        ran = _mpr("index", folder)
        assert ran.returncode == 1
        assert "is being written" in ran.stderr


def test_listing_needs_neither_the_sdk_nor_much_time(tmp_path: Path) -> None:
    lines = [
        {"path": f"{n}.rrd", "outcome": "returned", "args": {"lr": n / 7, "seed": n}, "seconds": 0.1, "size": n}
        for n in range(10_000)
    ]
    file = manifest.ManifestFile(tmp_path)
    file.append(lines)
    file.close()
    code = "import sys, pathlib; from mpr.datasets import query; folder = pathlib.Path(sys.argv[1]); "
    code += "found = query.selected(query.runs(folder), 'lr < 10 and seed in [3, 5, 500]', '-lr'); "
    code += "print([each['seed'] for each in found], [name for name in ('rerun', 'zmq') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert ran.stdout == "[5, 3] []\n"
    assert len(query.shown(query.runs(tmp_path))) == 10_001
