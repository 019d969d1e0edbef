"""The names of the files of a `DirectorySink` with a template."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import pytest
import rerun as rr

import mpr
from tests import support, tasks


@dataclasses.dataclass
class _Config:
    lr: float
    layers: dict[str, int]


def _train(number: int, lr: float = 0.1, cfg: Any = None) -> int:
    tasks.log_number(number)
    return number


def _run(folder: Path, name: str, *calls: Any, **keywords: Any) -> dict[str, int]:
    """Run each of `calls`, a list for `starmap` or a tuple for `apply`. Return the number in each file by its name."""
    with mpr.Pool("app", 1, sinks=mpr.DirectorySink(folder, name=name), **keywords) as pool:
        for call in calls:
            if isinstance(call, list):
                pool.starmap(_train, call, chunksize=1)
            else:
                pool.apply(_train, call)
    files = [path for path in folder.rglob("*.rrd") if path.name != "shared.rrd"]
    assert sorted(pool.recording.paths) == sorted(folder.rglob("*.rrd"))
    found = {}
    for path in files:
        support.check_file(path)
        (number,) = support.numbers(path)
        found[path.relative_to(folder).as_posix()] = number
    return found


def _ids(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): rr.chunk.RrdReader(path).recordings()[0].recording_id
        for path in folder.rglob("*.rrd")
    }


def test_a_file_has_the_name_of_its_arguments(start_method: Any, tmp_path: Path) -> None:
    cfg = _Config(0.25, {"conv": 3})
    found = _run(
        tmp_path / "runs",
        "{name}/lr={lr:.3g}-n={number:04d}-{cfg.layers.conv}-{cfg.lr}.rrd",
        [(1, 0.001, cfg), (2, 1e-7, {"lr": "a/../b", "layers": {"conv": None}})],
        start_method=start_method,
    )
    assert found == {"_train/lr=0.001-n=0001-3-0.25.rrd": 1, "_train/lr=1e-07-n=0002-None-a_.._b.rrd": 2}


@pytest.mark.parametrize("order", [1, -1])
def test_two_tasks_of_one_name_have_the_digest_in_any_order(order: int, tmp_path: Path) -> None:
    """`{lr:.1f}` is the same for both, whichever comes first, in one call or in two."""
    jobs = [(1, 0.11), (2, 0.12)][::order]
    together = _run(tmp_path / "together", "{lr:.1f}.rrd", [*jobs, (3, 0.5)])
    apart = _run(tmp_path / "apart", "{lr:.1f}.rrd", *jobs, (3, 0.5))
    assert together == apart
    assert together.pop("0.5.rrd") == 3
    assert sorted(together.values()) == [1, 2]
    # The digests do not change. If they did, no program could find its earlier files.
    assert together == {"0.1-91d5cea6.rrd": 1, "0.1-a8239acc.rrd": 2}


def test_a_task_that_is_repeated_has_a_number(tmp_path: Path) -> None:
    found = _run(tmp_path / "runs", "{number}.rrd", [(1,), (1,), (2,)], (1,))
    assert found == {"1.rrd": 1, "1-r1.rrd": 1, "1-r2.rrd": 1, "2.rrd": 2}


def test_recording_ids_are_the_same_in_each_run(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        _run(tmp_path / folder, "{number}.rrd", [(1,), (1,), (2,)])
    first, second = _ids(tmp_path / "one"), _ids(tmp_path / "two")
    assert first == second
    assert len({*first.values()}) == 3
    assert {len(each) for each in first.values()} == {32}


def test_numbers_have_the_width_of_the_call(tmp_path: Path) -> None:
    found = _run(tmp_path / "runs", "{index}.rrd", [(number,) for number in range(11)], (11,))
    assert found == {f"{number:02d}.rrd": number for number in range(11)} | {"000011.rrd": 11}
    with mpr.Pool("app", 1, sinks=mpr.DirectorySink(tmp_path / "more", name="{task}-{index}.rrd")) as pool:
        list(pool.imap(_train, range(2)))
        list(pool.executor.map(_train, range(2)))
    names = {path.name for path in (tmp_path / "more").glob("*.rrd")}
    assert names == {"000000-000000.rrd", "000001-000001.rrd", "000002-000000.rrd", "000003-000001.rrd"}


def test_a_name_that_no_file_can_have_is_made_safe(tmp_path: Path) -> None:
    values = [
        "../../evil",
        "con",
        ".hidden",
        "x" * 500 + "1",
        "x" * 500 + "2",
        "😀",
        "日本語",
        "a\nb",
        "",
        "shared",
        "A",
        "a",
    ]
    found = _run(tmp_path / "runs", "{cfg}.rrd", [(number, 0.1, value) for number, value in enumerate(values)])
    assert sorted(found.values()) == list(range(len(values)))
    names = {number: name for name, number in found.items()}
    assert all(len(name.encode()) < 150 for name in found)
    assert all(not name.startswith(".") and "/" not in name for name in found)
    assert names[0] == "_.._.._evil.rrd"
    assert names[1] == "_con.rrd"
    assert names[6] == "日本語.rrd"
    assert names[3] != names[4]
    assert names[9].startswith("shared-")
    # Some file systems do not distinguish upper and lower case.
    assert {names[10][:2], names[11][:2]} == {"A-", "a-"}


def test_the_default_names_of_two_pools_do_not_clash(tmp_path: Path) -> None:
    with mpr.SharedRecording("app", sinks=mpr.DirectorySink(tmp_path / "runs")) as recording:
        for _ in range(2):
            with mpr.Pool("app", 1, recording=recording) as pool:
                pool.apply(_train, (1,))
    names = {path.name for path in (tmp_path / "runs").iterdir()}
    assert names == {"000000-_train.rrd", "000000-_train-2.rrd"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("{depth}.rrd", r"needs \{depth\}, which a task of _train lacks: the fields are \{number\}, \{lr\}"),
        ("{cfg}.rrd", r"needs \{cfg\}.* it has parts, such as \{cfg.layers.conv\}"),
        ("{cfg.depth}.rrd", r"needs \{cfg.depth\}"),
        ("{cfg.lr:d}.rrd", r"\{cfg.lr:d\} does not fit 0.5"),
    ],
)
def test_a_template_that_does_not_fit_the_call_is_refused_before_it_runs(name: str, words: str, tmp_path: Path) -> None:
    cfg = _Config(0.5, {"conv": 1})
    with mpr.Pool("app", 1, sinks=mpr.DirectorySink(tmp_path / "runs", name=name)) as pool:
        with pytest.raises(mpr.ConfigError, match=words):
            pool.starmap(_train, [(0, 0.1, cfg), (1, 0.1, cfg)])
        with pytest.raises(mpr.ConfigError, match=words):
            pool.submit(_train, 0, cfg=cfg).result()
        with pytest.raises(mpr.ConfigError, match=words):
            list(pool.executor.map(_train, [0], [0.1], [cfg]))
    assert list((tmp_path / "runs").glob("*.rrd")) == []


def test_an_argument_without_a_digest_is_refused_only_if_the_name_has_the_digest(tmp_path: Path) -> None:
    class Unknown:
        pass

    jobs = [(number, 0.1, Unknown()) for number in range(2)]
    assert set(_run(tmp_path / "runs", "{number}.rrd", jobs).values()) == {0, 1}
    sink = mpr.DirectorySink(tmp_path / "more", name="{digest:.8}.rrd")
    with (
        mpr.Pool("app", 1, sinks=sink) as pool,
        pytest.raises(mpr.ConfigError, match=r"cfg is a .*Unknown, which has no digest"),
    ):
        pool.starmap(_train, jobs)


def _kill_first(number: int, once: int = 0) -> int:
    task = mpr.current_task()
    assert task is not None
    if task.attempt == 1:
        tasks.log_and_die(number)
    tasks.log_number(number)
    return number


def test_each_attempt_has_a_file_and_an_id(tmp_path: Path) -> None:
    sink = mpr.DirectorySink(tmp_path / "runs", name="{number}.rrd")
    with mpr.Pool("app", 1, sinks=sink, retries=1) as pool:
        assert pool.starmap(_kill_first, [(1, 0), (2, 0)], chunksize=1) == [1, 2]
    ids = _ids(tmp_path / "runs")
    assert {*ids} == {"1.rrd", "1-2.rrd", "2.rrd", "2-2.rrd", "shared.rrd"}
    assert len({*ids.values()}) == 5


def test_many_threads_may_submit_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    with mpr.Pool("app", 2, sinks=mpr.DirectorySink(folder, name="{number}.rrd")) as pool:
        threads = [threading.Thread(target=lambda: pool.map(_train, [1] * 10)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    names = {path.name for path in folder.glob("*.rrd")}
    assert names == {"1.rrd"} | {f"1-r{count}.rrd" for count in range(1, 40)}
