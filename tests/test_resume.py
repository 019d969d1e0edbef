"""`resume=True`, the manifest and the lock of a folder with a recording per task."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import rerun as rr

import mpr
from mpr.datasets import manifest
from tests import support, tasks


def _train(number: int, lr: float = 0.1, cfg: Any = None) -> int:
    tasks.log_number(number)
    if lr < 0:
        raise ValueError("negative")
    return number


def _other(number: int) -> int:
    tasks.log_number(-number)
    return -number


def _sink(folder: Path, **keywords: Any) -> mpr.DirectorySink:
    return mpr.DirectorySink(folder, **{"name": "{number}.rrd", "resume": True, **keywords})


def _map(folder: Path, numbers: Any, **keywords: Any) -> list[Any]:
    with mpr.Pool("app", 2, sinks=_sink(folder, **keywords)) as pool:
        return pool.map(_train, numbers)


def _files(folder: Path) -> dict[str, int]:
    """Return when each file was changed."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in folder.rglob("*.rrd")
        if path.name != "shared.rrd"
    }


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def _check(folder: Path) -> None:
    """Check each file and each line of the manifest, which agree."""
    episodes = manifest.read(folder).episodes
    files = [path for path in folder.rglob("*.rrd") if not path.name.startswith("shared")]
    assert {path.relative_to(folder).as_posix() for path in files} == set(episodes)
    ids = set()
    for path in files:
        line = episodes[path.relative_to(folder).as_posix()]
        support.check_file(path)
        assert rr.chunk.RrdReader(path).recordings()[0].recording_id == line["recording_id"]
        assert support.numbers(path) == {line["args"]["number"]: 1}
        assert (line["size"], line["mtime_ns"]) == (path.stat().st_size, path.stat().st_mtime_ns)
        ids.add(line["recording_id"])
    assert len(ids) == len(files)


def test_only_what_is_missing_runs_again(start_method: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "runs"
    assert _map(folder, range(4)) == [0, 1, 2, 3]
    before = _files(folder)
    with mpr.Pool("app", 2, sinks=_sink(folder), start_method=start_method) as pool:
        assert pool.map(_train, [0, 9, 3, 8, 1]) == [mpr.SKIPPED, 9, mpr.SKIPPED, 8, mpr.SKIPPED]
        assert pool.apply(_train, (2,)) is mpr.SKIPPED
        # All of these are there for the second time, so they are new repetitions, except the last ones.
        assert pool.submit(_train, 7).result() == 7
        assert list(pool.imap(_train, [6, 5])) == [6, 5]
        assert list(pool.executor.map(_train, [4], [0.1])) == [4]
    after = _files(folder)
    assert {name: after[name] for name in before} == before
    assert set(after) == {f"{number}.rrd" for number in range(10)}
    _check(folder)
    skipped = [each.getMessage() for each in caplog.records if "skipped" in each.getMessage()]
    assert len(skipped) == 1
    assert skipped[0].startswith("4 tasks were skipped")


def test_every_call_of_a_pool_skips(tmp_path: Path) -> None:
    folder, done = tmp_path / "runs", mpr.SKIPPED
    _map(folder, [0, 1, 2])

    def pool() -> mpr.Pool:
        return mpr.Pool("app", 1, sinks=_sink(folder))

    with pool() as each:
        assert list(each.imap(_train, [0, 5, 2], chunksize=3)) == [done, 5, done]
    with pool() as each:
        assert set(map(repr, each.imap_unordered(_train, [0, 6]))) == {"mpr.SKIPPED", "6"}
    with pool() as each:
        assert list(each.executor.map(_train, [0, 7, 2], chunksize=3)) == [done, 7, done]
    with pool() as each:
        assert each.submit(_train, 1).result() is done
        assert each.starmap(_train, [{"number": 2}, (8,)]) == [done, 8]
    called: list[Any] = []
    with pool() as each:
        assert each.map_async(_train, [0, 1], callback=called.append).get() == [done, done]
    assert called == [[done, done]]
    assert set(_files(folder)) == {f"{number}.rrd" for number in (0, 1, 2, 5, 6, 7, 8)}
    _check(folder)


def test_a_task_that_raised_runs_again_into_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "runs"

    def run() -> None:
        with mpr.Pool("app", 1, sinks=_sink(folder)) as pool:
            with pytest.raises(ValueError, match="negative"):
                pool.apply(_train, (1, -1.0))
            assert pool.apply(_train, (2,)) in (2, mpr.SKIPPED)

    run()
    first = manifest.read(folder).episodes["1.rrd"]
    assert (first["outcome"], first["error"]) == ("raised", "ValueError: negative")
    run()
    second = manifest.read(folder).episodes["1.rrd"]
    assert second["started"] > first["started"]
    assert second["recording_id"] == first["recording_id"]
    assert len(manifest.read(folder).episodes) == 2
    _check(folder)


def test_a_changed_version_or_function_or_type_runs_again(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    with mpr.Pool("app", 1, sinks=_sink(folder)) as pool:
        assert pool.apply(_train, (1,)) == 1
        assert pool.apply(_other, (1,)) == -1
    with mpr.Pool("app", 1, sinks=_sink(folder)) as pool:
        # The same call, in other words.
        assert pool.apply(_train, (), {"number": 1, "lr": 0.1}) is mpr.SKIPPED
        assert pool.apply(_train, (1, 0.2)) == 1
        assert pool.apply(_other, (1,)) is mpr.SKIPPED
    assert _map(folder, [1], version="2") == [1]
    assert _map(folder, [1], version="2") == [mpr.SKIPPED]
    assert len(_files(folder)) == 4


@pytest.mark.parametrize("damage", ["remove", "cut", "empty"])
def test_a_file_that_is_not_whole_any_more_runs_again(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    _map(folder, [0, 1])
    path = folder / "0.rrd"
    if damage == "remove":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size // 2 if damage == "cut" else 0)
    assert _map(folder, [0, 1]) == [0, mpr.SKIPPED]
    _check(folder)


def test_copied_files_are_still_complete(tmp_path: Path) -> None:
    """Their times differ, so their footers are looked at."""
    _map(tmp_path / "runs", [0, 1])
    shutil.copytree(tmp_path / "runs", tmp_path / "copy", copy_function=shutil.copyfile)
    assert _map(tmp_path / "copy", [0, 1]) == [mpr.SKIPPED, mpr.SKIPPED]


def test_a_damaged_manifest_counts_as_far_as_it_can_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    _map(folder, [0, 1, 2])
    path = folder / "manifest.jsonl"
    lines = path.read_text().splitlines()
    odd = ["", "no json", "[1]", '{"path": 3}', '{"path": "../x.rrd", "outcome": "returned"}', '{"path": "/x"}', "{}"]
    path.write_text("\n".join([*lines[:-1], *odd, lines[-1][:-20]]))
    results = _map(folder, [0, 1, 2])
    assert sorted(map(repr, results)) == sorted(["mpr.SKIPPED", "mpr.SKIPPED", repr(results[_missing(lines[-1])])])
    assert results[_missing(lines[-1])] is not mpr.SKIPPED
    _check(folder)


def _missing(line: str) -> int:
    number: int = json.loads(line)["args"]["number"]
    return number


def test_a_manifest_that_was_deleted_costs_the_runs_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    _map(folder, [0, 1])
    (folder / "manifest.jsonl").unlink()
    (folder / "note.txt").write_text("mine")
    assert _map(folder, [0, 1]) == [0, 1]
    assert (folder / "note.txt").read_text() == "mine"
    _check(folder)


def test_an_argument_without_a_digest_is_refused_before_anything_runs(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    lock: Any = threading.Lock
    with mpr.Pool("app", 1, sinks=_sink(folder)) as pool:
        with pytest.raises(mpr.ConfigError, match=r"task of _train cannot run.* cfg\[1\] is a object.*__mpr_digest__"):
            pool.starmap(_train, [(0,), (1, 0.1, [lock, object()])])
        assert pool.apply(_train, (2,)) == 2
    assert set(_files(folder)) == {"2.rrd"}


def _die_first(number: int, folder: str) -> int:
    tasks.log_number(number)
    once = Path(folder) / str(number)
    if not once.exists():
        once.touch()
        tasks.log_and_die(number)
    return number


def test_all_attempts_of_a_task_have_one_file(tmp_path: Path) -> None:
    folder, marks = tmp_path / "runs", tmp_path / "marks"
    marks.mkdir()
    jobs = [(number, str(marks)) for number in range(3)]
    for expected in ([0, 1, 2], [mpr.SKIPPED] * 3):
        with mpr.Pool("app", 1, sinks=_sink(folder), retries=1) as pool:
            assert pool.starmap(_die_first, jobs, chunksize=1) == expected
    _check(folder)
    assert {each["attempt"] for each in manifest.read(folder).episodes.values()} == {2}


def test_a_name_that_two_runs_want_is_given_to_none(tmp_path: Path) -> None:
    """The file of the first run is renamed, and its task is still skipped."""
    folder = tmp_path / "runs"

    def run(*lrs: float) -> list[Any]:
        with mpr.Pool("app", 1, sinks=_sink(folder, name="{lr:.1f}.rrd")) as pool:
            return [pool.apply(_train, (1, lr)) for lr in lrs]

    assert run(0.11) == [1]
    assert set(_files(folder)) == {"0.1.rrd"}
    assert run(0.11, 0.12) == [mpr.SKIPPED, 1]
    names = set(_files(folder))
    assert len(names) == 2
    assert all(name.startswith("0.1-") for name in names)
    assert run(0.12, 0.11) == [mpr.SKIPPED, mpr.SKIPPED]
    assert set(_files(folder)) == names
    _check(folder)


def test_types_are_those_of_earlier_runs(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    for cfg in (0.5, 1, "text"):
        with mpr.Pool("app", 1, sinks=_sink(folder, name="{digest}.rrd")) as pool:
            pool.apply(_train, (1, 0.1, cfg))
    fields = [line for line in _lines(folder) if "field" in line]
    assert {"field": "cfg", "type": "float64", "property": "cfg"} in fields
    assert len(fields) == 3
    with rr.server.Server(datasets={"d": [str(folder / name) for name in _files(folder)]}) as server:
        client = server.client()
        column = client.get_dataset("d").segment_table().to_arrow_table().column("property:args:cfg")
    assert sorted(column.to_pylist(), key=repr) == [[0.5], [1.0], [None]]


_PROGRAM = """
import sys, time
import mpr
from tests.test_resume import _sink, _train
from pathlib import Path
with mpr.Pool("app", 1, sinks=_sink(Path(sys.argv[1]))) as pool:
    for number in range(3):
        pool.apply(_train, (number,))
    print("ready", flush=True)
    sys.stdin.read()
"""


def _started(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_second_run_in_the_folder_is_refused_until_the_first_one_is_dead(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    with _started(folder) as process:
        try:
            with pytest.raises(mpr.SinkError, match="is being written by another recording"):
                _map(folder, [0])
        finally:
            process.send_signal(signal.SIGKILL)
    # The parent was killed. What it had written stays.
    assert _map(folder, range(5)) == [mpr.SKIPPED] * 3 + [3, 4]
    _check(folder)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [({"name": "{attempt}.rrd"}, "take {attempt} out"), ({"version": 2}, "version of a DirectorySink is a str")],
)
def test_options_that_cannot_work_are_refused(keywords: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(mpr.ConfigError, match=words):
        _sink(tmp_path / "runs", **keywords)


def test_the_default_name_of_a_resumed_run_has_the_digest(tmp_path: Path) -> None:
    for expected in ([1, 1], [mpr.SKIPPED] * 2):
        with mpr.Pool("app", 1, sinks=mpr.DirectorySink(tmp_path / "runs", resume=True)) as pool:
            assert pool.map(_train, [1, 1]) == expected
    digest = next(iter(manifest.read(tmp_path / "runs").episodes.values()))["digest"][:8]
    assert set(_files(tmp_path / "runs")) == {f"_train-{digest}.rrd", f"_train-{digest}-r1.rrd"}
