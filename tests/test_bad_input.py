"""Bad input raises a clear error at once, nothing is started, and no existing file is harmed."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

import mpr
from tests import support, tasks


@pytest.mark.parametrize(
    ("arguments", "keywords", "words"),
    [
        ((None,), {}, "application id must be a str"),
        ((4,), {}, "application id must be a str"),
        (("",), {}, "no application id"),
        (("a.b",), {}, "no application id"),
        (("app", 0), {}, "at least 1 process"),
        (("app", -3), {}, "at least 1 process"),
        (("app", "2"), {}, "number of workers"),
        (("app", 1, None, (), 0), {}, "maxtasksperchild"),
        (("app", 1), {"start_method": "thread"}, "start_method must be one of"),
        (("app", 1), {"sinks": []}, "sinks is empty"),
        (("app", 1), {"sinks": 5}, "5 is no sink"),
        (("app", 1), {"sinks": [5]}, "is no sink"),
    ],
)
def test_a_bad_value_is_refused_with_a_reason(arguments: tuple[Any, ...], keywords: Any, words: str) -> None:
    with pytest.raises(mpr.ConfigError, match=words):
        mpr.Pool(*arguments, **keywords)


def test_no_application_id_at_all_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="application_id"):
        mpr.Pool()  # type: ignore[call-arg]  # the missing argument is tested


def test_an_initializer_that_cannot_be_called_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="initializer must be callable, got 1"):
        mpr.Pool("app", 1, 1)  # type: ignore[arg-type]  # the wrong type is tested


def test_a_folder_as_the_path_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(mpr.ConfigError, match="is a folder"):
        mpr.Pool("app", 1, sinks=tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "nowhere").write_text("a file")
    with pytest.raises(mpr.SinkError, match=r"cannot make the folder .*nowhere") as caught:
        mpr.Pool("app", 1, sinks=tmp_path / "nowhere" / "run.rrd")
    assert caught.value.errno == errno.EEXIST


def test_an_unwritable_folder_is_refused() -> None:
    # /proc takes no files, not even from root.
    with pytest.raises(mpr.SinkError, match="cannot write into the folder"):
        mpr.Pool("app", 1, sinks="/proc/run.rrd")


def test_a_path_that_another_recording_writes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with mpr.Pool("app", 1, sinks=path) as pool:
        with pytest.raises(mpr.SinkError, match="written by another recording"):
            mpr.Pool("app", 1, sinks=path)
        pool.apply(tasks.log_number, (1,))
        # The file has its final name now, and is still locked.
        with pytest.raises(mpr.SinkError, match="written by another recording"):
            mpr.Pool("app", 1, sinks=path)
    support.check_file(path)
    assert {1} == set(support.numbers(path))


def test_a_run_that_fails_at_start_does_not_harm_an_existing_file(start_method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    path.write_bytes(b"precious")
    with (
        pytest.raises(mpr.InitializerError),
        mpr.Pool("app", 1, tasks.die_quietly, sinks=path, start_method=start_method) as pool,
    ):
        pool.apply(tasks.square, (1,))
    assert b"precious" == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


def test_the_error_for_an_unpicklable_task_names_the_part_that_cannot_be_pickled(tmp_path: Path) -> None:
    lock = threading.Lock()

    def task(number: int) -> int:
        with lock:
            return number

    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd") as pool:
        with pytest.raises(mpr.UnpicklableTaskError, match=r"task function .*task.* variable 'lock' is a _thread.lock"):
            pool.map(task, range(3))
        with pytest.raises(mpr.UnpicklableTaskError, match=r"argument of task 'square.*item 1 is a _thread.lock"):
            pool.map(tasks.square, [1, lock], chunksize=2)
        with pytest.raises(mpr.UnpicklableTaskError, match="must be callable"):
            pool.apply("square")  # type: ignore[arg-type]  # the wrong type is tested
        assert [0, 1, 4] == pool.map(tasks.square, range(3))


def test_an_unpicklable_initializer_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(mpr.UnpicklableTaskError, match=r"initializer.*_thread.lock"):
        mpr.Pool("app", 1, tasks.remember, (threading.Lock(),), sinks=tmp_path / "run.rrd")
    assert [] == list(tmp_path.iterdir())


def test_a_module_that_cannot_be_imported_in_the_worker_fails_the_task(tmp_path: Path) -> None:
    """The parent has imported the module; the worker cannot."""
    module = tmp_path / "fragile.py"
    module.write_text(
        "import multiprocessing\n"
        "if multiprocessing.parent_process() is not None: raise OSError('no GPU here')\n"
        "def task(n): return n\n"
    )
    script = """
import sys
sys.path.insert(0, sys.argv[1])
import mpr

if __name__ == "__main__":
    import fragile
    with mpr.Pool("app", 1, sinks=sys.argv[1] + "/run.rrd") as pool:
        try:
            pool.map(fragile.task, range(3))
        except mpr.TaskLoadError as error:
            print("refused:", error)
        print(pool.apply(max, (1, 2)))
"""
    ran = support.run_python(script, tmp_path)
    assert 0 == ran.returncode, ran.stderr
    assert "refused: a worker cannot load the task function: OSError: no GPU here" in ran.stdout
    assert ran.stdout.endswith("2\n")


def test_an_initializer_that_raises_ends_the_pool_with_its_exception(start_method: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    with (
        pytest.raises(mpr.InitializerError, match="no model here") as caught,
        mpr.Pool("app", 2, tasks.raise_in_initializer, sinks=path, start_method=start_method) as pool,
    ):
        pool.map(tasks.square, range(4))
    assert isinstance(caught.value.__cause__, LookupError)
    assert "raise_in_initializer" in str(caught.value.__cause__.__cause__)
    # The rows that the initializer had logged are there.
    support.check_file(path)
    assert {-1} == set(support.numbers(path))


def test_an_initializer_that_raises_leaves_nothing_else_on_stderr(
    start_method: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        pytest.raises(mpr.InitializerError),
        mpr.Pool("app", 1, tasks.raise_in_initializer, sinks=tmp_path / "run.rrd", start_method=start_method) as pool,
    ):
        pool.apply(tasks.square, (1,))
    assert capfd.readouterr().err == ""


def test_leaving_the_block_raises_the_error_of_an_initializer(tmp_path: Path) -> None:
    with (
        pytest.raises(mpr.InitializerError, match="no model here"),
        mpr.Pool("app", 1, tasks.raise_in_initializer, sinks=tmp_path / "run.rrd") as pool,
    ):
        support.wait_for(lambda: "terminated" in repr(pool))


def test_workers_that_die_at_start_end_the_pool(start_method: Any, tmp_path: Path) -> None:
    with (
        pytest.raises(mpr.WorkerStartError, match="exited with code 7"),
        mpr.Pool("app", 2, tasks.die_in_initializer, sinks=tmp_path / "run.rrd", start_method=start_method) as pool,
    ):
        pool.map(tasks.square, range(4))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_script_without_the_main_guard_gets_an_error_that_names_it(method: str, tmp_path: Path) -> None:
    script = f"""
import sys, mpr
def task(n): return n
pool = mpr.Pool("app", 2, sinks=sys.argv[1], start_method={method!r})
print(pool.map(task, range(3)))
"""
    ran = support.run_python(script, tmp_path / "run.rrd")
    assert 0 != ran.returncode
    assert "if __name__ == '__main__':" in ran.stderr
    assert "mpr.Pool was created while a worker imported the main script" in ran.stderr
    assert "WorkerStartError" in ran.stderr


def test_a_closed_pool_takes_no_tasks(tmp_path: Path) -> None:
    pool = mpr.Pool("app", 1, sinks=tmp_path / "run.rrd")
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    pool.close()
    for call in (pool.map, pool.imap, pool.map_async, pool.starmap):
        with pytest.raises(mpr.PoolClosedError, match="takes no more tasks"):
            call(tasks.square, [1])
    with pytest.raises(mpr.PoolClosedError):
        pool.submit(tasks.square, 1)
    pool.join()
    pool.join()
    with pytest.raises(mpr.PoolClosedError):
        pool.apply(tasks.square, (1,))
    with pytest.raises(mpr.RecordingClosedError):
        _ = pool.recording.stream


def test_the_parents_pool_is_refused_in_a_child(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    message = tmp_path / "message"
    with mpr.Pool("app", 1, sinks=path) as pool:
        child = os.fork()
        if child == 0:
            try:
                pool.map(tasks.square, range(3))
            except mpr.WrongProcessError as error:
                message.write_text(str(error))
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert "belongs to process" in message.read_text()
        with pytest.raises(mpr.UnpicklableTaskError, match="cannot be sent to another process"):
            pool.apply(tasks.square, (pool,))
        assert [0, 1, 4] == pool.map(tasks.square, range(3))


def test_a_given_recording_excludes_the_options_of_a_new_one(tmp_path: Path) -> None:
    with mpr.SharedRecording("app", sinks=tmp_path / "run.rrd") as recording:
        with pytest.raises(TypeError, match="either recording, or sinks"):
            mpr.Pool("app", 1, recording=recording, sinks="other.rrd")
        with pytest.raises(mpr.ConfigError, match="is of 'app', not of 'other'"):
            mpr.Pool("other", 1, recording=recording)
